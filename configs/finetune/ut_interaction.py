"""Fine-tunes an encoder on UT-Interaction: 120 real clips of two people, 6 classes, in 20 sequences.

Source:    UT-Interaction (Ryoo and Aggarwal, ICPR 2010 contest on human interaction).
Command:   python -m jepa_jax.finetune --config configs/finetune/ut_interaction.py --config.init=WEIGHTS \
               --config.data.path=UT --workdir DIR
           UT is a folder of CLASS/clip.avi with the sequence in the file name, as in hug/set1_seq02_id10.avi.
           The frozen probe of the same clips, for --compare:
           python -m jepa_jax.evaluate --config configs/eval/ut_interaction.py --checkpoint WEIGHTS \
               --config.train.path=UT --config.fold_by= --config.holdout="seq(02|04|06|08|10|12|14|16|18|20)_" \
               --config.groups="seq([0-9]+)" --out frozen.json
Data:      the ten odd sequences, 60 clips, train the classifier, and the ten even ones test it. A clip has 8 frames, 12
           apart in training and spread over the whole video in the test; most have 80 to 150 frames.
Hardware:  two CPU cores.
Expected:  docs/finetuning.md.
"""

import ml_collections

from jepa_jax.config import SourceConfig, defaults
from jepa_jax.finetune.finetune_config import FinetuneConfig
from jepa_jax.settings import to_config_dict


def get_config() -> ml_collections.ConfigDict:
    config = defaults(FinetuneConfig)
    config.steps = 200
    config.batch_size = 16
    config.dtype = "float32"
    config.clip.frames, config.clip.size = 8, 112
    config.optim.warmup_steps = 20
    config.holdout = "seq(02|04|06|08|10|12|14|16|18|20)_"
    config.data.path = path = ml_collections.FieldReference("")
    config.data.sources.videos = to_config_dict(SourceConfig(kind="videos", frame_step=12))
    config.data.sources.videos.path = path
    config.checkpoint.every = 100
    return config
