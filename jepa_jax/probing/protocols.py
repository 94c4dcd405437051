"""What the evaluation configs of public data sets have in common: prepared data, and the probes of two protocols.

`paper` is the frozen evaluation of arXiv:2605.17165: one centre view of the whole video, one setting, the accuracy
after the last epoch. `vjepa2` is that of V-JEPA 2 (arXiv:2506.09985): a probe of four blocks on all tokens, twenty
settings, several stretches and crops of a test video. Here a setting is chosen by a held-out tenth of the training
videos, never by the test set; and probes are trained on one view a video without augmentation, as features are computed
once.
"""

from typing import Literal

import ml_collections

from jepa_jax.config import ConfigError, SourceConfig, defaults, nearest, to_config_dict
from jepa_jax.probing.config import EvalConfig, ProbeConfig

PROTOCOLS = ("paper", "vjepa2")


def prepared(name: str, protocol: str, kind: Literal["videos", "images"] = "videos") -> ml_collections.ConfigDict:
    """An evaluation of the data set that `python -m jepa_jax.prepare` wrote to config.data.root/NAME; no probes yet.

    Raises:
        ConfigError: no such protocol.
    """
    if protocol not in PROTOCOLS:
        raise ConfigError(f"{protocol!r} is not a protocol.{nearest(protocol, PROTOCOLS)}")
    config = defaults(EvalConfig)
    config.data.root = root = ml_collections.FieldReference("data")
    for split in ("train", "test"):
        config[split] = to_config_dict(SourceConfig(kind=kind, split=split))
        config[split].path = root + f"/{name}"
    # Encoding the clips takes most of the time, and the untrained encoder as much again.
    config.beside_untrained = False
    config.workers = 12
    return config


def four_blocks(epochs: int, batch_size: int) -> ProbeConfig:
    """V-JEPA 2's probe, five learning rates × four weight decays; one of them and 8 clips at once fit a device."""
    return ProbeConfig(
        kind="attentive_blocks",
        tokens="all",
        heads=16,
        blocks=4,
        epochs=epochs,
        batch_size=batch_size,
        lr=(5e-3, 3e-3, 1e-3, 3e-4, 1e-4),
        weight_decay=(0.01, 0.1, 0.4, 0.8),
        schedule="cosine",
        at_once=1,
        micro_batch=8,
    )
