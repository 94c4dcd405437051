"""Settings shared by the evaluation configs of public datasets: prepared data, and the probes of two protocols.

`paper` is the frozen evaluation of arXiv:2605.17165: one centre view of the whole video, a single setting, the accuracy
after the last epoch, in float32. `vjepa2` is the evaluation of V-JEPA 2 (arXiv:2506.09985): a probe of four blocks on
all tokens, several settings, several segments and crops of each test video. Unlike there, a held-out tenth of the
training videos chooses the setting, never the test set, and probes are trained on one view of each video without
augmentation, since features are computed once.
"""

from typing import Literal

import ml_collections

from jepa_jax.config import SourceConfig, defaults
from jepa_jax.evaluation.eval_config import EvalConfig, ProbeConfig
from jepa_jax.settings import ConfigError, nearest, to_config_dict

PROTOCOLS = ("paper", "vjepa2")


def prepared(name: str, protocol: str, kind: Literal["videos", "images"] = "videos") -> ml_collections.ConfigDict:
    """Returns the evaluation of the dataset in config.data.root/NAME (written by `jepa_jax.prepare`), without probes.

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
    if protocol == "paper":
        config.dtype = "float32"  # for encoders trained in any dtype
    # Encoding takes most of the time; the untrained encoder would double it.
    config.beside_untrained = False
    config.workers = 12
    return config


def four_blocks(
    epochs: int,
    batch_size: int,
    *,
    tokens: str = "all",
    lr: tuple[float, ...] = (5e-3, 3e-3, 1e-3, 3e-4, 1e-4),
    weight_decay: tuple[float, ...] = (0.01, 0.1, 0.4, 0.8),
) -> ProbeConfig:
    """V-JEPA 2's probe with five learning rates × four weight decays. One setting and 8 clips fit on a device."""
    return ProbeConfig(
        kind="attentive_blocks",
        tokens=tokens,
        heads=16,
        blocks=4,
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        weight_decay=weight_decay,
        schedule="cosine",
        seeds=1,  # as in V-JEPA 2
        at_once=1,
        micro_batch=8,
    )
