"""A tiny encoder and a training run."""

import jax
import pytest
from tiny_encoder import CLIP, LEVELS, build

from jepa_jax.checkpoints import manager
from jepa_jax.config import Config, PredictorConfig
from jepa_jax.run_dir import workdir
from jepa_jax.training.setup import build_setup, init_state


@pytest.fixture(scope="session")
def encoder():
    return build(LEVELS)


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """A workdir with checkpoints of steps 3 and 7, of bfloat16 computation."""
    folder = tmp_path_factory.mktemp("run")
    config = Config(clip=CLIP, encoder=LEVELS, predictor=PredictorConfig(size="12x1x2"))
    workdir.open_workdir(folder, config)
    setup = build_setup(config)
    first = jax.jit(lambda: init_state(setup, config.seed))()
    with manager.Checkpointer(folder, keep=5) as checkpointer:
        for step in (3, 7):
            moved = jax.tree.map(lambda x, step=step: x + step / 100, first.params)
            averaged = jax.tree.map(lambda x, step=step: x - step / 100, first.target_params)
            checkpointer.save(step, first.__class__(first.step, moved, averaged, first.opt_state, first.key))
    return folder
