"""The commands of the README, run as a user runs them."""

import json
import os
import pathlib
import resource
import subprocess
import sys

import pytest

from jepa_jax.run_dir.workdir import load_config

REPOSITORY = pathlib.Path(__file__).parent.parent
GIB = 2**20  # in kilobytes, the unit of getrusage


def run(*command, timeout):
    """Runs a command on the devices of this machine, without the eight virtual ones of the other tests."""
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    done = subprocess.run(
        [sys.executable, "-m", *map(str, command)],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.release
def test_quickstart_learns_motion_order_and_appearance(tmp_path):
    """One command trains and evaluates in 4 GiB. The confidence intervals are above those of the untrained encoder."""
    done = run("jepa_jax.train", "--config=configs/quickstart.py", f"--workdir={tmp_path / 'run'}", timeout=900)
    assert "order" in done.stdout
    record = json.loads((tmp_path / "run" / "results.json").read_text())
    results = {(result["task"], result["features"]): result for result in record["results"]}
    tasks = {"appearance", "motion", "order"}
    assert {task for task, _ in results} == tasks
    for task in tasks:
        assert results[task, "trained"]["interval"][0] > results[task, "untrained"]["interval"][1]
    assert all((task, "untrained") in results for task, _ in results)
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 4 * GIB


@pytest.mark.release
def test_training_and_evaluation_on_own_videos_and_images(tmp_path, real_data):
    """Trains a small model on real clips and images, then probes it on held-out sequences and on images."""
    videos, images, workdir = real_data / "ut_interaction", real_data / "cifar10_small", tmp_path / "run"
    holdout = "seq(17|18|19|20)"
    run(
        "jepa_jax.train",
        "--config=configs/folder.py",
        f"--workdir={workdir}",
        f"--config.data.path={videos}",
        f"--config.data.sources.videos.exclude={holdout}",
        "--config.data.sources.videos.weight=0.8",
        f"--config.data.sources.images.path={images / 'train'}",
        "--config.data.sources.images.weight=0.2",
        "--config.steps=5",
        "--config.batch_size=4",
        "--config.clip.size=64",
        "--config.encoder.size=32x4x2",
        "--config.predictor.size=16x1x2",
        "--config.log.every=1",
        timeout=300,
    )
    assert load_config(workdir).data.sources["images"].weight == 0.2
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [1, 2, 3, 4, 5]
    assert not (workdir / "skipped.jsonl").exists()

    for config, *flags in (
        (
            "folder",
            f"--config.train.path={videos}",
            f"--config.holdout={holdout}",
            "--config.probes.attentive.epochs=2",
        ),
        ("images", f"--config.train.path={images / 'test'}", "--config.holdout=0[0-4][0-9][0-9]"),
    ):
        out = tmp_path / f"{config}.json"
        run(
            "jepa_jax.evaluate",
            f"--config=configs/eval/{config}.py",
            f"--checkpoint={workdir}",
            f"--out={out}",
            *flags,
            timeout=300,
        )
        results = json.loads(out.read_text())["results"]
        ((classes, train, test),) = {(len(r["class_names"]), r["train"], r["test"]) for r in results}
        assert (classes, train + test) == {"folder": (6, 120), "images": (10, 2000)}[config]
        assert test > 0
        assert all(0 <= r["accuracy"] <= 1 for r in results)


@pytest.mark.release
def test_real_clips_in_many_formats_are_decoded_or_listed_as_skipped(tmp_path, real_data):
    """Training reads every file of the folder. Files that are not decoded are in skipped.jsonl with a reason."""
    workdir = tmp_path / "run"
    done = run(
        "jepa_jax.train",
        "--config=configs/folder.py",
        f"--workdir={workdir}",
        f"--config.data.path={real_data / 'formats'}",
        "--config.steps=6",
        "--config.batch_size=4",
        "--config.clip.size=32",
        "--config.encoder.size=32x4x2",
        "--config.predictor.size=16x1x2",
        "--config.data.max_skip_fraction=0.5",
        timeout=300,
    )
    files = [path for path in (real_data / "formats").iterdir() if path.is_file()]
    assert f"{len(files)} videos" in done.stdout
    skipped = workdir / "skipped.jsonl"
    lines = [json.loads(line) for line in skipped.read_text().splitlines()] if skipped.exists() else []
    assert all(line["reason"] and pathlib.Path(line["path"]).exists() for line in lines)
