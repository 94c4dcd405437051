"""ImageNet-100: appearance. 100 classes, 126,689 training and 5,000 test images, each used as a still clip.

    python -m jepa_jax.prepare imagenet100 …    (once)
    python -m jepa_jax.evaluate --config configs/eval/imagenet100.py[:PROTOCOL] --checkpoint WORKDIR \
        --out results.json --config.data.root=DATA

PROTOCOL `paper` (the default): arXiv:2605.17165, in float32. A linear probe on the mean of a clip's tokens, 50
epochs of batch 256, AdamW 1e-3.
PROTOCOL `vjepa2`: V-JEPA 2 (arXiv:2506.09985). The probe of four blocks on all tokens, 20 epochs of batch 1,024, 20
settings, one view per image.
Hardware: not yet run. Expected: `paper` 24.86 % for the study's baseline (mixed regime, seed 42). Not yet measured with
this code.
`--config.beside_untrained=True` adds the untrained encoder, `--config.probes.linear.seeds=5` trains more probe seeds.
"""

import ml_collections

from jepa_jax.evaluation import protocols
from jepa_jax.evaluation.eval_config import ProbeConfig
from jepa_jax.settings import to_config_dict


def get_config(protocol: str = "paper") -> ml_collections.ConfigDict:
    config = protocols.prepared("imagenet100", protocol, kind="images")
    if protocol == "vjepa2":
        config.probes = to_config_dict({"four_blocks": protocols.four_blocks(epochs=20, batch_size=1024)})
    else:
        config.probes = to_config_dict({"linear": ProbeConfig(epochs=50, batch_size=256)})
    return config
