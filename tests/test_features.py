"""`python -m jepa_jax.features`: features of files, with their names and labels."""

import csv
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

ROOT = pathlib.Path(__file__).parents[1]
TRAINING = """
from jepa_jax.config import Config, defaults

def get_config():
    config = defaults(Config)
    config.dtype = "float32"
    config.clip.frames, config.clip.size = 2, 16
    config.encoder.size, config.encoder.patch, config.encoder.levels = "16x2x2", 4, 2
    config.predictor.size = "16x1x2"
    return config
"""


@pytest.fixture
def flags(tmp_path):
    """Flags for an untrained encoder and a folder of labelled, unlabelled and damaged files."""
    (tmp_path / "training.py").write_text(TRAINING)
    for name in ("a.png", "red/b.png", "red/c.png"):
        (tmp_path / "files" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20), (200, 10 * len(name), 30)).save(tmp_path / "files" / name)
    (tmp_path / "files" / "broken.png").write_bytes(b"no image")
    return [f"--checkpoint=random:{tmp_path}/training.py", f"--source={tmp_path}/files", f"--out={tmp_path}/out"]


def run(*arguments):
    command = [sys.executable, "-m", "jepa_jax.features", "--kind=images", "--workers=0", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


@pytest.mark.slow
def test_features_of_unlabelled_and_labelled_files(flags, tmp_path):
    done = run(*flags, "--tokens=mean,frames,all", "--levels=last,all")
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out"
    with (out / "clips.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["row"], row["clip"], row["label"]) for row in rows] == [
        ("0", "a.png", ""),
        ("1", "red/b.png", "red"),
        ("2", "red/c.png", "red"),
    ]
    described = json.loads((out / "features.json").read_text())["arrays"]
    arrays = {name: np.load(out / f"{name}.npy") for name in described}
    assert {name: list(array.shape) for name, array in arrays.items()} == {
        name: description["shape"] for name, description in described.items()
    }
    assert arrays["mean"].shape == (3, 16)
    assert arrays["all-levels"].shape == (3, 16, 32)  # 4 × 4 tokens of two levels
    np.testing.assert_allclose(arrays["all"].mean(1), arrays["mean"], atol=2e-3)
    np.testing.assert_array_equal(arrays["mean-levels"][:, 16:], arrays["mean"])
    assert np.abs(arrays["mean"][1] - arrays["mean"][0]).max() > 1e-3
    (skip,) = [json.loads(line) for line in (out / "skipped.jsonl").read_text().split("\n") if line]
    assert skip["path"].endswith("broken.png")
    assert sorted(path.name for path in out.iterdir()) == sorted(
        [*(f"{name}.npy" for name in arrays), "clips.csv", "features.json", "skipped.jsonl"]
    )
    assert "Features of 3 clips" in done.stdout

    before = (out / "mean.npy").stat().st_mtime_ns
    assert run(*flags, "--tokens=mean,frames,all", "--levels=last,all").returncode == 0
    assert (out / "mean.npy").stat().st_mtime_ns == before, "complete arrays must not be written again"


@pytest.mark.slow
def test_features_of_clips_that_are_not_square(flags, tmp_path):
    done = run(*flags, "--tokens=all", "--size=16,24")
    assert done.returncode == 0, done.stderr
    assert np.load(tmp_path / "out" / "all.npy").shape == (3, 4 * 6, 16)


@pytest.mark.slow
def test_invalid_arguments_print_an_error_without_traceback(flags, tmp_path):
    for arguments, message in [
        (["--tokens=means"], "--tokens: 'means' is not a kind of tokens. Did you mean 'mean'?"),
        (["--size=16,wide"], "--size is '16,wide'; expected SIDE or HEIGHT,WIDTH, as in --size=96,128."),
        (["--levels=7"], "--levels: this encoder has no level '7'; expected one of"),
        ([f"--source={tmp_path}/none"], f"--source.path: {tmp_path}/none does not exist"),
        ([f"--out={tmp_path}"], f"--out: {tmp_path} is not empty (it holds files, training.py); name a new folder."),
    ]:
        done = run(*flags, *arguments)
        assert done.returncode == 1
        assert message in done.stderr
        assert "Traceback" not in done.stderr
