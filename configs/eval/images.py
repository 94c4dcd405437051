"""Linear and nearest-neighbour probes on images, each shown as a still clip.

    python -m jepa_jax.evaluate --config configs/eval/images.py --checkpoint WORKDIR --out results.json \
        --config.train.path=TRAIN --config.test.path=TEST

TRAIN and TEST are folders of CLASS/image.jpg. For one folder leave the second out and give --config.holdout=REGEX:
images in whose path it is found are the test set.

Source: the ImageNet-100 protocol of arXiv:2605.17165: tokens averaged, linear probe, 50 epochs, batch 256, AdamW 1e-3.
Hardware: any; two CPU cores encode about 75 clips of 8×112×112 a second with a ViT of width 192. Expected score: not
yet measured on ImageNet-100.
"""

import ml_collections

from jepa_jax.config import SourceConfig, defaults, to_config_dict
from jepa_jax.probing.config import EvalConfig, ProbeConfig


def get_config() -> ml_collections.ConfigDict:
    config = defaults(EvalConfig)
    config.train = to_config_dict(SourceConfig(kind="images"))
    config.test = to_config_dict(SourceConfig(kind="images"))
    config.probes = to_config_dict({"linear": ProbeConfig(epochs=50), "knn": ProbeConfig(kind="knn")})
    return config
