import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from jepa_jax import config, data
from jepa_jax.data import sprites, train_batches
from jepa_jax.settings import ConfigError

SourceConfig = config.SourceConfig


def run(sources, *, steps=6, workers=0, batch_size=4, frames=4, size=16, **settings):
    return config.Config(
        steps=steps,
        batch_size=batch_size,
        clip=config.ClipConfig(frames=frames, size=size),
        data=config.DataConfig(sources=sources, workers=workers, **settings),
    )


@pytest.fixture
def mixed(clips, pictures):
    return {
        "clips": SourceConfig(path=str(clips), weight=0.5, frame_step=2),
        "off": SourceConfig(weight=0.0),
        "sprites": SourceConfig(kind="sprites", weight=0.25),
        "pictures": SourceConfig(kind="images", path=str(pictures), weight=0.25),
    }


def read(settings, **arguments):
    batches = data.TrainBatches(settings, **arguments)
    try:
        return [dict(batch) for batch in batches]
    finally:
        batches.close()


def assert_equal(got, wanted):
    assert len(got) == len(wanted)
    for a, b in zip(got, wanted, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])


def test_batches_have_the_keys_shapes_and_dtypes_of_the_step(mixed):
    batches = read(run(mixed, steps=20))
    assert len(batches) == 20
    for batch in batches:
        assert batch.keys() == {"video", "source", "item"}
        assert batch["video"].shape == (4, 4, 16, 16, 3)
        assert batch["video"].dtype == np.uint8
        assert batch["source"].dtype == batch["item"].dtype == np.int32
        # Every row is filled: grey levels of clips start at 8, and sprites have a background.
        assert (batch["video"].reshape(4, -1).max(axis=1) > 4).all()
    drawn = np.concatenate([batch["source"] for batch in batches])
    assert set(drawn.tolist()) == {0, 2, 3}


def test_images_are_repeated_and_videos_change_over_time(clips, pictures):
    still = read(run({"p": SourceConfig(kind="images", path=str(pictures))}, steps=2))
    moving = read(run({"a": SourceConfig(path=str(clips / "a"), frame_step=3)}, steps=2))
    for batch in still:
        assert (batch["video"] == batch["video"][:, :1]).all()
    for batch in moving:
        levels = batch["video"].astype(float).mean(axis=(2, 3, 4))
        np.testing.assert_allclose(np.diff(levels, axis=1), 24, atol=3)  # three frames, 8 levels per frame


def test_target_fps_sets_the_stride(clips):
    source = SourceConfig(path=str(clips / "a"), target_fps=6)  # 25 fps: every 4th frame
    (batch,) = read(run({"a": source}, steps=1))
    np.testing.assert_allclose(np.diff(batch["video"].astype(float).mean(axis=(2, 3, 4)), axis=1), 32, atol=3)


def test_linspace_windows_are_used_if_configured(clips, numbers):
    source = SourceConfig(path=str(clips / "a"), frame_step=4, window="linspace")  # 24 frames; the window spans 16
    for batch in read(run({"a": source}, steps=3)):
        for video_FxYxXxC in batch["video"]:
            frames = np.array(numbers(video_FxYxXxC))
            assert (frames - frames[0]).tolist() == [0, 5, 10, 15]


def test_batches_do_not_depend_on_start_step_or_rows(mixed):
    settings = run(mixed)
    whole = read(settings)
    assert_equal(read(settings, start_step=4), whole[4:])
    rows = [3, 0]
    part = [{key: value[rows] for key, value in batch.items()} for batch in whole]
    assert_equal(read(settings, rows=rows), part)
    assert read(settings, start_step=6) == []
    with pytest.raises(ValueError, match=r"rows is \[\]; expected at least one row"):
        read(settings, rows=[])


def test_batches_do_not_depend_on_worker_count(mixed, clips, tmp_path):
    shutil.copytree(clips, tmp_path / "clips")
    (tmp_path / "clips" / "a" / "1.mp4").write_bytes(b"nonsense")
    mixed["clips"] = SourceConfig(path=str(tmp_path / "clips"), weight=0.5)
    wanted, files = None, []
    for workers, start in ((0, 0), (1, 0), (2, 3)):
        settings = run(mixed, steps=12, workers=workers, max_skip_fraction=0.2)
        file = tmp_path / f"{workers}.jsonl"
        ledger = data.new_ledger(settings.data, data.open_sources(settings.data), file)
        got = read(settings, start_step=start, ledger=ledger)
        wanted = wanted or got
        assert_equal(got, wanted[start:])
        files.append(file.read_text())
    assert files[0] == files[1] == files[2]
    line = json.loads(files[0])
    assert (line["source"], line["item"]) == ("clips", 1)
    assert line["path"].endswith("/a/1.mp4")
    assert "Invalid data" in line["reason"]


def test_replacement_of_a_skipped_item_is_reported(clips, tmp_path):
    shutil.copytree(clips, tmp_path / "clips")
    (tmp_path / "clips" / "a" / "1.mp4").write_bytes(b"")
    settings = run({"a": SourceConfig(path=str(tmp_path / "clips" / "a"))}, steps=5, max_skip_fraction=0.2)
    items = np.concatenate([batch["item"] for batch in read(settings)])  # four epochs of five items
    assert np.bincount(items, minlength=5).tolist() == [4, 0, 8, 4, 4]


def test_too_many_undecodable_files_raise(clips, tmp_path):
    shutil.copytree(clips, tmp_path / "clips")
    for k in range(2):
        (tmp_path / "clips" / "a" / f"{k}.mp4").write_bytes(b"")
    settings = run({"mine": SourceConfig(path=str(tmp_path / "clips"))}, steps=4)
    with pytest.raises(data.TooManySkippedError, match=r"(?s)'mine': . of 8 items .* \S+/a/\d.mp4: the file is empty"):
        read(settings)


def test_sprites_are_rendered_in_the_main_process(mixed):
    settings = run(mixed)
    spec = sprites.SpriteSpec(4, 16, "easy")
    rows = 0
    for batch in read(settings):
        mine = batch["source"] == 2
        expected = np.asarray(sprites.render(spec, settings.seed, "train", batch["item"])[0])
        np.testing.assert_array_equal(batch["video"][mine], expected[mine])
        rows += mine.sum()
    assert rows > 2


def test_sprites_alone_are_rendered_in_the_step(clips):
    only = {"s": SourceConfig(kind="sprites", clips=10)}
    batches = read(run(only, steps=5))
    assert [batch.keys() for batch in batches] == [{"source", "item", "seed"}] * 5
    items = np.concatenate([batch["item"] for batch in batches])
    assert np.bincount(items).tolist() == [2] * 10
    assert "video" in read(run(only, steps=1, render_in_step=False))[0]
    assert not train_batches.renders_in_step(config.DataConfig(sources=only | {"v": SourceConfig(path=str(clips))}))


def test_invalid_sources_raise_before_the_first_batch(tmp_path):
    with pytest.raises(ConfigError, match="no videos in"):
        data.TrainBatches(run({"mine": SourceConfig(path=str(tmp_path))}))


def test_reading_files_does_not_initialise_jax_devices(clips):
    """Workers run this code and must not allocate accelerator memory."""
    script = f"""
from absl import flags
flags.FLAGS.mark_as_parsed()
from jepa_jax import config, data
sources = {{"a": config.SourceConfig(path={str(clips)!r})}}
settings = config.Config(steps=1, batch_size=2, clip=config.ClipConfig(frames=2, size=16),
                         data=config.DataConfig(sources=sources, workers=0))
next(data.TrainBatches(settings))
from jax._src import xla_bridge
assert not xla_bridge.backends_are_initialized()
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
