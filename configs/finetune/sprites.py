"""Fine-tunes an encoder of configs/quickstart.py on labels of sprites. Needs no download.

Source:    our own set; compare with the frozen probes of configs/eval/sprites.py.
Command:   python -m jepa_jax.finetune --config configs/finetune/sprites.py --config.init=RUN --workdir DIR
           RUN is a run of configs/quickstart.py, such as runs/quickstart-baseline-239.
           The label is --config.task=appearance (the default), motion or order.
Hardware:  two CPU cores.
Expected:  docs/finetuning.md.
"""

import ml_collections

from jepa_jax.config import SourceConfig, defaults
from jepa_jax.finetune.finetune_config import FinetuneConfig
from jepa_jax.settings import to_config_dict


def get_config() -> ml_collections.ConfigDict:
    config = defaults(FinetuneConfig)
    config.steps = 320
    config.batch_size = 32
    config.dtype = "float32"
    config.clip.frames, config.clip.size = 8, 32
    config.optim.warmup_steps = 40
    config.task = "appearance"
    config.data.sources.sprites = to_config_dict(SourceConfig(kind="sprites", split="train", clips=2048))
    config.test = to_config_dict(SourceConfig(kind="sprites", split="test", clips=1024))
    config.checkpoint.every = 160
    return config
