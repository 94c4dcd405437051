import os
import runpy
import shutil

import numpy as np
import pytest

from jepa_jax import config, data
from jepa_jax.data import sprites
from jepa_jax.data.workers import pool as workers
from jepa_jax.data.workers import shared_buffers
from jepa_jax.settings import ConfigError

SourceConfig = config.SourceConfig
CLIP = config.ClipConfig(frames=4, size=16)


def opened(clip=CLIP, **settings):
    arguments = {
        key: settings.pop(key) for key in ("classes", "max_skip_fraction", "seed", "keep_bytes") if key in settings
    }
    return data.EvaluationSet(SourceConfig(**settings), clip=clip, **arguments)


def read(evaluation_set, batch_size=3, workers=0):
    return list(evaluation_set.batches(batch_size, workers))


def valid(batches, key):
    return np.concatenate([batch[key][batch["valid"]] for batch in batches])


def test_videos_are_in_order_labelled_and_padded(clips):
    evaluation = opened(path=str(clips))
    batches = read(evaluation)
    assert evaluation.classes == {"class": ("a", "b")}
    assert evaluation.size == 8
    assert [batch["valid"].tolist() for batch in batches] == [[True] * 3, [True] * 3, [True, True, False]]
    for batch in batches:
        assert batch["video"].shape == (3, 4, 16, 16, 3)
        assert batch["video"].dtype == np.float32
        assert batch["item"].dtype == batch["labels"]["class"].dtype == np.int32
    np.testing.assert_array_equal(batches[2]["video"][2], batches[2]["video"][1])
    assert valid(batches, "item").tolist() == list(range(8))
    assert np.concatenate([batch["labels"]["class"] for batch in batches])[:8].tolist() == [0] * 5 + [1] * 3
    # Frames 0, 7, 15 and 23 of 24 grey frames; frames 0 to 3 of the video with four.
    levels = valid(batches, "video").mean(axis=(2, 3, 4))
    np.testing.assert_allclose(levels[0], [8, 64, 128, 192], atol=2)
    np.testing.assert_allclose(levels[7], [8, 16, 24, 32], atol=2)


def test_images_are_repeated_to_clips(pictures):
    batches = read(opened(kind="images", path=str(pictures)), batch_size=6)
    video = batches[0]["video"]
    assert video.shape == (6, 4, 16, 16, 3)
    assert video.dtype == np.uint8
    assert video[:, :, 0, 0, 0].tolist() == [[level] * 4 for level in (8, 24, 40, 16, 32, 48)]


class ReservationError(Exception):
    pass


@pytest.fixture
def reserved(monkeypatch):
    """reserved(iterator) returns the (workers, bytes per batch) that the first batch requests."""

    def ask(dataset, count, batch_bytes):
        raise ReservationError(count, batch_bytes)

    def read_first(batches):
        monkeypatch.setattr(workers, "BatchPrefetcher", ask)
        with pytest.raises(ReservationError) as caught:
            next(batches)
        return caught.value.args

    return read_first


def test_reserved_shared_memory_matches_what_workers_send(clips, pictures, reserved):
    """In configs/eval/imagenet100.py, twelve workers send one uint8 frame per image: 0.3 GiB instead of 17."""
    settings = runpy.run_path("configs/eval/imagenet100.py")["get_config"]()
    clip = config.ClipConfig(frames=16, size=224)
    images = opened(clip, kind="images", path=str(pictures))
    count, batch_bytes = reserved(images.batches(32, settings.workers))
    assert (count, batch_bytes) == (12, 32 * 224 * 224 * 3)
    assert 12 * 5 * batch_bytes < 0.3 * 2**30
    videos = opened(clip, path=str(clips))
    assert reserved(videos.batches(8, 2)) == (2, 8 * 16 * 224 * 224 * 3 * 4)


@pytest.mark.parametrize("kind", ["videos", "images"])
def test_reserved_bytes_equal_the_size_of_a_batch(kind, clips, pictures, monkeypatch):
    evaluation = opened(kind=kind, path=str(clips if kind == "videos" else pictures))
    reserved, batches, prefetcher, copy_out = [], [], workers.BatchPrefetcher, shared_buffers.copy_out
    monkeypatch.setattr(workers, "BatchPrefetcher", lambda *args: reserved.append(args[2]) or prefetcher(*args))
    monkeypatch.setattr(shared_buffers, "copy_out", lambda *args: batches.append(copy_out(*args)) or batches[-1])
    read(evaluation)
    assert {batch["video"].nbytes for batch in batches} == set(reserved)


@pytest.mark.slow
def test_batches_do_not_depend_on_workers(clips):
    wanted, got = read(opened(path=str(clips))), read(opened(path=str(clips)), workers=1)
    for a, b in zip(wanted, got, strict=True):
        for key in ("video", "item", "valid"):
            np.testing.assert_array_equal(a[key], b[key])


@pytest.mark.parametrize("kind", ["videos", "images", "sprites"])
def test_clips_that_are_kept_in_memory_are_read_once(kind, clips, pictures, monkeypatch):
    options = {"kind": kind, "path": {"videos": str(clips), "images": str(pictures)}.get(kind, ""), "clips": 5}
    kept, read_each_time = opened(keep_bytes=2**20, **options), opened(keep_bytes=1, **options)
    wanted = read(read_each_time)
    first = read(kept)
    part = next(kept.batches(4, rows=[1, 2]))
    np.testing.assert_array_equal(part["row"][:2], [1, 2])

    def fail(*_):
        raise AssertionError("read again")

    monkeypatch.setattr(type(kept), "_decoded", fail)
    monkeypatch.setattr(type(kept), "_rendered", fail)
    for batches in (first, read(kept)):
        for batch, expected in zip(batches, wanted, strict=True):
            for name in ("video", "row", "valid"):
                np.testing.assert_array_equal(batch[name], expected[name])
    with pytest.raises(AssertionError, match="read again"):
        read(read_each_time)


def test_undecodable_clips_are_skipped_and_counted(clips, tmp_path):
    shutil.copytree(clips, tmp_path / "clips")
    (tmp_path / "clips" / "a" / "4.mp4").write_bytes(b"nonsense")
    evaluation = opened(path=str(tmp_path / "clips"), max_skip_fraction=0.2)
    for _ in range(2):
        batches = read(evaluation)
        assert valid(batches, "item").tolist() == [0, 1, 2, 3, 5, 6, 7]
        (skip,) = evaluation.skipped
        assert (skip.item, skip.path) == (4, f"{tmp_path}/clips/a/4.mp4")
        assert "Invalid data" in skip.reason
    with pytest.raises(data.TooManySkippedError, match=r"1 of 8 items"):
        read(opened(path=str(tmp_path / "clips")))


def test_labels_use_the_classes_of_the_training_set(clips):
    test_set = opened(path=str(clips), include="^b/", classes={"class": ("a", "b", "c")})
    assert test_set.classes == {"class": ("a", "b", "c")}
    assert set(valid(read(test_set), "item").tolist()) == {0, 1, 2}
    assert set(read(test_set)[0]["labels"]["class"].tolist()) == {1}
    with pytest.raises(ConfigError, match=r"a/0.mp4 has class 'a'.*Its classes: b"):
        opened(path=str(clips), classes={"class": ("b",)})


def test_clips_without_a_class_raise(clips):
    with pytest.raises(ConfigError, match=r"config.test.path: .*/0.mp4 has no class"):
        opened(path=str(clips / "a"))


def test_sprites_have_three_labels():
    evaluation = opened(kind="sprites", split="test", clips=5, seed=3)
    assert evaluation.classes == sprites.CLASSES
    batches = read(evaluation)
    assert valid(batches, "item").tolist() == list(range(5))
    video, labels = sprites.render(sprites.SpriteSpec(4, 16, "easy"), 3, "test", np.arange(5, dtype=np.int32))
    np.testing.assert_array_equal(valid(batches, "video"), video)
    for task, wanted in labels.items():
        got = np.concatenate([batch["labels"][task][batch["valid"]] for batch in batches])
        np.testing.assert_array_equal(got, wanted)


def test_views_of_a_video_are_consecutive_rows(clips):
    """Three windows of four frames at frame step 2, and two crops, which are equal for grey frames."""
    views = config.ViewsConfig(clips=3, crops=2, frame_step=2)
    evaluation = data.EvaluationSet(SourceConfig(path=str(clips)), clip=CLIP, views=views)
    assert (evaluation.size, evaluation.views, evaluation.rows) == (8, 6, 48)
    batches = read(evaluation, 12)
    assert valid(batches, "row").tolist() == list(range(48))
    assert valid(batches, "item").tolist() == [item for item in range(8) for _ in range(6)]
    assert np.concatenate([batch["labels"]["class"] for batch in batches]).tolist() == [0] * 30 + [1] * 18
    # 24 grey frames: windows start at 0, 8 (the middle of 0 to 17) and 17.
    frames = np.rint(valid(batches, "video").mean(axis=(2, 3, 4)) / 8 - 1)
    starts = [0, 0, 8, 8, 17, 17]
    np.testing.assert_allclose(frames[:6], [[start + 2 * k for k in range(4)] for start in starts], atol=1)
    assert frames[-1].tolist() == frames[-6].tolist(), "a video of four frames has only one window"
    assert evaluation.identity != opened(path=str(clips)).identity


def test_multiple_views_of_images_or_sprites_raise(pictures):
    for settings in (SourceConfig(kind="images", path=str(pictures)), SourceConfig(kind="sprites")):
        with pytest.raises(ConfigError, match=r"config\.views: .* have one view only"):
            data.EvaluationSet(settings, clip=CLIP, views=config.ViewsConfig(crops=3))


def test_names_do_not_depend_on_the_location_of_the_clips(clips, tmp_path):
    shutil.copytree(clips, tmp_path / "moved")
    names = opened(path=str(clips)).names
    assert names == opened(path=str(tmp_path / "moved")).names
    assert names[0] == "a/0.mp4"
    sprites_of = [
        opened(kind="sprites", split=split, clips=2, seed=seed).names
        for split, seed in (("train", 0), ("test", 0), ("test", 1))
    ]
    assert len({name for names in sprites_of for name in names}) == 6


def test_broken_link_is_skipped_as_one_clip(clips, tmp_path):
    folder = shutil.copytree(clips, tmp_path / "clips")
    (folder / "a" / "gone.mp4").symlink_to("nowhere")
    (folder / "b" / "self").symlink_to(".")
    evaluation = opened(path=str(folder), max_skip_fraction=0.5)
    assert valid(read(evaluation), "item").tolist() == [0, 1, 2, 3, 4, 6, 7, 8]
    (skip,) = evaluation.skipped
    assert skip.path == f"{folder}/a/gone.mp4"
    assert "leads nowhere" in skip.reason
    broken = evaluation.identity
    (folder / "a" / "gone.mp4").unlink()
    shutil.copy(folder / "a" / "0.mp4", folder / "a" / "gone.mp4")
    assert opened(path=str(folder)).identity != broken


def test_pipe_is_skipped_as_one_clip(clips, tmp_path):
    folder = shutil.copytree(clips, tmp_path / "clips")
    os.mkfifo(folder / "a" / "pipe.mp4")
    evaluation = opened(path=str(folder), max_skip_fraction=0.5)
    assert len(valid(read(evaluation), "item")) == 8  # opening the pipe would block forever
    assert [skip.path for skip in evaluation.skipped] == [f"{folder}/a/pipe.mp4"]


def lists(folder, clips, **labels):
    """Writes one CSV file per name, with one clip per label, and returns their settings by name."""
    for name, values in labels.items():
        (folder / f"{name}.csv").write_text("".join(f"{clips}/a/{k}.mp4 {label}\n" for k, label in enumerate(values)))
    return {name: SourceConfig(path=str(folder / f"{name}.csv")) for name in labels}


def test_classes_of_lists_are_matched_by_name(clips, tmp_path):
    """Class ids differ between lists, because each list has its own classes."""
    settings = lists(tmp_path, clips, train=[20240131, 4294967296, 3, "walk"], test=[4294967296, "walk", "0003"])
    train = data.EvaluationSet(settings["train"], clip=CLIP)
    assert train.classes == {"class": ("20240131", "3", "4294967296", "walk")}
    test = data.EvaluationSet(settings["test"], clip=CLIP, classes=train.classes)
    assert test.classes == train.classes
    assert read(test)[0]["labels"]["class"].tolist() == [2, 3, 1]
    strange = lists(tmp_path, clips, strange=[20240131, 5])["strange"]
    with pytest.raises(ConfigError, match=r"a/1.mp4 has class '5', which .* Its classes: 20240131, 3"):
        data.EvaluationSet(strange, clip=CLIP, classes=train.classes)


def test_class_error_does_not_list_thousands_of_classes(clips):
    names = tuple(f"class {k}" for k in range(5000))
    with pytest.raises(ConfigError, match=r"class 9 and 4,990 more\.$"):
        opened(path=str(clips), classes={"class": names})


def test_list_without_labels_raises(clips, tmp_path):
    (tmp_path / "list.csv").write_text(f"{clips}/a/0.mp4 1\n{clips}/a/1.mp4\n")
    with pytest.raises(ConfigError, match=r"a/1.mp4 has no class, which evaluation needs; .* label on each line"):
        opened(path=str(tmp_path / "list.csv"))
