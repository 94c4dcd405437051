"""Linear, attentive and nearest-neighbour probes on your own videos.

    python -m jepa_jax.evaluate --config configs/eval/folder.py --checkpoint WORKDIR --out results.json \
        --config.train.path=VIDEOS --config.holdout=REGEX

VIDEOS is a folder of CLASS/clip.mp4 (avi, mkv, webm and others too), or a CSV file of `path label` lines. Clips in
whose path below VIDEOS the regular expression is found are the test set, all others train the probes: hold out what
belongs together, such as all clips of one recording: seq(17|18|19|20). Where the two sets lie apart, leave holdout out
and give --config.test.path.

Source: the frozen evaluation of arXiv:2605.17165 (one centre view a clip; attentive probe on all tokens).
Hardware: any. Wall time and expected score: they depend on your videos; not yet measured on public ones.
"""

import ml_collections

from jepa_jax.config import defaults, to_config_dict
from jepa_jax.probing.config import EvalConfig, ProbeConfig


def get_config() -> ml_collections.ConfigDict:
    config = defaults(EvalConfig)
    config.random_model = "configs/folder.py"
    config.probes = to_config_dict(
        {
            "linear": ProbeConfig(kind="linear", standardise=True),
            "attentive": ProbeConfig(kind="attentive", tokens="all", batch_size=16),
            "knn": ProbeConfig(kind="knn"),
        }
    )
    return config
