"""Linear and nearest-neighbour probes on UT-Interaction: 120 real clips of two people, 6 classes, in 20 sequences.

    python -m jepa_jax.evaluate --config configs/eval/ut_interaction.py --checkpoint WORKDIR --out results.json \
        --config.train.path=UT

UT is a folder of CLASS/clip.avi with the sequence in the file name, as in hug/set1_seq02_id10.avi. Each of the 20
sequences is held out once, and its six clips are classified by probes trained on the other 19. Thus all 120 clips
are test clips, and training and test clips never share a scene or a recording. The penalty of the linear probe is also
chosen by holding out sequences. The controls `first frame` and `frame differences` measure what appearance or motion
alone achieves. If WORKDIR was trained on these videos, the encoder has seen all clips (without labels); hold out
sequences there too with --config.data.sources.videos.exclude.

Source: UT-Interaction (Ryoo and Aggarwal, ICPR 2010 contest on human interaction), whose protocol leaves out one
sequence at a time.
"""

import ml_collections

from jepa_jax.config import SourceConfig, defaults
from jepa_jax.evaluation.eval_config import EvalConfig, ProbeConfig, logistic_probe
from jepa_jax.settings import to_config_dict


def get_config() -> ml_collections.ConfigDict:
    config = defaults(EvalConfig)
    config.random_model = "configs/folder.py"
    config.train = to_config_dict(SourceConfig(kind="videos"))
    config.fold_by = r"seq(\d+)"
    config.probes = to_config_dict(
        {
            "linear": logistic_probe(),
            "knn": ProbeConfig(kind="knn", neighbours=(5,)),
        }
    )
    config.controls = ("first frame", "frame differences")
    return config
