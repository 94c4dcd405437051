"""Several jobs that prepare one set together: same bytes, refused differences, kills, and the end."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
from absl.testing import flagsaver
from PIL import Image
from waiting import Pause, wait_until

from jepa_jax import prepare as command
from jepa_jax.data.preparation import build, sets, shard_writer, verify
from jepa_jax.data.preparation.frames import JpegSettings
from jepa_jax.data.preparation.output import locks
from jepa_jax.data.preparation.raw import PrepareError
from jepa_jax.data.preparation.share import Share, parse
from jepa_jax.data.sources import array_record
from jepa_jax.files import ownership

SETTINGS = JpegSettings(short_side=16)


def picture(file, number):
    file.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file)


def pictures(folder):
    """300 training and 70 test images: five and two shards."""
    for number in range(370):
        picture(folder / ("train" if number < 300 else "test") / "ab"[number % 2] / f"{number:03}.png", number)
    return folder


@pytest.fixture
def raw(tmp_path):
    return pictures(tmp_path / "raw")


@pytest.fixture
def prepare(raw, tmp_path):
    """prepare(part) prepares "i/n" of the set in the folder `out` and returns the summary."""

    def run(part="1/1", out="out", settings=SETTINGS, **options):
        array_record.records.cache_clear()
        source = sets.OPEN["folder"](raw)
        return build.prepare(source, tmp_path / out, settings, 0, share=parse(part), **options)

    return run


@pytest.fixture
def finish(raw, tmp_path):
    return lambda: build.finish(sets.OPEN["folder"](raw), tmp_path / "out", SETTINGS)


def content(folder):
    """Returns the bytes of all files in a folder, except the notes' modification times and their folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("order", [["1/3", "2/3", "3/3"], ["3/3", "1/3", "2/3"], ["2/2", "1/2"], ["7/7", "1/7"]])
def test_parts_in_any_order_write_the_bytes_of_one_job(prepare, tmp_path, order):
    prepare(out="whole")
    count = int(order[0].partition("/")[2])
    order += [f"{number}/{count}" for number in range(1, count + 1) if f"{number}/{count}" not in order]
    for part in order[:-1]:
        report = prepare(part)
        assert report.startswith(f"Part {part} of {tmp_path / 'out'} is written. To write: part ")
        assert f"part {order[-1]} (" in report
        with pytest.raises(array_record.NotPreparedError, match="is not completely prepared"):
            array_record.open_set(str(tmp_path / "out"), "train")
    assert "folder: 370 images" in prepare(order[-1])
    assert content(tmp_path / "out") == content(tmp_path / "whole")
    assert "370 frames of 370 images verified" in verify.verify(tmp_path / "out", 0)
    assert "is already complete" in prepare(order[0])


def test_parts_without_shards_have_nothing_to_write(prepare):
    assert "To write: part 1/9 (1 of 1 shards: folder-train.array_record-00000-of-00005), part 2/9" in prepare("9/9")
    reports = [prepare(f"{number}/9") for number in range(1, 9)]
    assert "folder: 370 images" in reports[6]
    assert "is already complete" in reports[7]


def test_report_names_the_missing_parts_and_shards(prepare):
    report = prepare("2/3")
    shards = [f"folder-{name}" for name in ("train.array_record-00000-of-00005", "train.array_record-00003-of-00005",
                                            "test.array_record-00001-of-00002")]  # fmt: skip
    assert f"To write: part 1/3 (3 of 3 shards: {', '.join(shards)}), part 3/3 (2 of 2 shards: " in report
    assert report.endswith("The last part to end completes the set.")


def test_finish_names_missing_parts_and_completes_the_set(prepare, finish, tmp_path, monkeypatch):
    with pytest.raises(PrepareError, match=r"out has no shards. Run the same command with --part=i/n"):
        finish()
    prepare("1/3")
    with pytest.raises(
        PrepareError, match=r"is incomplete: part 2/3 \(2 of 2 shards: .*\), part 3/3 .* with --part=i/n"
    ):
        finish()
    prepare("3/3")
    monkeypatch.setattr(build.completion, "complete", lambda _: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        prepare("2/3")  # interrupted after its last shard
    monkeypatch.undo()
    assert "folder: 370 images" in finish()
    assert "is already complete" in finish()
    prepare(out="whole")
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_finish_reports_a_damaged_shard_whose_part_then_rewrites_it(prepare, finish, tmp_path):
    prepare("1/2")
    file = sorted((tmp_path / "out").glob("*.array_record-*"))[1]
    file.write_bytes(bytes(file.stat().st_size))  # as after a power failure
    damaged = f"part 1/2 (1 of 4 shards: {file.name})"
    assert f"To write: {damaged}. " in prepare("2/2")
    with pytest.raises(PrepareError, match=re.escape(f"is incomplete: {damaged}. ")):
        finish()
    prepare("1/2")
    prepare(out="whole")
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_finish_with_a_complete_set_out_of_date_raises(raw, prepare, finish):
    prepare()
    picture(raw / "train" / "b" / "999.png", 999)
    with pytest.raises(PrepareError, match=r"is complete, but out of date: 1 added: train/b/999\.png"):
        finish()


def test_part_with_other_settings_is_refused(prepare):
    prepare("1/3")
    with pytest.raises(PrepareError, match=r"prepared with other settings .quality: 90 before, 50 now"):
        prepare("2/3", settings=dataclasses.replace(SETTINGS, quality=50))


def test_part_with_other_files_is_refused_and_writes_nothing(raw, prepare, finish, tmp_path):
    prepare("1/3")
    before = content(tmp_path / "out")
    state = (raw / "train" / "a" / "000.png").stat()
    os.utime(raw / "train" / "a" / "000.png", ns=(state.st_atime_ns, state.st_mtime_ns + 10**9))
    (raw / "test" / "b" / "369.png").unlink()
    picture(raw / "train" / "c" / "new.png", 1)
    message = (
        r"planned for other files .*: 1 added: train/c/new\.png; 1 changed: train/a/000\.png; 1 removed: "
        r"test/b/369\.png\. .* run one of them with --update first"
    )
    for job in (lambda: prepare("2/3"), finish):
        with pytest.raises(PrepareError, match=message):
            job()
    assert content(tmp_path / "out") == before


def test_update_plans_again_for_all_parts(raw, prepare, tmp_path):
    for part in ("1/2", "2/2"):
        prepare(part)
    picture(raw / "train" / "a" / "000.png", 1000)
    with pytest.raises(PrepareError, match=r"1 changed: train/a/000\.png\. .*--update to rewrite 1 of 7 shards"):
        prepare("1/2")
    assert "To write: part 1/2 (1 of 4 shards: " in prepare("2/2", update=True)
    picture(raw / "test" / "a" / "300.png", 1001)
    with pytest.raises(PrepareError, match=r"1 changed: test/a/300\.png"):
        prepare("1/2")
    prepare("1/2", update=True)
    prepare("2/2")
    prepare(out="whole")
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_set_begun_in_parts_is_completed_by_one_job_or_by_other_parts(prepare, tmp_path):
    prepare(out="whole")
    prepare("2/3")
    assert "To write: part 2/2 (" in prepare("1/2")
    assert "folder: 370 images" in prepare()
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_running_part_keeps_other_jobs_off_its_shards(raw, prepare, tmp_path, finish):
    prepare("1/3")
    with locks.of_share(tmp_path / "out", Share(2, 3)):
        process = f"in use by process {os.getpid()} on "
        with pytest.raises(PrepareError, match=rf"Part 2/3 of .*out is {process}"):
            prepare("2/3")
        with pytest.raises(
            PrepareError, match=rf"Part 2/3 of .*out is {process}.*Part 1/4 would write the same shards"
        ):
            prepare("1/4")
        with pytest.raises(PrepareError, match=rf"Part 2/3 of .*out is {process}.*Without --part"):
            prepare()
        with pytest.raises(PrepareError, match=rf"2/3 \(2 of 2 shards: .*; in progress by process {os.getpid()} on"):
            finish()
        (raw / "train" / "a" / "000.png").unlink()
        with pytest.raises(PrepareError, match=rf"Part 2/3 of .*out is {process}.*The files have changed"):
            prepare("3/3", update=True)
        picture(raw / "train" / "a" / "000.png", 0)


def test_whole_job_keeps_parts_off(prepare, tmp_path):
    with (
        locks.of_share(tmp_path / "out", Share()),
        pytest.raises(PrepareError, match=rf"The whole of .*out is in use by process {os.getpid()} on "),
    ):
        prepare("1/2")


def test_lock_of_a_dead_machine_is_removed(prepare, tmp_path, monkeypatch):
    for name, seconds in {"SILENT_S": 0.2, "STALE_S": 0.5}.items():
        monkeypatch.setattr(ownership, name, seconds)
    prepare("1/2")
    dead = ownership.Owner("1", "node7", 4711, "another boot", "5", 0.0)
    for name in ("lock-2-of-2.json", "lock-2-of-3.json"):
        (tmp_path / "out" / name).write_text(json.dumps(dataclasses.asdict(dead) | {"renewed": 0.0}))
    prepare("2/2")
    assert not list((tmp_path / "out").glob("lock*"))


def test_unfinished_files_of_a_killed_part_are_removed(prepare, tmp_path):
    prepare("1/2")
    (tmp_path / "out" / "preparing" / "train-00000.12ab.array_record").write_bytes(b"half")
    prepare("2/2")
    assert {path.suffix for path in (tmp_path / "out" / "notes").iterdir()} == {".json"}


def test_writers_of_one_shard_do_not_disturb_each_other(prepare, tmp_path, monkeypatch):
    """As when a machine that seemed dead continues after another has taken over its shards."""
    write, other = shard_writer.write, []

    def twice(shard, tick, **settings):
        if not other:
            other.append(shard)

            def interrupted_by_another():
                if len(other) == 1:
                    other.append(shard)
                    write(shard, tick, **settings)

            write(shard, interrupted_by_another, **settings)
        else:
            write(shard, tick, **settings)

    monkeypatch.setattr(shard_writer, "write", twice)
    prepare("1/1")
    monkeypatch.undo()
    prepare(out="whole")
    assert len(other) == 2
    assert content(tmp_path / "out") == content(tmp_path / "whole")


@pytest.mark.parametrize("text", ["3", "0/3", "4/3", "1/0", "a/b", "-1/3", "1/3/5", ""])
def test_invalid_part_prints_an_error(tmp_path, capsys, monkeypatch, text):
    monkeypatch.setattr(command.exit_codes, "raise_on_sigterm", lambda: None)
    with flagsaver.flagsaver(source="raw", out=str(tmp_path / "out"), part=text):
        assert command.main(["prepare", "folder"]) == 1
    assert f"Error: --part is {text!r}; expected i/n with i from 1 to n" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_finish_excludes_part_and_update(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(command.exit_codes, "raise_on_sigterm", lambda: None)
    for options in ({"part": "1/2"}, {"update": True}):
        with flagsaver.flagsaver(source="raw", out=str(tmp_path / "out"), finish=True, **options):
            assert command.main(["prepare", "folder"]) == 1
        assert "Error: --finish writes no shards; use it without --part and --update." in capsys.readouterr().err


def job(root, out, part, *more):
    return [sys.executable, "-m", "jepa_jax.prepare", "folder", f"--source={root}", f"--out={out}", "--short-side=96",
            "--workers=0", f"--part={part}", *more]  # fmt: skip


@pytest.mark.slow
def test_three_processes_one_killed_write_the_bytes_of_one_job(tmp_path):
    root, out = pictures(tmp_path / "raw"), tmp_path / "out"
    pause = Pause(tmp_path / "pause", r"os.rename .*/train-00001\..*array_record$")
    started = [
        subprocess.Popen(
            job(root, out, f"{number}/3"),
            env=pause.added_to(os.environ),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for number in (1, 2, 3)
    ]
    # Part 2/3 is train-00001 and train-00004. It is killed before it completes the first.
    wait_until(pause.reached, started[1])
    started[1].kill()
    reports = [process.communicate()[0] for process in started]
    assert [process.returncode for process in started] == [0, -signal.SIGKILL, 0]
    assert not (out / "prepared.json").exists()
    assert any("To write: part 2/3 (" in report for report in reports)
    finish = [argument for argument in job(root, out, "2/3", "--finish") if "--part" not in argument]
    refused = subprocess.run(finish, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert re.search(r"Error: .*out is incomplete: part 2/3 \(\d of 2 shards: ", refused.stderr)
    resumed = subprocess.run(job(root, out, "2/3", "--verify"), capture_output=True, text=True, check=True)
    assert "370 frames of 370 images verified; no problems found." in resumed.stdout
    build.prepare(sets.OPEN["folder"](root), tmp_path / "whole", JpegSettings(96), 0)
    assert content(out) == content(tmp_path / "whole")


@pytest.mark.slow
def test_parts_that_start_and_end_together_complete_the_set_once(tmp_path):
    root, out = pictures(tmp_path / "raw"), tmp_path / "out"
    started = [
        subprocess.Popen(job(root, out, f"{number}/3"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for number in (1, 2, 3)
    ]
    outputs = [process.communicate() for process in started]
    assert [process.returncode for process in started] == [0] * 3, outputs
    assert sum("folder: 370 images, 370 frames" in stdout for stdout, _ in outputs) >= 1
    build.prepare(sets.OPEN["folder"](root), tmp_path / "whole", JpegSettings(96), 0)
    assert content(out) == content(tmp_path / "whole")


@pytest.mark.slow
def test_interrupted_part_releases_its_lock_and_resumes(tmp_path):
    root, out = pictures(tmp_path / "raw"), tmp_path / "out"
    pause = Pause(tmp_path / "pause", r"os.rename .*/train-00000\..*array_record$")
    process = subprocess.Popen(
        job(root, out, "1/2", "--workers=1"),
        env=pause.added_to(os.environ),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(pause.reached, process)
    assert (out / "lock-1-of-2.json").exists()
    process.send_signal(signal.SIGINT)
    pause.resume()
    assert "Stopped. Run the same command again to resume." in process.communicate()[1]
    assert process.returncode == 130
    assert not list(out.glob("lock*"))
    for part in ("1/2", "2/2"):
        subprocess.run(job(root, out, part), capture_output=True, check=True)
    build.prepare(sets.OPEN["folder"](root), tmp_path / "whole", JpegSettings(96), 0)
    assert content(out) == content(tmp_path / "whole")
