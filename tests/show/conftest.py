"""A tiny training run with a checkpoint of its initial parameters, and a folder of two videos."""

import jax
import numpy as np
import pytest

from jepa_jax.checkpoints import manager
from jepa_jax.config import ClipConfig, Config, DataConfig, EncoderConfig, PredictorConfig, SourceConfig
from jepa_jax.masks.block import BlockMask
from jepa_jax.run_dir import workdir
from jepa_jax.show.request import Request
from jepa_jax.training.setup import build_setup, init_state

CONFIG = Config(
    seed=5,
    steps=4,
    batch_size=2,
    dtype="float32",
    clip=ClipConfig(frames=4, size=16),
    encoder=EncoderConfig(size="16x2x2", patch=8, levels=2),
    predictor=PredictorConfig(size="16x1x2"),
    masks={"short": BlockMask(blocks=1, spatial_scale=0.3)},
    data=DataConfig(sources={"sprites": SourceConfig(kind="sprites", clips=10)}, workers=0),
)


@pytest.fixture(scope="session")
def training_run(tmp_path_factory):
    """A workdir with a checkpoint of step 4."""
    folder = tmp_path_factory.mktemp("run")
    workdir.open_workdir(folder, CONFIG)
    state = jax.jit(lambda: init_state(build_setup(CONFIG), CONFIG.seed))()
    with manager.Checkpointer(folder, keep=1) as checkpointer:
        checkpointer.save(4, state)
    return folder


@pytest.fixture(scope="session")
def videos(tmp_path_factory, write_video):
    """walk/a.mp4, walk/b.mp4 and run/c.mp4, with frames of different greys and a bright square."""

    def picture(number):
        image = np.full((48, 64, 3), 8 * number + 8, np.uint8)
        image[8:24, 8 + number : 24 + number] = 250
        return image

    folder = tmp_path_factory.mktemp("videos")
    for name in ("walk/a.mp4", "walk/b.mp4", "run/c.mp4"):
        write_video(folder / name, frames=8, picture=picture)
    return folder


@pytest.fixture
def request_of(training_run, tmp_path):
    """request_of(**settings): a request with the run's checkpoint and `tmp_path/out`."""

    def make(**settings):
        return Request(**{"out": tmp_path / "out", "checkpoint": str(training_run), **settings})

    return make
