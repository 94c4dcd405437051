"""The parity command prints one row per case and exits with 1 if a float32 result is not within tolerance."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from jepa_jax.parity import __main__ as parity
from jepa_jax.parity import comparison, input_cases

KEPT = ("ld", "kinematic")


@pytest.fixture
def folder(golden_folder, tmp_path):
    """folder(ld__loss=…): a folder with two of the objectives, whose arrays a test may change."""
    meta = json.loads((golden_folder / "meta.json").read_text())
    meta["objectives"] = {name: meta["objectives"][name] for name in KEPT}

    def write(**changes):
        with np.load(golden_folder / "objectives.npz") as data:
            arrays = dict(data)
        for name, change in changes.items():
            key = name.replace("__", "/")
            arrays[key] = change(arrays[key])
        np.savez(tmp_path / "objectives.npz", **arrays)
        (tmp_path / "meta.json").write_text(json.dumps(meta))
        return tmp_path

    return write


def rows(text):
    return {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.startswith("objectives/")}


def test_matching_arrays_exit_with_0(folder, capsys):
    assert parity.main(["parity", str(folder())]) == 0
    out = capsys.readouterr().out
    table = rows(out)
    assert {f"objectives/{name}" for name in KEPT} <= set(table)
    assert all(row[2] == "yes" and float(row[0]) <= 1e-5 for row in table.values())
    assert "0 cases not within tolerance" in out


def test_differing_arrays_exit_with_1(folder, capsys):
    path = folder(ld__loss=lambda x: x + 4e-6, kinematic__grad__h=lambda x: x * 1.0001)
    assert parity.main(["parity", str(path)]) == 1
    table = rows(out := capsys.readouterr().out)
    assert [name for name, row in table.items() if row[2] == "NO"] == ["objectives/ld", "objectives/kinematic"]
    assert "2 cases not within tolerance" in out


@pytest.mark.slow
def test_bfloat16_reports_differences_without_failing(folder, capsys):
    with flagsaver.flagsaver((parity.PRECISION, "bfloat16")):
        assert parity.main(["parity", str(folder())]) == 0
    table = rows(capsys.readouterr().out)
    assert 1e-5 < float(table["objectives/ld"][0]) < 1e-1


def test_folder_without_golden_numbers_exits_with_1(tmp_path, capsys):
    assert parity.main(["parity", str(tmp_path)]) == 1
    assert "has no meta.json" in capsys.readouterr().err
    assert flags.FLAGS["precision"].value == "float32"


@pytest.mark.parametrize(
    "case",
    [
        case
        for case in input_cases.cases(comparison.Folder(pathlib.Path(__file__).parent.parent / "golden"))
        if not case.name.startswith("mask_statistics")
    ],
    ids=lambda case: case.name,
)
def test_inputs_match_the_golden_ones(case):
    assert comparison.run(case).failed == []


def test_nan_or_another_shape_is_never_within_tolerance():
    nan = comparison.Comparison("x", np.array([1.0, np.nan]), np.ones(2))
    shape = comparison.Comparison("x", np.ones((2, 1)), np.ones(2))
    assert not nan.ok
    assert not shape.ok
    assert comparison.Comparison("x", np.ones(2), np.ones(2), 0.0).ok


@pytest.mark.slow
def test_parity_runs_as_a_module(tmp_path):
    run = subprocess.run(
        [sys.executable, "-m", "jepa_jax.parity", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 1
    assert run.stderr == f"Error: {tmp_path} has no meta.json; expected a folder of golden numbers.\n"
