"""Linear, attentive and nearest-neighbour probes on your own videos.

    python -m jepa_jax.evaluate --config configs/eval/folder.py --checkpoint WORKDIR --out results.json \
        --config.train.path=VIDEOS --config.holdout=REGEX

VIDEOS is a folder of CLASS/clip.mp4 (also avi, mkv, webm and others), or a CSV file of `path label` lines. Clips whose
path relative to VIDEOS matches --config.holdout are the test set; all others train the probes. Hold out clips that
belong together, such as all clips of a recording: seq(17|18|19|20). If the test set is a separate folder, omit holdout
and use --config.test.path. --config.groups=REGEX matches the part of the path that all clips of a recording share, such
as seq([0-9]+); the cross-validation that chooses the linear probe's penalty does not split a recording.

The linear probe is logistic regression on the mean token, trained until it converges.
Source: the frozen evaluation of arXiv:2605.17165 (one center view per clip; attentive probe on all tokens).
Hardware: any. Wall time and expected score depend on your videos; not yet measured on public ones.
"""

import ml_collections

from jepa_jax.config import defaults
from jepa_jax.evaluation.eval_config import EvalConfig, ProbeConfig, logistic_probe
from jepa_jax.settings import to_config_dict


def get_config() -> ml_collections.ConfigDict:
    config = defaults(EvalConfig)
    config.random_model = "configs/folder.py"
    config.probes = to_config_dict(
        {
            "linear": logistic_probe(),
            "attentive": ProbeConfig(kind="attentive", tokens="all", batch_size=16),
            "knn": ProbeConfig(kind="knn"),
        }
    )
    return config
