"""An exception from reading or encoding one item skips that item, with its name and reason, and not the job."""

import dataclasses
import json
import pathlib
import pickle
import struct
import zlib

import av.error
import cv2
import numpy as np
import pytest
from PIL import Image

from jepa_jax import config, data
from jepa_jax.data import faults, sources
from jepa_jax.data.decode import images, videos
from jepa_jax.data.preparation import build, frames, verify
from jepa_jax.data.preparation.output import disk_space
from jepa_jax.data.preparation.raw import Item, PrepareError, RawSet
from jepa_jax.data.sources import array_record, media_files

OF_LIBRARIES = [
    struct.error("argument out of range"),
    AttributeError("'float' object has no attribute 'encode'"),
    RuntimeError("cannot decode"),
    KeyError("bytes"),
    ZeroDivisionError("division by zero"),
    TypeError("not a bytes-like object"),
    RecursionError("maximum recursion depth exceeded"),
    AssertionError(),
    StopIteration(),
    IndexError("index out of range"),
    OverflowError("too large"),
    NotImplementedError("PA with alpha"),
    EOFError("no more images"),
    zlib.error("incorrect header check"),
    cv2.error("resize failed"),
    Image.DecompressionBombError("too many pixels"),
    av.error.UndefinedError(1, "undefined"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    ValueError("not enough image data"),
    OSError("image file is truncated"),
    SyntaxError("broken PNG file"),
]
by_type = pytest.mark.parametrize("error", OF_LIBRARIES, ids=lambda error: type(error).__name__)
some = pytest.mark.parametrize("error", OF_LIBRARIES[:7:2], ids=lambda error: type(error).__name__)


@by_type
def test_any_exception_becomes_a_decode_error_with_item_and_reason(error):
    with pytest.raises(faults.DecodeError) as caught, faults.as_decode_error("a/b.jpg", "row 3: "):
        raise error
    assert caught.value.path == "a/b.jpg"
    assert caught.value.reason.startswith("row 3: ")
    assert str(getattr(error, "strerror", None) or error) in caught.value.reason
    assert caught.value.__cause__ is error
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.path, again.reason) == (caught.value.path, caught.value.reason)


def test_generic_reasons_include_the_exception_type_and_location():
    with pytest.raises(faults.DecodeError) as caught, faults.as_decode_error("a"):
        {}["bytes"]
    assert caught.value.reason.startswith("KeyError: 'bytes' (test_faults.py:")
    with pytest.raises(faults.DecodeError) as caught, faults.as_decode_error("a"):
        raise ValueError("x" * 10_000)
    assert len(caught.value.reason) < 600


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_memory_errors_and_interrupts_are_not_caught(error):
    with pytest.raises(error), faults.as_decode_error("a"):
        raise error


def test_ffmpeg_out_of_memory_is_a_decode_error():
    """FFmpeg raises this for frame sizes that it refuses to allocate."""
    with pytest.raises(faults.DecodeError, match="Cannot allocate memory"), faults.as_decode_error("a"):
        av.error.err_check(-12)


def test_nested_contexts_name_only_the_inner_item():
    with (
        pytest.raises(faults.DecodeError) as caught,
        faults.as_decode_error("outer"),
        faults.as_decode_error("inner", "row 1: "),
    ):
        raise RuntimeError("broken")
    assert caught.value.path == "inner"
    assert caught.value.reason.startswith("row 1: RuntimeError: broken")


@pytest.fixture(params=["images", "videos"])
def kind(request):
    return request.param


@pytest.fixture
def folder(kind, clips, pictures):
    """A folder of readable files in two classes."""
    return pictures if kind == "images" else clips


def break_one(monkeypatch, path, error):
    """Makes the library that opens files raise an error for one of them."""
    content, read_image, read_video = pathlib.Path(path).read_bytes(), images.open_image, av.open

    def image(source):
        if source == content:
            raise error
        return read_image(source)

    def video(file, *arguments, **options):
        if file == f"file:{path}":
            raise error
        return read_video(file, *arguments, **options)

    monkeypatch.setattr(images, "open_image", image)
    monkeypatch.setattr(videos.av, "open", video)


def settings_of(kind, folder, workers=0):
    return config.Config(
        steps=6,
        batch_size=3,
        clip=config.ClipConfig(frames=2, size=16),
        data=config.DataConfig(
            sources={"files": config.SourceConfig(kind=kind, path=str(folder))}, workers=workers, max_skip_fraction=0.2
        ),
    )


def train(settings, opened, ledger_file):
    """Returns the items in all training batches, and the lines of the ledger."""
    batches = data.TrainBatches(settings, opened=opened, ledger=data.new_ledger(settings.data, opened, ledger_file))
    try:
        items = {item for batch in batches for item in batch["item"].tolist()}
    finally:
        batches.close()
    return items, [json.loads(line) for line in ledger_file.read_text().splitlines()]


@some
def test_training_skips_the_item(tmp_path, monkeypatch, kind, folder, error):
    settings = settings_of(kind, folder)
    opened = data.open_sources(settings.data)
    break_one(monkeypatch, opened[0].paths[2], error)
    items, lines = train(settings, opened, tmp_path / "skipped.jsonl")
    assert items == set(range(opened[0].size)) - {2}
    assert [(line["item"], line["path"]) for line in lines] == [(2, opened[0].paths[2])]
    assert str(getattr(error, "strerror", None) or error) in lines[0]["reason"]


@some
def test_evaluation_skips_the_item(monkeypatch, kind, folder, error):
    evaluation = data.EvaluationSet(
        config.SourceConfig(kind=kind, path=str(folder)),
        clip=config.ClipConfig(frames=2, size=16),
        max_skip_fraction=0.2,
    )
    path = evaluation.source.paths[2]
    break_one(monkeypatch, path, error)
    valid = [item for batch in evaluation.batches(4) for item in batch["item"][batch["valid"]].tolist()]
    assert valid == [item for item in range(evaluation.size) if item != 2]
    assert [(skip.item, skip.path) for skip in evaluation.skipped] == [(2, path)]


@some
def test_preparation_skips_the_item(tmp_path, monkeypatch, kind, folder, error):
    listed = sources.scan_folder(folder, kind)
    items = [Item(path, 0, str(folder / path)) for path, _ in listed]
    raw = RawSet(name="some", kind=kind, classes=("a",), parts={"train": items}, splits={"train": [["train"]]})
    break_one(monkeypatch, items[2].path, error)
    summary = build.prepare(raw, tmp_path / "out", frames.JpegSettings(16), 0)
    found = array_record.open_set(str(tmp_path / "out"), "train")
    assert list(found.index.ids) == [item.id for item in items if item is not items[2]]
    (line,) = [json.loads(line) for line in (tmp_path / "out" / "skipped.jsonl").read_text().splitlines()]
    assert (line["item"], line["path"]) == (2, items[2].path)
    assert f"{items[2].path}: {line['reason']}" in summary


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
def test_memory_errors_and_interrupts_end_training_and_preparation(tmp_path, monkeypatch, kind, folder, error):
    settings = settings_of(kind, folder)
    opened = data.open_sources(settings.data)
    break_one(monkeypatch, opened[0].paths[2], error())
    with pytest.raises(error):
        train(settings, opened, tmp_path / "skipped.jsonl")
    items = [Item(path, 0, path) for path in opened[0].paths]
    raw = RawSet(name="some", kind=kind, classes=("a",), parts={"train": items}, splits={"train": [["train"]]})
    with pytest.raises(error):
        build.prepare(raw, tmp_path / "out", frames.JpegSettings(16), 0)


def test_encoding_errors_skip_the_item(tmp_path, monkeypatch, kind, folder):
    listed = sources.scan_folder(folder, kind)
    items = [Item(path, 0, str(folder / path)) for path, _ in listed]
    encode, calls = frames.encode, []

    def third(frame, quality):
        calls.append(frame)
        if len(calls) == 3:
            raise RuntimeError("out of coefficients")
        return encode(frame, quality)

    monkeypatch.setattr(frames, "encode", third)
    monkeypatch.setattr(disk_space, "encoded_bytes", lambda _: 0.0)
    raw = RawSet(name="some", kind=kind, classes=("a",), parts={"train": items}, splits={"train": [["train"]]})
    assert "RuntimeError: out of coefficients" in build.prepare(raw, tmp_path / "out", frames.JpegSettings(16), 0)
    assert len(array_record.open_set(str(tmp_path / "out"), "train").index.ids) == len(items) - 1


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_worker_processes_skip_the_item(tmp_path, pictures, workers):
    class Broken(media_files.Images):  # pickled by value for the workers
        def read_image(self, item):
            if item == 2:
                raise AttributeError("no such attribute")
            return super().read_image(item)

    settings = settings_of("images", pictures, workers)
    opened = [
        Broken(**{field.name: getattr(source, field.name) for field in dataclasses.fields(source)})
        for source in data.open_sources(settings.data)
    ]
    items, lines = train(settings, opened, tmp_path / "skipped.jsonl")
    assert items == {0, 1, 3, 4, 5}
    assert [line["item"] for line in lines] == [2]
    assert lines[0]["reason"].startswith("AttributeError: no such attribute (")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_image_too_tall_for_a_jpeg_is_logged_as_skipped(tmp_path, workers):
    folder = tmp_path / "pictures" / "a"
    folder.mkdir(parents=True)
    for name, height in (("ok", 40), ("tall", 66_000)):
        Image.fromarray(np.full((height, 20), 90, np.uint8)).save(folder / f"{name}.png")
    items = [Item(name, 0, str(folder / f"{name}.png")) for name in ("ok", "tall")]
    raw = RawSet(name="some", kind="images", classes=("a",), parts={"train": items}, splits={"train": [["train"]]})
    build.prepare(raw, tmp_path / "out", frames.JpegSettings(256), workers)
    (line,) = [json.loads(line) for line in (tmp_path / "out" / "skipped.jsonl").read_text().splitlines()]
    assert line["path"] == items[1].path
    assert line["reason"] == "20 × 66,000 pixels; a JPEG has at most 65,500 per side"
    assert list(array_record.open_set(str(tmp_path / "out"), "train").index.ids) == ["ok"]


def test_errors_in_every_item_raise_with_the_reason(tmp_path, monkeypatch, pictures):
    """An error in every item is a bug rather than damage, so the run ends and reports the error and its location."""
    settings = settings_of("images", pictures)
    opened = data.open_sources(settings.data)
    (tmp_path / "skipped.jsonl").touch()
    monkeypatch.setattr(images, "read_image", lambda *_: None + 1)
    with pytest.raises(
        data.TooManySkippedError, match=r"(\d) of \1 times: TypeError: unsupported .*\(test_faults.py:\d+\)"
    ):
        train(settings, opened, tmp_path / "skipped.jsonl")
    items = [Item(path, 0, path) for path in opened[0].paths]
    raw = RawSet(name="some", kind="images", classes=("a",), parts={"train": items}, splits={"train": [["train"]]})
    with pytest.raises(PrepareError, match=rf"None of 6 items .* The first: {items[0].path}: TypeError: unsupported"):
        build.prepare(raw, tmp_path / "out", frames.JpegSettings(16), 0)


def test_verify_lists_all_damage_in_a_prepared_set(tmp_path, monkeypatch, pictures):
    items = [Item(path, 0, str(pictures / path)) for path, _ in sources.scan_folder(pictures, "images")]
    raw = RawSet(name="some", kind="images", classes=("a",), parts={"train": items}, splits={"train": [["train"]]})
    build.prepare(raw, tmp_path / "out", frames.JpegSettings(16), 0)
    records = array_record.records(str(tmp_path / "out"), "train")
    damaged = [dict(records[i]) for i in range(len(records))]
    del damaged[1]["frames"]
    damaged[4]["frames"] = [None]
    monkeypatch.setattr(array_record, "records", lambda *_: damaged)
    with pytest.raises(PrepareError, match=r"Problems \(2\)") as caught:
        verify.verify(tmp_path / "out", 0)
    assert f"train, {items[1].id}, frames from 0: KeyError: 'frames'" in str(caught.value)
    assert f"train, {items[4].id}, frames from 0: " in str(caught.value)
    found = array_record.open_set(str(tmp_path / "out"), "train")
    with pytest.raises(faults.DecodeError, match="damaged in the prepared set: KeyError: 'frames'"):
        found.read_image(1)
    assert found.read_image(0).shape == (16, 21, 3)
