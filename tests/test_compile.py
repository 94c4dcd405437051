"""`python -m jepa_jax.compile`: error messages, and reports from the TPU compiler if it is installed."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
SMALL = ["--config.encoder.size=32x4x2", "--config.predictor.size=16x1x2", "--config.clip.frames=4"]


def run(*arguments):
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"} | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "jepa_jax.compile", "--config=configs/quickstart.py", *arguments],
        capture_output=True, text=True, timeout=600, cwd=ROOT, env=environment,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--topology=v7:2x2"], "'v7:2x2' is not a topology"),
        (["--topology=cpu:2", "--global-batch=3"], "config.batch_size is 3, not a multiple of the 2 devices"),
        (["--topology=cpu:2", "--global_batch=3"], "--global_batch=3: "),
        (["--topology=cpu:2", "--global_batch=many"], "--global_batch is 'many'"),
        (["--topology=cpu:2", "--global_batch=2,4"], "only with --sweep"),
    ],
)
def test_invalid_arguments_print_an_error(forks, arguments, message):
    result = forks.run("jepa_jax.compile", "--config=configs/quickstart.py", *arguments, cwd=ROOT)
    assert result.returncode == 1
    assert result.stderr.startswith("Error: ")
    assert message in result.stderr


@pytest.mark.slow
def test_report_for_a_tpu_slice():
    pytest.importorskip("libtpu", reason="the TPU compiler is not installed (extra `tpu`)")
    result = run("--topology=v5e:2x2", *SMALL)
    assert result.returncode == 0, result.stderr
    for part in ("v5e:2x2 (4 chips)", "fits in 16.00 GiB", "all-reduce", "binds", "clips/s", "chip-hours"):
        assert part in result.stdout


@pytest.mark.slow
def test_step_too_large_for_a_tpu_is_reported():
    pytest.importorskip("libtpu", reason="the TPU compiler is not installed (extra `tpu`)")
    result = run("--topology=v5e:1x1", "--global-batch=262144", *SMALL)
    assert result.returncode == 2, result.stderr
    assert "DOES NOT FIT in" in result.stdout
    assert "--config.batch_size=" in result.stdout


@pytest.mark.slow
def test_sweep_prints_a_table_of_remat_policies():
    result = run("--topology=cpu:2", "--sweep", "--global-batch=2", *SMALL)
    assert result.returncode == 0, result.stderr
    rows = [line.split(" | ") for line in result.stdout.splitlines()[2:]]
    assert [(row[0].strip("| "), row[1]) for row in rows] == [
        ("2", policy) for policy in ("none", "dots", "full", "level")
    ]
