"""Diving-48 V2: fine motion. 48 classes, 15,027 training and 1,970 test videos.

    python -m jepa_jax.prepare diving48 …    (once)
    python -m jepa_jax.evaluate --config configs/eval/diving48.py[:PROTOCOL] --checkpoint WORKDIR --out results.json \
        --config.data.root=DATA

PROTOCOL `paper` (the default): arXiv:2605.17165. The attentive probe on all tokens, 100 epochs of batch 16, AdamW 1e-3,
in float32.
PROTOCOL `vjepa2`: V-JEPA 2 (arXiv:2506.09985). The probe of four blocks on the tokens of all levels (V-JEPA 2 has
four), 100 epochs of batch 128, 3 settings: weight decay 0.8, learning rates 1e-3, 3e-4 and 1e-4; four segments of every
second frame × three crops per test video. V-JEPA 2 uses clips of 32 frames; here clips have as many frames as in
training.
Hardware: not yet run. The features of all tokens of a ViT-B take 36 GB for the training videos (float16).
Expected: `paper` 8.68 % for the study's baseline (mixed regime, seed 42). Not yet measured with this code.
`--config.beside_untrained=True` adds the untrained encoder.
"""

import ml_collections

from jepa_jax.config import ViewsConfig
from jepa_jax.evaluation import protocols
from jepa_jax.evaluation.eval_config import ProbeConfig
from jepa_jax.settings import to_config_dict


def get_config(protocol: str = "paper") -> ml_collections.ConfigDict:
    config = protocols.prepared("diving48", protocol)
    if protocol == "vjepa2":
        config.views = to_config_dict(ViewsConfig(clips=4, crops=3, frame_step=2))
        config.probes = to_config_dict(
            {
                "four_blocks": protocols.four_blocks(
                    epochs=100,
                    batch_size=128,
                    tokens="all stacked levels",
                    lr=(1e-3, 3e-4, 1e-4),
                    weight_decay=(0.8,),
                )
            }
        )
    else:
        config.probes = to_config_dict({"attentive": ProbeConfig(kind="attentive", tokens="all", batch_size=16)})
    return config
