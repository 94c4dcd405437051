"""Linear probes of appearance, motion and order on sprites, the procedural set: one feature extraction for all three.

    python -m jepa_jax.evaluate --config configs/eval/sprites.py --checkpoint WORKDIR --out results.json

Source: our own set; its three labels stand for ImageNet-100, Diving-48 and Something-Something V2 of arXiv:2605.17165.
Hardware: two CPU cores. Wall time: 8 s with the encoder of configs/quickstart.py, trained and untrained.
Expected score (appearance, motion, order) of configs/quickstart.py: 15.8 / 9.8 / 56.9 % trained, 18.8 / 8.1 / 16.4 %
untrained (standard errors 0.9 to 1.5), chance 6.3 / 8.3 / 16.7 %.
Argument: the difficulty, `easy` (as if left out) or `standard`: configs/eval/sprites.py:standard.
"""

import ml_collections

from jepa_jax.config import SourceConfig, defaults, to_config_dict
from jepa_jax.probing.config import EvalConfig, ProbeConfig


def get_config(difficulty: str = "easy") -> ml_collections.ConfigDict:
    config = defaults(EvalConfig)
    config.random_model = "configs/quickstart.py"
    config.train = to_config_dict(SourceConfig(kind="sprites", split="train", clips=2048))
    config.test = to_config_dict(SourceConfig(kind="sprites", split="test", clips=1024))
    config.train.difficulty = config.test.difficulty = difficulty
    # A tiny encoder's channels differ widely in scale; unscaled, the linear probe would not have converged.
    config.probes = to_config_dict({"linear": ProbeConfig(standardise=True)})
    return config
