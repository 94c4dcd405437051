"""The command: flags in, exit code out."""

import subprocess
import sys

import pytest

from jepa_jax import prepare as command


@pytest.mark.slow
def test_the_command_line(tmp_path, write_video):
    write_video(tmp_path / "raw" / "a" / "0.mp4")
    write_video(tmp_path / "raw" / "b" / "1.webm")

    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "jepa_jax.prepare", *arguments], capture_output=True, text=True, check=False
        )

    out = str(tmp_path / "out")
    made = run("folder", "--source", str(tmp_path / "raw"), "--out", out, "--short-side", "32", "--workers", "1")
    assert made.returncode == 0, made.stderr
    assert "2 videos" in made.stdout
    assert "as downloaded; expected to take" in made.stdout
    checked = run("folder", "--out", out, "--verify", "--workers=0")
    assert checked.returncode == 0, checked.stderr
    assert "48 frames of 2 videos read back, all sound." in checked.stdout
    wrong = run("kinetics", "--source", "x", "--out", out)
    assert wrong.returncode
    assert "Expected the name of one set: ucf101, something_something_v2, diving48, imagenet100, folder" in (
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
    given = ["prepare", "folder", "--short-side=96", "--source", "my-videos/a--b", "--no-verify"]
    wanted = ["prepare", "folder", "--short_side=96", "--source", "my-videos/a--b", "--no_verify"]
    assert command.with_underscores(given) == wanted
