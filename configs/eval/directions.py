"""The direction in which a disc moves, of eight: the study's evaluation on synthetic motion. Needs no download.

    python -m jepa_jax.evaluate --config configs/eval/directions.py[:VARIANT] --checkpoint WORKDIR --out results.json

VARIANT `paper` (the default): 160 training and 40 test clips, as published. One test clip is 2.5 points.
VARIANT `large`: 2,000 training and 2,000 test clips.
VARIANT `wrapped`: as `large`, on a torus, where the position of the disc does not give its direction away.

All have the settings of the public code of arXiv:2605.17165 (commit 3588723): the first 8 frames at 160×160, the
attentive probe on all tokens, 100 epochs of batch 32, AdamW 3e-4, weight decay 0.01, in float32. Clips are not encoded
as H.264 (docs/directions.md). Controls: the untrained encoder; 16×16 pixels of the first frame; one frame at a random
time, repeated.

Expected: an untrained ViT of width 128 and depth 4 scores 64.2, 93.0 and 99.6 %; compare with the untrained row only.
The study published 27.5 % (baseline), 67.5 % and 72.5 % (untrained encoders) for `paper`. Chance is 12.5 %.
Hardware: two CPU cores for small encoders (docs/directions.md); an accelerator for a ViT-B on the larger sets.
"""

import ml_collections

from jepa_jax.config import SourceConfig, defaults
from jepa_jax.evaluation.eval_config import EvalConfig, ProbeConfig
from jepa_jax.settings import ConfigError, nearest, to_config_dict

VARIANTS = {  # kind of source, training clips, test clips
    "paper": ("directions", 160, 40),
    "large": ("directions", 2000, 2000),
    "wrapped": ("directions_wrapped", 2000, 2000),
}


def get_config(variant: str = "paper") -> ml_collections.ConfigDict:
    if variant not in VARIANTS:
        raise ConfigError(f"{variant!r} is not a variant of the evaluation.{nearest(variant, VARIANTS)}")
    kind, train, test = VARIANTS[variant]
    config = defaults(EvalConfig)
    config.random_model = "configs/directions.py"
    config.train = to_config_dict(SourceConfig(kind=kind, split="train", clips=train))
    config.test = to_config_dict(SourceConfig(kind=kind, split="test", clips=test))
    config.frames, config.size, config.dtype = 8, 160, "float32"
    config.probes = to_config_dict(
        {"attentive": ProbeConfig(kind="attentive", tokens="all", batch_size=32, lr=(3e-4,))}
    )
    config.controls = ("first frame", "one frame")
    return config
