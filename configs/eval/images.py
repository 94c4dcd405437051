"""Linear and nearest-neighbour probes on images, each used as a still clip.

    python -m jepa_jax.evaluate --config configs/eval/images.py --checkpoint WORKDIR --out results.json \
        --config.train.path=TRAIN --config.test.path=TEST

TRAIN and TEST are folders of CLASS/image.jpg. With a single folder, omit TEST and use --config.holdout=REGEX: images
whose path matches are the test set.

The linear probe is logistic regression on the mean token, trained until it converges. Its penalty is chosen by
cross-validation, which does not split images with the same match of --config.groups=REGEX in their paths. The linear
probe of arXiv:2605.17165 is in configs/eval/imagenet100.py.
Hardware: any; two CPU cores encode about 75 clips of 8×112×112 a second with a ViT of width 192. Expected score: not
yet measured on ImageNet-100.
"""

import ml_collections

from jepa_jax.config import SourceConfig, defaults
from jepa_jax.evaluation.eval_config import EvalConfig, ProbeConfig, logistic_probe
from jepa_jax.settings import to_config_dict


def get_config() -> ml_collections.ConfigDict:
    config = defaults(EvalConfig)
    config.train = to_config_dict(SourceConfig(kind="images"))
    config.test = to_config_dict(SourceConfig(kind="images"))
    config.probes = to_config_dict({"linear": logistic_probe(), "knn": ProbeConfig(kind="knn")})
    return config
