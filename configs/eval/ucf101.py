"""UCF-101, split 1: human actions. 101 classes, 9,537 training and 3,783 test videos.

    python -m jepa_jax.prepare ucf101 …    (once)
    python -m jepa_jax.evaluate --config configs/eval/ucf101.py[:PROTOCOL] --checkpoint WORKDIR --out results.json \
        --config.data.root=DATA

PROTOCOL `paper` (the default): the public code of arXiv:2605.17165 (commit 3588723) for UCF-101. The attentive probe on
all tokens, 100 epochs of batch 16, AdamW 3e-4, in float32.
PROTOCOL `vjepa2`: V-JEPA 2 (arXiv:2506.09985), with its settings for Kinetics-400. The probe of four blocks on all
tokens, 20 epochs of batch 256, 20 settings; eight segments of every fourth frame × three crops per test video.
Hardware: not yet run. Expected: `paper` 23.79 % for the study's baseline (ucf101 regime). Not yet measured with this
code. `--config.train.fold=2 --config.test.fold=2` selects split 2.
`--config.beside_untrained=True` adds the untrained encoder.
"""

import ml_collections

from jepa_jax.config import ViewsConfig
from jepa_jax.evaluation import protocols
from jepa_jax.evaluation.eval_config import ProbeConfig
from jepa_jax.settings import to_config_dict


def get_config(protocol: str = "paper") -> ml_collections.ConfigDict:
    config = protocols.prepared("ucf101", protocol)
    if protocol == "vjepa2":
        config.views = to_config_dict(ViewsConfig(clips=8, crops=3, frame_step=4))
        config.probes = to_config_dict({"four_blocks": protocols.four_blocks(epochs=20, batch_size=256)})
    else:
        config.probes = to_config_dict(
            {"attentive": ProbeConfig(kind="attentive", tokens="all", batch_size=16, lr=(3e-4,))}
        )
    return config
