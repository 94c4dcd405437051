"""Linear probes that end configs/quickstart.py: those of configs/eval/sprites.py that take seconds.

    python -m jepa_jax.evaluate --config configs/eval/quickstart.py --checkpoint WORKDIR --out results.json

The same clips and probes, so the same accuracies. Left out: probes of pixels, which take most of the time; label-free
measures; and probes of halves of the channels.

Hardware: two CPU cores.
"""

import ml_collections

from jepa_jax import config_files


def get_config() -> ml_collections.ConfigDict:
    config = config_files.load_named("eval/sprites")
    config.controls = ("reversed", "shuffled", "one frame", "frame means", "difference energy")
    config.representation = False
    config.picture = True
    return config
