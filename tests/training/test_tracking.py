"""Pictures in TensorBoard, and Weights & Biases offline."""

import functools
import io
import json
import struct

import jax
import numpy as np
import pytest
import tiny_run
from PIL import Image
from tensorboardX.proto import event_pb2

from jepa_jax.config import Config
from jepa_jax.settings import ConfigError, parse
from jepa_jax.training import loop, step
from jepa_jax.training.metrics import MetricsWriter
from jepa_jax.training.setup import build_setup, init_state
from jepa_jax.training.tracking import step_pictures, wandb_writer


def read_images(folder):
    """Step and pixels of each image in TensorBoard files, by tag."""
    found = {}
    for file in sorted(folder.iterdir()):
        content = file.read_bytes()
        while content:
            (size,) = struct.unpack("<Q", content[:8])
            event = event_pb2.Event.FromString(content[12 : 12 + size])
            content = content[16 + size :]
            for value in event.summary.value:
                if value.HasField("image"):
                    pixels = np.asarray(Image.open(io.BytesIO(value.image.encoded_image_string)))
                    assert pixels.shape == (value.image.height, value.image.width, value.image.colorspace)
                    found.setdefault(value.tag, []).append((event.step, pixels))
    return found


def test_images_are_written_with_their_step(tmp_path):
    writer = MetricsWriter(tmp_path, 0)
    image = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    writer.write_images(7, {"features": image})
    writer.close()
    ((number, pixels),) = read_images(tmp_path / "tensorboard")["features"]
    assert number == 7
    np.testing.assert_array_equal(pixels, image)


@pytest.fixture(scope="module")
def drawn():
    """Setup, a batch, its picture inputs and the masks that the step draws."""
    setup = build_setup(parse(Config, tiny_run.SETTINGS))
    state = jax.jit(functools.partial(init_state, setup))(0)
    batch = {"video": jax.numpy.asarray(np.random.default_rng(0).integers(0, 256, (4, 4, 16, 16, 3), dtype=np.uint8))}
    inputs = step_pictures.read(jax.jit(functools.partial(step_pictures.picture_inputs, setup))(state, batch))
    _, indices, _ = jax.jit(functools.partial(step.prepare, setup))(state, batch)
    return setup, batch, inputs, jax.device_get(indices)


def test_pictures_show_the_clips_and_masks_of_the_step(drawn):
    setup, batch, inputs, indices = drawn
    np.testing.assert_array_equal(inputs["video"], np.asarray(batch["video"])[: step_pictures.CLIPS])
    for name, whole in zip(setup.config.masks, indices, strict=True):
        shown = inputs["indices"][name]
        for part, full in zip(shown, whole, strict=True):
            np.testing.assert_array_equal(part, full[: step_pictures.CLIPS])
    pictures = step_pictures.draw(inputs, 5)
    assert list(pictures) == ["features", "masks"]
    again = step_pictures.draw(inputs, 5)
    for name, picture in pictures.items():
        assert picture.shape[0] > 2 * step_pictures.CLIPS * 96
        np.testing.assert_array_equal(again[name], picture)


@pytest.mark.slow
def test_pictures_do_not_change_training(tmp_path):
    for name, every in (("with", 3), ("without", 0)):
        settings = tiny_run.SETTINGS | {"log": {"every": 1, "pictures_every": every}, "steps": 4}
        loop.train(parse(Config, settings), tmp_path / name)
    losses = [
        [json.loads(line)["loss"] for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("with", "without")
    ]
    assert losses[0] == losses[1]
    images = read_images(tmp_path / "with" / "tensorboard")
    assert {tag: [number for number, _ in found] for tag, found in images.items()} == {
        "features": [1, 4],
        "masks": [1, 4],
    }
    assert not read_images(tmp_path / "without" / "tensorboard")


@pytest.mark.slow
def test_wandb_logs_metrics_settings_and_pictures_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="extra wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    settings = tiny_run.SETTINGS | {"log": {"every": 1, "pictures_every": 3, "wandb": "mine"}, "steps": 2}
    loop.train(parse(Config, settings), tmp_path / "run")
    (record,) = (tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb")
    content = record.read_bytes()
    for text in (b"learning_rate", b"checkpoint", b"mine"):
        assert text in content
    images = sorted((tmp_path / "run" / "wandb").glob("offline-run-*/files/media/images/*.png"))
    assert [image.name.partition("_")[0] for image in images] == ["features", "masks"]
    shown = read_images(tmp_path / "run" / "tensorboard")
    for image, tag in zip(images, ("features", "masks"), strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(image)), shown[tag][0][1])
    loop.train(parse(Config, {**settings, "steps": 2}), tmp_path / "run")  # nothing left to do
    (again,) = {path.name for path in (tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb")}
    assert again == record.name


def test_missing_wandb_says_how_to_install_it(monkeypatch):
    wandb_writer.require_installed("")
    monkeypatch.setattr(wandb_writer.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"config\.log\.wandb is 'mine', which needs the package wandb: pip install"):
        wandb_writer.require_installed("mine")


def test_pictures_every_is_not_negative():
    with pytest.raises(ConfigError, match=r"config\.log: pictures_every is -1; expected at least 0"):
        parse(Config, tiny_run.SETTINGS | {"log": {"pictures_every": -1}})
