"""Preparation from and to an object store: same bytes, requests, resuming, several jobs, errors."""

import dataclasses
import io
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile

import fsspec
import mock_bucket
import numpy as np
import pytest
from absl.testing import flagsaver
from PIL import Image
from waiting import wait_until

from jepa_jax import config
from jepa_jax import prepare as command
from jepa_jax.data import sources
from jepa_jax.data.preparation import build, sets, shard_writer
from jepa_jax.data.preparation.frames import JpegSettings
from jepa_jax.data.preparation.output import locks
from jepa_jax.data.preparation.raw import PrepareError
from jepa_jax.data.preparation.share import Share, parse
from jepa_jax.files import ownership
from jepa_jax.files.remote import any_path

SETTINGS = JpegSettings(short_side=32)


@pytest.fixture(autouse=True)
def bucket(tmp_path, monkeypatch):
    """The local folder with the objects of bucket://data."""
    monkeypatch.setattr(ownership, "SETTLE_S", 0.0)
    monkeypatch.setattr(command.exit_codes, "raise_on_sigterm", lambda: None)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return mock_bucket.installed(tmp_path / "plugin", tmp_path / "buckets", monkeypatch)


def picture(file, number, size=16):
    file.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(number).integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file)
    os.utime(file, (10**9 + number, 10**9 + number))


def pictures(folder):
    """150 training and 70 test images, of which one is damaged: three and two shards."""
    for number in range(220):
        picture(folder / ("train" if number < 150 else "test") / "ab"[number % 2] / f"{number:03}.png", number)
    (folder / "train" / "a" / "100.png").write_bytes(b"\x89PNG damaged")
    os.utime(folder / "train" / "a" / "100.png", (10**9, 10**9))
    return folder


def prepare(root, out, name="folder", part="1/1", workers=0, **options):
    source = sets.OPEN[name](any_path.parse(str(root), "--source"))
    return build.prepare(source, any_path.parse(str(out), "--out"), SETTINGS, workers, share=parse(part), **options)


def content(folder):
    """The bytes of all files below a folder, by relative path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def without_location(files, root):
    """Makes the ledgers of a local and a remote source comparable."""
    return {path: text.replace(str(root).encode(), b"RAW") for path, text in files.items()}


def without_times(files):
    return {path: text for path, text in files.items() if not path.startswith("notes/")}


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_remote_paths_give_the_bytes_of_local_ones(tmp_path, bucket, workers):
    root = pictures(bucket / "raw")
    prepare(root, tmp_path / "out")
    local = content(tmp_path / "out")
    assert prepare(root, "bucket://data/sets/one", workers=workers).startswith("folder: 219 images, 219 frames")
    assert content(bucket / "sets" / "one") == local
    prepare("bucket://data/raw/", "bucket://data/sets/two/", workers=workers)
    assert without_location(content(bucket / "sets" / "two"), "bucket://data/raw") == without_location(local, root)
    prepare("bucket://data/raw", tmp_path / "three", workers=workers)
    assert without_location(content(tmp_path / "three"), "bucket://data/raw") == without_location(local, root)
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.parametrize(
    "name", ["ucf101", "something_something_v2", "diving48", "imagenet100", pytest.param("parquet", id="parquet")]
)
def test_annotations_videos_and_parquet_are_read_from_a_store(request, tmp_path, bucket, name):
    root = request.getfixturevalue("raw_" + ("imagenet" if name == "imagenet100" else name))
    name = "imagenet100" if name == "parquet" else name
    prepare(root, tmp_path / "out", name)
    root.rename(bucket / "raw")
    summary = prepare("bucket://data/raw", tmp_path / "remote", name)
    assert without_times(content(tmp_path / "remote")) == without_times(content(tmp_path / "out"))
    assert "could not be prepared" not in summary
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.parametrize("url", ["file://{folder}/made/out", "memory://test_remote/out"])
def test_other_file_systems_of_fsspec(tmp_path, url):
    root = pictures(tmp_path / "raw")
    prepare(root, tmp_path / "out")
    url = url.format(folder=tmp_path)
    prepare(root, url)
    system, path = fsspec.url_to_fs(url)
    files = {name.removeprefix(f"{path}/"): system.cat_file(name) for name in system.find(path)}
    assert files == content(tmp_path / "out")
    assert "is already complete" in prepare(root, url)


def test_names_with_special_characters(tmp_path, bucket):
    for number, name in enumerate(("a::b.png", "c#d?.png", "[e]*.png", "f g%20.png", "é.png")):
        picture(bucket / "raw [1]" / "train" / "x::y" / name, number)
    picture(bucket / "raw [1]" / "train" / ".hidden.png", 7)
    prepare(bucket / "raw [1]", tmp_path / "out")
    prepare("bucket://data/raw [1]", "bucket://data/out [1]")
    assert content(bucket / "out [1]") == content(tmp_path / "out")


def test_transport_streams_are_recognized_by_their_content(bucket, write_video):
    write_video(bucket / "raw" / "a" / "1.mp4")
    (bucket / "raw" / "a" / "2.ts").write_text("export const a = 1;")
    summary = prepare("bucket://data/raw", "bucket://data/out")
    assert "folder: 1 videos" in summary
    assert "1 file is left out: 1 .ts (not an MPEG transport stream) in a/" in summary


def test_files_are_listed_in_one_request_and_fetched_once(tmp_path, bucket):
    pictures(bucket / "raw")
    source = sets.OPEN["folder"](any_path.parse("bucket://data/raw", "--source"))
    assert mock_bucket.requests["find"] == 1
    plan = build.plan.make(source, tmp_path / "out", SETTINGS)
    assert plan.items == 220
    assert sum(mock_bucket.requests.values()) == 1


def test_requests_of_a_complete_set_do_not_grow_with_its_items(bucket):
    pictures(bucket / "raw")
    prepare("bucket://data/raw", "bucket://data/out")
    mock_bucket.requests.clear()
    assert "is already complete" in prepare("bucket://data/raw", "bucket://data/out")
    assert mock_bucket.requests["find"] == 2
    assert sum(mock_bucket.requests.values()) < 15  # five notes, description, ledger


def test_parts_and_finish(tmp_path, bucket):
    root = pictures(bucket / "raw")
    prepare(root, tmp_path / "whole")
    remote = "bucket://data/raw", "bucket://data/out"

    def finish():
        source = sets.OPEN["folder"](any_path.parse(remote[0], "--source"))
        return build.finish(source, any_path.parse(remote[1], "--out"), SETTINGS)

    with pytest.raises(PrepareError, match=r"bucket://data/out has no shards"):
        finish()
    report = prepare(*remote, part="2/3")
    assert report.startswith("Part 2/3 of bucket://data/out is written. To write: part 1/3 (2 of 2 shards: ")
    with pytest.raises(PrepareError, match=r"out is incomplete: part 1/3 .*, part 3/3 \(1 of 1 shards: "):
        finish()
    out = any_path.parse(remote[1], "--out")
    with locks.of_share(out, Share(1, 3)):
        process = f"in use by process {os.getpid()} on "
        with pytest.raises(PrepareError, match=rf"Part 1/3 of bucket://data/out is {process}"):
            prepare(*remote, part="1/3")
        with pytest.raises(PrepareError, match=rf"Part 1/3 of bucket://data/out is {process}.*Part 1/2 would write"):
            prepare(*remote, part="1/2")
        with pytest.raises(PrepareError, match=rf"1/3 \(2 of 2 shards: .*; in progress by process {os.getpid()} on"):
            finish()
    prepare(*remote, part="3/3")
    assert "folder: 219 images" in prepare(*remote, part="1/3")
    assert "is already complete" in finish()
    assert without_location(content(bucket / "out"), remote[0]) == without_location(content(tmp_path / "whole"), root)


def test_lock_of_a_dead_machine_is_taken_over(bucket, monkeypatch):
    for name, seconds in {"SILENT_S": 0.2, "STALE_S": 0.5}.items():
        monkeypatch.setattr(ownership, name, seconds)
    root = pictures(bucket / "raw")
    prepare(root, "bucket://data/out", part="1/2")
    dead = ownership.Owner("1", "node7", 4711, "another boot", "5", 0.0)
    for name in ("lock-2-of-2.json", "lock-2-of-3.json"):
        (bucket / "out" / name).write_text(json.dumps(dataclasses.asdict(dead) | {"renewed": 0.0}))
    prepare(root, "bucket://data/out", part="2/2")
    assert not list((bucket / "out").glob("lock*"))


def test_growing_set_renames_its_shards_and_updates(tmp_path, bucket):
    """Added items change the number of shards, which is part of their names."""
    root, remote = pictures(bucket / "raw"), ("bucket://data/raw", "bucket://data/out")
    prepare(*remote)
    for number in range(300, 370):
        picture(root / "train" / "c" / f"{number}.png", number)
    mock_bucket.requests.clear()
    assert "folder: 289 images" in prepare(*remote)
    picture(root / "test" / "a" / "150.png", 1000)
    with pytest.raises(PrepareError, match=r"1 changed: test/a/150\.png\. .*--update to rewrite 1 of 6 shards"):
        prepare(*remote)
    assert "folder: 289 images" in prepare(*remote, update=True)
    prepare(root, tmp_path / "whole")
    assert without_location(content(bucket / "out"), remote[0]) == without_location(content(tmp_path / "whole"), root)


@pytest.mark.parametrize("first", [True, False])
def test_notes_that_were_moved_in_part_are_completed(tmp_path, bucket, monkeypatch, first):
    """Interrupted while the notes of a complete set are copied, or while their originals are removed."""
    root, done = pictures(bucket / "raw"), []
    original = mock_bucket.MockBucket.cp_file if first else mock_bucket.MockBucket.rm_file

    def interrupted(self, path, *target, **options):
        if re.search(r"preparing/\w+-0000\d", path):
            done.append(path)
            if len(done) == 3:
                raise KeyboardInterrupt
        original(self, path, *target, **options)

    with monkeypatch.context() as patched:
        patched.setattr(mock_bucket.MockBucket, "cp_file" if first else "rm_file", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare(root, "bucket://data/out")
    prepare(root, "bucket://data/out")
    picture(root / "train" / "c" / "new.png", 1)
    prepare(root, "bucket://data/out")
    prepare(root, tmp_path / "whole")
    assert content(bucket / "out") == content(tmp_path / "whole")


@pytest.mark.parametrize("end", ["raw/train/b/149.png", "folder-train.array_record-00001-of-00003"])
def test_lost_connection_ends_the_job_which_then_resumes(tmp_path, bucket, end):
    """An item that cannot be fetched is not skipped, since the others would be too."""
    root = pictures(bucket / "raw")
    mock_bucket.failing.add(end)
    with pytest.raises(PrepareError) as raised:
        prepare("bucket://data/raw", "bucket://data/out")
    action = "read" if end.startswith("raw") else "written"
    assert re.fullmatch(
        rf"bucket://data/\S*{re.escape(end)} cannot be {action}: ConnectionError: connection reset by peer\. Run the "
        "same command again to resume.",
        str(raised.value),
    )
    assert list((tmp_path / "temporary").iterdir()) == []
    assert not list((bucket / "out").glob("lock*"))
    mock_bucket.failing.clear()
    mock_bucket.requests.clear()
    prepare("bucket://data/raw", "bucket://data/out")
    prepare(root, tmp_path / "whole")
    assert without_times(content(bucket / "out")).keys() == without_times(content(tmp_path / "whole")).keys()
    assert (bucket / "out" / "index-train.npz").read_bytes() == (tmp_path / "whole" / "index-train.npz").read_bytes()


def test_item_that_disappears_ends_the_job(bucket, monkeypatch):
    pictures(bucket / "raw")
    monkeypatch.setattr(build.disk_space, "encoded_bytes", lambda _: (bucket / "raw/train/a/148.png").unlink() or 1.0)
    with pytest.raises(PrepareError, match=r"raw/train/a/148\.png cannot be read: FileNotFoundError: "):
        prepare("bucket://data/raw", "bucket://data/out")


def test_incomplete_upload_raises(bucket, monkeypatch):
    pictures(bucket / "raw")
    put_file = mock_bucket.MockBucket.put_file

    def truncated(self, local, path, **options):
        put_file(self, local, path, **options)
        os.truncate(bucket.parent / path, 100)

    monkeypatch.setattr(mock_bucket.MockBucket, "put_file", truncated)
    with pytest.raises(PrepareError, match=r"-00000-of-00003 cannot be written: OSError: 100 of [\d,]+ bytes arrived"):
        prepare(bucket / "raw", "bucket://data/out")


def failure(capsys, **given):
    with flagsaver.flagsaver(**given):
        assert command.main(["prepare", "folder"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("Error: ")
    assert error.count("\n") == 1
    return error


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("bucket://missing/set", "404 the specified bucket does not exist"),
        ("bucket://denied/set", "PermissionError: 403 the caller has no access to the bucket"),
        ("bucket://", "bucket:// names no bucket or folder; expected bucket://BUCKET/FOLDER."),
        ("nonsense://a/b", "nonsense://a/b cannot be opened: Protocol not known: nonsense."),
        ("gs:/a/b", "write gs://a/b."),
    ],
)
def test_unusable_paths_print_one_line(tmp_path, capsys, url, reason):
    root = pictures(tmp_path / "raw")
    assert reason in failure(capsys, source=str(root), out=url, workers=0)
    assert reason.replace("404 the specified bucket does not exist", "bucket://missing/set does not exist") in failure(
        capsys, source=url, out=str(tmp_path / "out")
    )


@pytest.mark.parametrize(
    ("url", "package"),
    [("gs://a/b", "pip install 'jepa_jax[gcs]'"), ("s3://a/b", "pip install s3fs"), ("hf://a/b", "huggingface_hub")],
)
def test_missing_package_is_named(tmp_path, capsys, monkeypatch, url, package):
    for module in ("gcsfs", "s3fs", "huggingface_hub"):
        monkeypatch.setitem(sys.modules, module, None)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    for given in ({"source": "raw", "out": url}, {"source": url, "out": "out"}):
        assert re.search(rf"{url} cannot be opened: \w+:// needs .*{re.escape(package)}", failure(capsys, **given))
    assert list(pathlib.Path().iterdir()) == []  # no folder named gs:


def test_empty_or_other_folder_as_source_or_output(bucket, capsys):
    assert "bucket://data/none does not exist or is empty" in failure(capsys, source="bucket://data/none", out="out")
    pictures(bucket / "raw")
    (bucket / "other").mkdir()
    (bucket / "other" / "a.txt").write_text("a")
    message = "bucket://data/other is not empty (it contains 'a.txt'); choose an empty or new folder."
    assert message in failure(capsys, source=str(bucket / "raw"), out="bucket://data/other", workers=0)


def test_verify_needs_a_local_set(capsys):
    error = failure(capsys, source="raw", out="gs://bucket/set", verify=True)
    assert "With --verify, --out is gs://bucket/set; expected a path on this machine: copy the files (gcloud " in error


@pytest.mark.slow
def test_killed_job_resumes(tmp_path, bucket):
    for number in range(200):
        file = bucket / "raw" / "train" / "ab"[number % 2] / f"{number:03}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        with io.BytesIO() as jpeg:
            Image.new("RGB", (800, 800), (number, 0, 0)).save(jpeg, "jpeg")
            file.write_bytes(jpeg.getvalue())
    job = [sys.executable, "-m", "jepa_jax.prepare", "folder", "--source=bucket://data/raw", "--out=bucket://data/out",
           "--short-side=32", "--workers=1", "--part=1/1"]  # fmt: skip
    process = subprocess.Popen(job, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_until((bucket / "out" / "preparing" / "train-00001.json").exists, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (bucket / "out" / "prepared.json").exists()
    assert (bucket / "out" / "lock-1-of-1.json").exists()
    written = (bucket / "out" / "folder-train.array_record-00000-of-00004").stat().st_ino
    resumed = subprocess.run(job, capture_output=True, text=True, check=True)
    assert "folder: 200 images, 200 frames" in resumed.stdout
    assert (bucket / "out" / "folder-train.array_record-00000-of-00004").stat().st_ino == written
    assert not list(pathlib.Path(tempfile.gettempdir()).glob("*.array_record"))
    prepare(bucket / "raw", tmp_path / "whole")
    assert without_times(content(bucket / "out")) == without_times(content(tmp_path / "whole"))
    assert shard_writer.load_note(bucket / "out" / "notes" / "train-00003.json") is not None


@pytest.mark.slow
def test_parts_that_run_together_complete_the_set(tmp_path, bucket):
    root = pictures(bucket / "raw")
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "jepa_jax.prepare", "folder", "--source=bucket://data/raw",
             "--out=bucket://data/out", "--short-side=32", "--workers=0", f"--part={number}/3"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for number in (1, 2, 3)
    ]  # fmt: skip
    outputs = [process.communicate() for process in started]
    assert [process.returncode for process in started] == [0] * 3, outputs
    assert sum("folder: 219 images, 219 frames" in stdout for stdout, _ in outputs) >= 1
    prepare(root, tmp_path / "whole")
    local = without_location(content(tmp_path / "whole"), root)
    assert without_location(content(bucket / "out"), "bucket://data/raw") == local


def test_training_on_a_remote_set_names_the_command_that_copies_it():
    with pytest.raises(ValueError, match=r"gs://b/set; .*gcloud storage rsync --recursive gs://b/set DIR.*gcsfuse"):
        sources.open_source(config.SourceConfig(kind="videos", path="gs://b/set"), "mine")
