"""Steps on single frames use the image path, without temporal objectives."""

import functools
import json

import jax
import numpy as np
import pytest
import tiny_run
from PIL import Image

from jepa_jax.config import Config
from jepa_jax.settings import parse
from jepa_jax.training import loop, step
from jepa_jax.training.setup import build_setup, init_state

SETTINGS = tiny_run.SETTINGS | {
    "steps": 8,
    "encoder": {"size": "16x2x1", "patch": 4, "levels": 2},
    "masks": {"future": {"temporal_keep": 0.5, "motion_strength": 2.0}},
    "objectives": {"prediction": {}, "delta": {}, "kinematic": {}},
    "log": {"every": 1, "features_every": 4},
}


@pytest.fixture
def settings(tmp_path):
    for k in range(8):
        path = tmp_path / "pictures" / f"{k}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.random.default_rng(k).integers(0, 256, (20, 24, 3), np.uint8)).save(path)
    sources = {
        "sprites": {"kind": "sprites", "weight": 0.7},
        "pictures": {"kind": "images", "path": str(tmp_path / "pictures"), "weight": 0.3},
    }
    return SETTINGS | {"data": {"sources": sources, "images": "frames", "workers": 0}}


@pytest.mark.slow
def test_all_steps_use_clips_without_a_source_of_images(tmp_path):
    data = SETTINGS["data"] | {"images": "frames"}
    assert loop.train(parse(Config, SETTINGS | {"steps": 2, "data": data}), tmp_path / "run") == loop.Outcome(step=2)
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [("loss" in record, "images/loss" in record) for record in records] == [(True, False)] * 2


@pytest.mark.slow
def test_image_step_trains_only_the_image_path(settings):
    setup = build_setup(parse(Config, settings))
    assert setup.grid == (2, 4, 4)
    assert setup.images.grid == (1, 4, 4)
    state = jax.jit(functools.partial(init_state, setup))(0)
    video = np.random.default_rng(0).integers(0, 256, (8, 4, 16, 16, 3), dtype=np.uint8)
    traced = []

    @jax.jit
    def train(state, batch):
        traced.append(batch["video"].shape)
        return step.train_step(setup, state, batch)

    for frames, trained, untouched in ((4, "", "image_"), (1, "image_", "")):
        after, metrics = train(state, {"video": video[:, :frames]})
        gradient_of = first_moments(after)
        assert gradient_of[f"{trained}patch_embedding"]
        assert not gradient_of[f"{untouched}patch_embedding"]
        if frames == 1:
            for name in ("delta", "kinematic"):
                assert float(metrics[f"loss/{name}"]) == 0
        assert float(metrics["loss/prediction"]) > 0
        assert np.isfinite(float(metrics["loss"]))
    train(state, {"video": video})
    assert traced == [(8, 4, 16, 16, 3), (8, 1, 16, 16, 3)], "each shape must be compiled once"


def first_moments(state):
    """Whether Adam has seen a gradient of each patch embedding of the encoder."""
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(state.opt_state):
        name = jax.tree_util.keystr(path)
        for part in ("image_patch_embedding", "patch_embedding"):
            if f"'{part}'" in name and "kernel" in name:
                found[part] = found.get(part, False) or bool(np.asarray(leaf).any())
    return found


@pytest.mark.slow
def test_run_alternates_and_logs_images_under_separate_names(settings, tmp_path):
    loop.train(parse(Config, settings), tmp_path / "run")
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    of_images = ["images/loss" in record for record in records]
    assert 1 <= sum(of_images) <= 6
    assert [("loss" in record) for record in records] == [not image for image in of_images]
    assert {"data/queue", "data/wait_share", "data/clips_per_second"} <= set(records[-2])
    assert any("data/decode_ms" in record for record in records)
