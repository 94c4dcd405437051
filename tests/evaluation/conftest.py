"""A tiny training run with two checkpoints, and images of two colours that every encoder separates."""

import jax
import numpy as np
import pytest
from PIL import Image

from jepa_jax.checkpoints import manager
from jepa_jax.config import ClipConfig, Config, EncoderConfig, PredictorConfig, SourceConfig
from jepa_jax.evaluation.eval_config import EvalConfig, ProbeConfig
from jepa_jax.run_dir import workdir
from jepa_jax.training.setup import build_setup, init_state

CONFIG = Config(
    seed=5,
    dtype="float32",
    clip=ClipConfig(frames=2, size=16),
    encoder=EncoderConfig(size="16x1x2", patch=4, levels=1),
    predictor=PredictorConfig(size="16x1x2"),
)


@pytest.fixture(scope="session")
def training_run(tmp_path_factory):
    """A workdir with checkpoints of steps 3 and 7; parameters are the initial ones plus step / 100 (EMA: minus)."""
    folder = tmp_path_factory.mktemp("run")
    workdir.open_workdir(folder, CONFIG)
    setup = build_setup(CONFIG)
    first = jax.jit(lambda: init_state(setup, CONFIG.seed))()
    with manager.Checkpointer(folder, keep=5) as checkpointer:
        for number in (3, 7):
            moved = jax.tree.map(lambda x, n=number: x + n / 100, first.params)
            averaged = jax.tree.map(lambda x, n=number: x - n / 100, first.target_params)
            checkpointer.save(number, first.__class__(first.step, moved, averaged, first.opt_state, first.key))
    return folder


@pytest.fixture(scope="session")
def initial_encoder():
    setup = build_setup(CONFIG)
    return jax.jit(lambda: init_state(setup, CONFIG.seed).params["encoder"])()


def paint(folder, colours, count, seed):
    rng = np.random.default_rng(seed)
    for name, colour in colours.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            noise = rng.integers(-20, 20, size=(20, 24, 3))
            Image.fromarray(np.uint8(np.array(colour) + noise)).save(folder / name / f"{i}.png")
    return folder


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """train/{blue,red}/0…9.png and test/{blue,red}/0…5.png."""
    folder = tmp_path_factory.mktemp("pictures")
    colours = {"blue": (40, 40, 200), "red": (200, 40, 40)}
    paint(folder / "train", colours, 10, 0)
    paint(folder / "test", colours, 6, 1)
    return folder


@pytest.fixture(scope="session")
def evaluation(pictures):
    """Linear, attentive and nearest-neighbour probes of the pictures."""
    return EvalConfig(
        train=SourceConfig(kind="images", path=str(pictures / "train")),
        test=SourceConfig(kind="images", path=str(pictures / "test")),
        probes={
            "linear": ProbeConfig(standardise=True, epochs=20, lr=(0.05,)),
            "attentive": ProbeConfig(kind="attentive", tokens="all", heads=2, epochs=20, lr=(0.01,), batch_size=8),
            "knn": ProbeConfig(kind="knn", neighbours=(3,)),
        },
        batch_size=8,
        workers=0,
    )
