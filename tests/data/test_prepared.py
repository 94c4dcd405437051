"""A prepared set gives the same clips, indices and labels as its files."""

import json
import pathlib
import pickle
import shutil
import time

import numpy as np
import pytest
import simplejpeg

from jepa_jax import config, data
from jepa_jax.data import augment, sampling, sources
from jepa_jax.data.decode import videos
from jepa_jax.data.preparation import build, frames, sets
from jepa_jax.data.sources import array_record
from jepa_jax.data.sources.strings import Strings
from jepa_jax.settings import ConfigError

SourceConfig = config.SourceConfig


def prepare(raw, out):
    build.prepare(sets.OPEN["folder"](pathlib.Path(raw)), out, frames.JpegSettings(), 0)
    return str(out)


@pytest.fixture(scope="session")
def prepared_clips(clips, tmp_path_factory):
    return prepare(clips, tmp_path_factory.mktemp("prepared") / "clips")


@pytest.fixture(scope="session")
def prepared_pictures(pictures, tmp_path_factory):
    return prepare(pictures, tmp_path_factory.mktemp("prepared") / "pictures")


def batches(path, pictures, workers=0, **settings):
    run = config.Config(
        steps=6,
        batch_size=4,
        clip=config.ClipConfig(frames=4, size=16),
        data=config.DataConfig(
            workers=workers,
            sources={
                "videos": SourceConfig(path=str(path), weight=0.7, **settings),
                "images": SourceConfig(kind="images", path=str(pictures), weight=0.3),
            },
        ),
    )
    made = data.TrainBatches(run)
    try:
        return [dict(batch) for batch in made]
    finally:
        made.close()


def assert_near(got, wanted):
    assert len(got) == len(wanted)
    for a, b in zip(got, wanted, strict=True):
        assert a.keys() == b.keys()
        np.testing.assert_array_equal(a["item"], b["item"])
        np.testing.assert_array_equal(a["source"], b["source"])
        # Consecutive frames differ by 8 levels, so a wrong frame would fail.
        assert np.abs(a["video"].astype(int) - b["video"]).max() <= 2


def test_training_batches_match_those_of_the_files(clips, pictures, prepared_clips, prepared_pictures):
    for settings in ({"frame_step": 2}, {"target_fps": 16}, {"exclude": "a/[12]"}):
        assert_near(batches(prepared_clips, prepared_pictures, **settings), batches(clips, pictures, **settings))


@pytest.mark.parametrize("size", [(16, 16), (40, 24), (200, 200)])
def test_training_views_equal_those_of_whole_frames(prepared_clips, size):
    """The same seed gives the same crop, and the pixels are exact although frames are decoded in part."""
    found = array_record.open_set(prepared_clips, "train")
    for seed in range(40):
        part, whole = (augment.RandomView(*size, config.AugmentConfig(), np.random.default_rng(seed)) for _ in range(2))
        got = found.read_clip(seed % 8, lambda count, fps: np.arange(4), part)
        wanted = found.read_clip(seed % 8, lambda count, fps: np.arange(4), lambda frame: whole(frame))  # noqa: B023
        np.testing.assert_array_equal(got, wanted)


def test_training_decodes_no_rows_below_the_crop(prepared_clips, monkeypatch):
    heights, decode_jpeg = [], simplejpeg.decode_jpeg

    def noting(*arguments, **options):
        frame = decode_jpeg(*arguments, **options)
        heights.append(len(frame))
        return frame

    monkeypatch.setattr(simplejpeg, "decode_jpeg", noting)
    found = array_record.open_set(prepared_clips, "train")
    for seed in range(20):
        view = augment.RandomView(8, 8, config.AugmentConfig(crop_area=(0.1, 0.2)), np.random.default_rng(seed))
        clip = found.read_clip(0, lambda count, fps: np.arange(2), view)
        assert clip.shape == (2, 8, 8, 3)
        box = view.box(0, 0)  # as drawn for the first frame
        assert heights[-1] <= box.top + box.height + 2
    assert len(heights) == 40


@pytest.mark.slow
def test_batches_of_prepared_sets_do_not_depend_on_workers(prepared_clips, prepared_pictures):
    wanted = batches(prepared_clips, prepared_pictures)
    for a, b in zip(batches(prepared_clips, prepared_pictures, workers=2), wanted, strict=True):
        np.testing.assert_array_equal(a["video"], b["video"])
        np.testing.assert_array_equal(a["item"], b["item"])


def evaluated(**settings):
    chosen = data.EvaluationSet(SourceConfig(**settings), clip=config.ClipConfig(frames=4, size=16))
    read = list(chosen.batches(8))
    valid = np.concatenate([batch["valid"] for batch in read])
    return (
        chosen.classes,
        np.concatenate([batch["labels"]["class"] for batch in read])[valid].tolist(),
        np.concatenate([batch["video"] for batch in read])[valid],
    )


@pytest.mark.parametrize("settings", [{}, {"include": "^a/", "exclude": "0"}])
def test_evaluation_clips_match_those_of_the_files(clips, prepared_clips, settings):
    classes, labels, video = evaluated(path=prepared_clips, **settings)
    of_files = evaluated(path=str(clips), **settings)
    assert classes == {"class": ("a", "b")}
    assert labels == of_files[1]
    np.testing.assert_allclose(video, of_files[2], atol=1.5)


def test_evaluation_images_match_those_of_the_files(pictures, prepared_pictures):
    _, labels, video = evaluated(kind="images", path=prepared_pictures)
    of_files = evaluated(kind="images", path=str(pictures))
    assert labels == of_files[1]
    assert np.abs(video.astype(int) - of_files[2]).max() <= 1


def test_only_the_required_records_and_frames_are_read(tmp_path, write_video, monkeypatch):
    write_video(tmp_path / "raw" / "a" / "long.mp4", frames=100, picture=lambda k: np.full((32, 32, 3), k, np.uint8))
    found = array_record.open_set(prepare(tmp_path / "raw", tmp_path / "out"), "train")
    opened, decoded = [], []
    records, decode_jpeg = array_record.records("%s" % (tmp_path / "out"), "train"), array_record.decode_jpeg

    class Counted:
        def __getitem__(self, number):
            opened.append(number)
            return records[number]

    monkeypatch.setattr(array_record, "records", lambda *_: Counted())
    monkeypatch.setattr(array_record, "decode_jpeg", lambda jpeg: decoded.append(1) or decode_jpeg(jpeg))
    clip = found.read_clip(0, lambda count, fps: np.array([30, 31, 33, 33, 70]))
    assert opened == [0, 1, 2]
    assert len(decoded) == 4
    np.testing.assert_allclose(clip.mean(axis=(1, 2, 3)), [30, 31, 33, 33, 70], atol=2)


def test_frames_are_selected_again_if_the_nominal_count_is_too_high(prepared_clips):
    found = array_record.open_set(prepared_clips, "train")
    found.index.nominal_I[0] = 30  # of 24
    asked = []

    def last(count, fps):
        asked.append(count)
        return np.array([count - 1])

    found.read_clip(0, last)
    found.read_clip(0, lambda count, fps: asked.append(count) or np.array([23]))
    assert asked == [30, 24, 30]


@pytest.mark.slow
def test_frame_indices_of_real_clips_match_those_of_the_files(real_data, tmp_path):
    """Many containers and codecs, including AVI files with a header that counts one frame too many."""
    folder = real_data / "formats"
    found = array_record.open_set(prepare(folder, tmp_path / "out"), "train")
    assert len(found.index.ids) == len(sources.scan_folder(folder, "videos"))
    for item, id in enumerate(found.index.ids):
        for choose in (
            lambda count, fps: sampling.spread_window(count, 16),
            lambda count, fps: sampling.random_window(
                count,
                16,
                sampling.stride(fps, 1, 16),
                np.random.default_rng(item),  # noqa: B023
            ),
        ):
            asked = {"raw": [], "prepared": []}

            def noting(name, choose=choose, asked=asked):
                def ask(count, fps):
                    asked[name].append((count, fps, choose(count, fps).tolist()))
                    return np.array(asked[name][-1][2])

                return ask

            raw = videos.read_clip(str(folder / id), noting("raw"))
            stored = found.read_clip(item, noting("prepared"))
            assert asked["raw"] == asked["prepared"]
            wanted = np.stack([frames.shrink(frame, 256) for frame in raw])
            assert np.abs(stored.astype(int) - wanted).mean() < 4


def test_large_index_opens_fast_and_pickles_small(tmp_path):
    """The size of Something-Something V2: half a second to open, and a few megabytes to send to each worker."""
    count = 170_000
    index = array_record.Index(
        Strings.of([f"video/{k}" for k in range(count)]),
        np.arange(count, dtype=np.int32) % 174,
        np.full(count, 12.0),
        np.full(count, 45, np.int32),
        np.full(count, 45, np.int32),
    )
    index.save(tmp_path / "index-train.npz")
    description = {"format": array_record.FORMAT, "kind": "videos", "splits": {"train": [["train"]]}}
    classes = {"classes": [str(k) for k in range(174)]}
    (tmp_path / "prepared.json").write_text(json.dumps(description | classes))
    start = time.process_time()
    source = sources.open_source(SourceConfig(path=str(tmp_path)), "ssv2")
    assert time.process_time() - start < 2.0
    assert source.size == count
    assert source.paths[count - 1] == f"{tmp_path}/video/{count - 1}"
    assert source.prepared_set.record_I[-1] == 2 * (count - 1)
    assert len(pickle.dumps(source)) < 100 * count
    some = sources.open_source(SourceConfig(path=str(tmp_path), include="7$"), "ssv2")
    assert some.size == count // 10
    assert some.labels[1] == 17
    assert some.prepared_set.record_I[1] == 34


def test_damaged_record_is_skipped_and_logged(clips, tmp_path):
    prepare(clips, tmp_path / "out")
    shard = next((tmp_path / "out").glob("*array_record-0*"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 8] ^= 1
    shard.write_bytes(content)
    chosen = data.EvaluationSet(
        SourceConfig(path=str(tmp_path / "out")), clip=config.ClipConfig(frames=4, size=16), max_skip_fraction=0.5
    )
    list(chosen.batches(8))
    (skip,) = chosen.skipped
    assert skip.path == f"{tmp_path}/out/a/{skip.item}.mp4"
    assert "damaged in the prepared set: " in skip.reason


def test_unusable_settings_raise(tmp_path, prepared_clips):
    def error_message(**settings):
        with pytest.raises(ConfigError) as caught:
            sources.open_source(SourceConfig(**settings), "mine")
        return str(caught.value)

    assert "kind is 'images'; " in error_message(path=prepared_clips, kind="images")
    assert "split is 'test'; " in error_message(path=prepared_clips, split="test")
    assert "has 'train'." in error_message(path=prepared_clips, split="test")
    assert "fold is 2; " in error_message(path=prepared_clips, fold=2)
    assert "'nothing' leaves none of 8" in error_message(path=prepared_clips, include="nothing")
    command = f"python -m jepa_jax.prepare diving48 --source RAW --out {tmp_path}/diving48"
    assert command in error_message(path=f"{tmp_path}/diving48")
    shutil.copytree(prepared_clips, tmp_path / "half")
    (tmp_path / "half" / "prepared.json").unlink()
    (tmp_path / "half" / "preparing").mkdir()
    (tmp_path / "half" / "preparing" / "plan.json").touch()
    assert "half is not completely prepared" in error_message(path=str(tmp_path / "half"))
    (tmp_path / "half" / "prepared.json").write_text('{"format": 7}')
    assert "has format 7; this version reads format 1" in error_message(path=str(tmp_path / "half"))


def test_strings_behave_like_a_sequence():
    values = ["", "a", "señor/1.avi", "z" * 300]
    strings = Strings.of(values)
    assert list(strings) == values
    assert strings[-1] == values[-1]
    assert strings[1:3] == values[1:3]
    assert list(strings.select(np.array([2, 0]))) == [values[2], ""]
    assert list(strings.with_prefix("d/")) == [f"d/{name}" for name in values]
    assert list(Strings.concatenate([strings.select(np.array([2])), strings])) == [values[2], *values]
    assert list(Strings.of([])) == []
    with pytest.raises(IndexError):
        strings[4]


@pytest.mark.parametrize("label", [2, 4294967, -2])
def test_label_outside_the_classes_raises(prepared_clips, tmp_path, label):
    folder = shutil.copytree(prepared_clips, tmp_path / "set")
    index = array_record.Index.load(folder / "index-train.npz")
    index.label_I[3] = label
    index.save(folder / "index-train.npz")
    with pytest.raises(ConfigError, match=rf"is damaged: its index has the label {label}, .* among the 2 of"):
        sources.open_source(SourceConfig(path=str(folder)), "mine")
