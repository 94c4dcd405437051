"""`python -m jepa_jax.prepare`: flags, output and exit codes."""

import os
import subprocess
import sys

import pytest

from jepa_jax.cli import command_line


@pytest.mark.slow
def test_command_line_prepares_verifies_and_reports_errors(tmp_path, write_video):
    write_video(tmp_path / "raw" / "a" / "0.mp4")
    write_video(tmp_path / "raw" / "b" / "1.webm")

    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "jepa_jax.prepare", *arguments], capture_output=True, text=True, check=False
        )

    out = str(tmp_path / "out")
    prepared = run("folder", "--source", str(tmp_path / "raw"), "--out", out, "--short-side", "32", "--workers", "1")
    assert prepared.returncode == 0, prepared.stderr
    assert "2 videos" in prepared.stdout
    assert "as downloaded; expected size" in prepared.stdout
    checked = run("folder", "--out", out, "--verify", "--workers=0")
    assert checked.returncode == 0, checked.stderr
    assert "48 frames of 2 videos verified; no problems found." in checked.stdout
    wrong = run("kinetics", "--source", "x", "--out", out)
    assert wrong.returncode
    assert "Expected the name of one dataset: ucf101, something_something_v2, diving48, imagenet100, folder" in (
        wrong.stdout + wrong.stderr
    )
    missing = run("diving48", "--source", str(tmp_path / "raw"), "--out", out)
    assert missing.returncode == 1
    assert missing.stderr.strip().splitlines()[-1].startswith("Error: ")
    assert "lacks Diving48_vocab.json" in missing.stderr
    unsourced = run("diving48", "--out", out)
    assert unsourced.returncode == 1
    assert "--source is missing" in unsourced.stderr


def test_flags_may_be_written_with_dashes():
    arguments = ["prepare", "folder", "--short-side=96", "--source", "my-videos/a--b", "--no-verify"]
    expected = ["prepare", "folder", "--short_side=96", "--source", "my-videos/a--b", "--no_verify"]
    assert command_line.with_underscores(arguments) == expected


@pytest.mark.slow
def test_summary_prints_names_that_cannot_be_encoded(tmp_path, write_video):
    raw = tmp_path / "raw \udcff"
    for number in range(2):
        write_video(tmp_path / f"{number}.mp4", frames=4)
        (raw / "caf\udce9").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{number}.mp4").rename(raw / "caf\udce9" / f"{number}\n\udcfe.mp4")
    (raw / "caf\udce9" / "bad.mp4").write_bytes(b"no video")
    arguments = [f"--source={raw}", f"--out={tmp_path / 'out'}", "--short-side=32", "--workers=1", "--verify"]
    made = subprocess.run(
        [sys.executable, "-m", "jepa_jax.prepare", "folder", *arguments],
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": "ascii:strict"},
        check=False,
    )
    assert made.returncode == 0, made.stderr
    assert rb"raw \udcff/caf\udce9/bad.mp4: Invalid data" in made.stdout
    assert b"8 frames of 2 videos verified" in made.stdout
