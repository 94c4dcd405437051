"""Diving-48 V2: fine motion. 48 classes, 15,027 training and 1,970 test videos.

    python -m jepa_jax.prepare diving48 …    (once)
    python -m jepa_jax.evaluate --config configs/eval/diving48.py[:PROTOCOL] --checkpoint WORKDIR --out results.json \
        --config.data.root=DATA

PROTOCOL `paper` (as if left out): arXiv:2605.17165. The attentive probe on all tokens, 100 epochs of batch 16, AdamW
1e-3.
PROTOCOL `vjepa2`: V-JEPA 2 (arXiv:2506.09985). Its probe of four blocks, 100 epochs of batch 128, 20 settings; four
stretches of every second frame × three crops of a test video. Its clips have 32 frames; here as many as in training.
Hardware: not yet run. Features of all tokens of a ViT-B take 36 GB for training videos (float16).
Expected: `paper` 8.68 % for the study's baseline (mixed regime, seed 42). Not yet measured with this code.
`--config.beside_untrained=True` adds the untrained encoder.
"""

import ml_collections

from jepa_jax.config import ViewsConfig, to_config_dict
from jepa_jax.probing import protocols
from jepa_jax.probing.config import ProbeConfig


def get_config(protocol: str = "paper") -> ml_collections.ConfigDict:
    config = protocols.prepared("diving48", protocol)
    if protocol == "vjepa2":
        config.views = to_config_dict(ViewsConfig(clips=4, crops=3, frame_step=2))
        config.probes = to_config_dict({"four_blocks": protocols.four_blocks(epochs=100, batch_size=128)})
    else:
        config.probes = to_config_dict({"attentive": ProbeConfig(kind="attentive", tokens="all", batch_size=16)})
    return config
