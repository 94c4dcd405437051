"""UCF-101, split 1: human actions. 101 classes, 9,537 training and 3,783 test videos.

    python -m jepa_jax.prepare ucf101 …    (once)
    python -m jepa_jax.evaluate --config configs/eval/ucf101.py[:PROTOCOL] --checkpoint WORKDIR --out results.json \
        --config.data.root=DATA

PROTOCOL `paper` (as if left out): the result files of arXiv:2605.17165 have UCF-101, the paper does not say how; here
as its Something-Something V2: a video's tokens averaged, the attentive probe, 100 epochs of batch 16, AdamW 1e-3.
PROTOCOL `vjepa2`: V-JEPA 2 (arXiv:2506.09985), with its settings for Kinetics-400: the probe of four blocks on all
tokens, 20 epochs of batch 256, 20 settings; eight stretches of every fourth frame × three crops of a test video.
Hardware: not yet run. Expected: `paper` 23.79 % for the study's baseline (ucf101 regime). Not yet measured with this
code. `--config.train.fold=2 --config.test.fold=2` takes split 2.
`--config.beside_untrained=True` adds the untrained encoder.
"""

import ml_collections

from jepa_jax.config import ViewsConfig, to_config_dict
from jepa_jax.probing import protocols
from jepa_jax.probing.config import ProbeConfig


def get_config(protocol: str = "paper") -> ml_collections.ConfigDict:
    config = protocols.prepared("ucf101", protocol)
    if protocol == "vjepa2":
        config.views = to_config_dict(ViewsConfig(clips=8, crops=3, frame_step=4))
        config.probes = to_config_dict({"four_blocks": protocols.four_blocks(epochs=20, batch_size=256)})
    else:
        config.probes = to_config_dict({"attentive": ProbeConfig(kind="attentive", tokens="mean", batch_size=16)})
    return config
