"""Linear probes of appearance, motion and order on sprites, beside their controls: a benchmark without a download.

    python -m jepa_jax.evaluate --config configs/eval/sprites.py --checkpoint WORKDIR --out results.json

Argument: `tiny` (8 frames of 64×64), `small` (16 of 112×112) or `full` (16 of 224×224), as in
configs/eval/sprites.py:small; without it, clips of the form the encoder was trained on. Flags
--config.train.difficulty=standard --config.test.difficulty=standard take the set with distractor and nuisances.

Expected score (order, motion, appearance) of configs/quickstart.py: 36.3 / 10.4 / 15.6 % trained, 18.1 / 9.9 / 21.0 %
untrained, chance 16.7 / 8.3 / 6.3 %.
Hardware: two CPU cores. Of `small` clips they encode 5 a second with that model (1,568 tokens a clip; 3,072 clips, four
encodings of each with all controls), of `full` ones fewer: these are for an accelerator.
Source: our own set; its three labels stand for ImageNet-100, Diving-48 and Something-Something V2 of arXiv:2605.17165.
"""

import ml_collections

from jepa_jax.config import SourceConfig, defaults, to_config_dict
from jepa_jax.data import sprites
from jepa_jax.probing.config import EvalConfig, ProbeConfig


def get_config(size: str = "") -> ml_collections.ConfigDict:
    config = defaults(EvalConfig)
    config.random_model = "configs/quickstart.py"
    config.train = to_config_dict(SourceConfig(kind="sprites", split="train", clips=2048))
    config.test = to_config_dict(SourceConfig(kind="sprites", split="test", clips=1024))
    if size:
        if size not in sprites.SIZES:
            raise LookupError(f"configs/eval/sprites.py:{size}: expected one of {', '.join(sprites.SIZES)}.")
        config.frames, config.size = sprites.SIZES[size]
    # A tiny encoder's channels differ widely in scale; unscaled, the linear probe would not have converged.
    config.probes = to_config_dict({"linear": ProbeConfig(standardise=True)})
    config.controls = ("reversed", "shuffled", "one frame", "frame differences", "raw pixels")
    config.representation = True
    return config
