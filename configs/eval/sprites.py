"""Linear probes of appearance, motion and order on sprites, with controls. Needs no download.

    python -m jepa_jax.evaluate --config configs/eval/sprites.py --checkpoint WORKDIR --out results.json

Argument: `tiny` (8 frames of 32×32), `small` (16 of 112×112) or `full` (16 of 224×224), as in
configs/eval/sprites.py:small; default: the clip size of training. The flags --config.train.difficulty=standard
--config.test.difficulty=standard select the set with a distractor and nuisances.

Expected score (motion, order, appearance) of configs/quickstart.py, seed 239: 64.6 / 30.3 / 35.3 % trained,
41.5 / 14.6 / 11.9 % untrained, chance 12.5 / 16.7 / 12.5 %.
Hardware: two CPU cores. They encode 5 `small` clips/s with that model (1,568 tokens per clip; 3,072 clips, each encoded
four times with all controls). `full` clips need an accelerator.
Source: our own set. Its three labels correspond to ImageNet-100, Diving-48 and Something-Something V2 in
arXiv:2605.17165.
"""

import ml_collections

from jepa_jax.config import SourceConfig, defaults
from jepa_jax.data import sprites
from jepa_jax.evaluation.eval_config import EvalConfig, logistic_probe
from jepa_jax.settings import to_config_dict


def get_config(size: str = "") -> ml_collections.ConfigDict:
    config = defaults(EvalConfig)
    config.random_model = "configs/quickstart.py"
    config.train = to_config_dict(SourceConfig(kind="sprites", split="train", clips=2048))
    config.test = to_config_dict(SourceConfig(kind="sprites", split="test", clips=1024))
    if size:
        if size not in sprites.SIZES:
            raise LookupError(f"configs/eval/sprites.py:{size}: expected one of {', '.join(sprites.SIZES)}.")
        config.frames, config.size = sprites.SIZES[size]
    config.probes = to_config_dict({"linear": logistic_probe(folds=3)})
    config.controls = (
        "reversed",
        "shuffled",
        "one frame",
        "frame differences",
        "raw pixels",
        "frame means",
        "difference energy",
    )
    config.velocity = True
    config.representation = True
    return config
