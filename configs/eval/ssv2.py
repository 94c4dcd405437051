"""Something-Something V2: actions with objects. 174 classes, 168,913 training and 24,777 test videos.

    python -m jepa_jax.prepare something_something_v2 …    (once)
    python -m jepa_jax.evaluate --config configs/eval/ssv2.py[:PROTOCOL] --checkpoint WORKDIR --out results.json \
        --config.data.root=DATA

PROTOCOL `paper` (the default): arXiv:2605.17165, in float32. The attentive probe on the mean of a video's tokens, 100
epochs of batch 16, AdamW 1e-3.
PROTOCOL `vjepa2`: V-JEPA 2 (arXiv:2506.09985). The probe of four blocks on all tokens, 20 epochs of batch 256, 20
settings; two segments of every fourth frame × three crops per test video. The features of all tokens of a ViT-B take
407 GB per view; if they do not fit on the disk, clips are encoded again in each epoch.
Hardware: not yet run. Expected: `paper` 8.39 % for the study's baseline (mixed regime, seed 42). Not yet measured with
this code.
`--config.beside_untrained=True` adds the untrained encoder.
"""

import ml_collections

from jepa_jax.config import ViewsConfig
from jepa_jax.evaluation import protocols
from jepa_jax.evaluation.eval_config import ProbeConfig
from jepa_jax.settings import to_config_dict


def get_config(protocol: str = "paper") -> ml_collections.ConfigDict:
    config = protocols.prepared("something_something_v2", protocol)
    if protocol == "vjepa2":
        config.views = to_config_dict(ViewsConfig(clips=2, crops=3, frame_step=4))
        config.probes = to_config_dict({"four_blocks": protocols.four_blocks(epochs=20, batch_size=256)})
    else:
        config.probes = to_config_dict({"attentive": ProbeConfig(kind="attentive", tokens="mean", batch_size=16)})
    return config
