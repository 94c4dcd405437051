"""Linear and nearest-neighbour probes on UT-Interaction: 120 real clips of two people, 6 classes, in 20 sequences.

    python -m jepa_jax.evaluate --config configs/eval/ut_interaction.py --checkpoint WORKDIR --out results.json \
        --config.train.path=UT

UT is a folder of CLASS/clip.avi whose names hold the sequence, as in hug/set1_seq02_id10.avi. Each of the 20 sequences
is held out once and its six clips are told by probes trained on the other 19, so that all 120 clips are test clips:
neither scene nor time of recording is shared. The first frame and the frame differences say how far looks and mere
movement go. Probes come after training, which saw the clips of all sequences if WORKDIR was trained on them (but no
label); --config.data.sources.videos.exclude in training holds sequences out there too.

Source: UT-Interaction (Ryoo and Aggarwal, ICPR 2010 contest on human interaction), whose protocol leaves out one
sequence at a time.
"""

import ml_collections

from jepa_jax.config import SourceConfig, defaults, to_config_dict
from jepa_jax.probing.config import EvalConfig, ProbeConfig


def get_config() -> ml_collections.ConfigDict:
    config = defaults(EvalConfig)
    config.random_model = "configs/folder.py"
    config.train = to_config_dict(SourceConfig(kind="videos"))
    config.fold_by = r"seq(\d+)"
    config.probes = to_config_dict(
        {
            "linear": ProbeConfig(standardise=True),
            "knn": ProbeConfig(kind="knn", neighbours=(5,)),
        }
    )
    config.controls = ("first frame", "frame differences")
    return config
