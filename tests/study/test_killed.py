"""The command, with true training of a tiny encoder: killed and continued, it makes the same records bit by bit."""

import json
import os
import pathlib
import signal
import subprocess
import sys

import pytest
import tiny_study
from waiting import wait_until

from jepa_jax.settings import to_dict
from jepa_jax.study import results_folder

pytestmark = pytest.mark.slow

REPOSITORY = pathlib.Path(__file__).parents[2]
CONFIG_FILE = """
from jepa_jax.settings import parse, to_config_dict
from jepa_jax.study.study_config import StudyConfig

def get_config():
    return to_config_dict(parse(StudyConfig, {settings}))
"""


@pytest.fixture(scope="module")
def config_file(tmp_path_factory):
    file = tmp_path_factory.mktemp("config") / "tiny.py"
    settings = to_dict(tiny_study.STUDY) | {"primary_seeds": 2, "secondary": ()}
    file.write_text(CONFIG_FILE.replace("{settings}", repr(settings)))
    return file


def start(config_file, folder, *flags):
    """Starts the command on one device."""
    environment = os.environ | {
        "XLA_FLAGS": " ".join(flag for flag in os.environ["XLA_FLAGS"].split() if "device_count" not in flag),
        "PYTHONPATH": os.pathsep.join(map(str, (REPOSITORY, REPOSITORY / "tests"))),
    }
    command = [sys.executable, "-m", "jepa_jax.study", f"--config={config_file}", f"--workdir={folder}", *flags]
    with (folder.parent / f"{folder.name}.log").open("a") as output:
        return subprocess.Popen([*command, "--compilation_cache="], env=environment, stdout=output, stderr=output)


@pytest.fixture(scope="module")
def whole(config_file, tmp_path_factory):
    """The results of an uninterrupted study."""
    folder = tmp_path_factory.mktemp("whole") / "study"
    assert start(config_file, folder).wait() == 0, (folder.parent / "study.log").read_text()
    return folder / "results"


def content(results):
    """Everything in a folder of results but times, machine and software."""
    controls = results_folder.read_controls(results)
    assert controls is not None
    return json.dumps(
        [
            [record.reproducible() for record in results_folder.read_runs(results)],
            [(row.row, row.label, row.features, row.correct) for row in controls.accuracies],
            {name: dict(measures) for name, measures in controls.representation.items()},
            (results / "study.json").read_text(),
        ]
    )


def test_records_have_all_probes_and_measures(whole):
    records = results_folder.read_runs(whole)
    assert [(r.recipe, r.seed) for r in records] == [(n, s) for n in ("baseline", "fwm") for s in (239, 240)]
    for record in records:
        assert record.status == "done"
        assert (record.training.steps, record.training.clips) == (6, 48)
        assert record.training.flops_per_step
        assert record.curves["step"] == (3, 6)
        assert {"loss", "target_rank", "target_std", "loss/prediction"} <= record.curves.keys()
        assert record.audit.step == (0 + 1, 3 + 1)
        assert ("factorization_static" in record.audit.terms) == (record.recipe == "fwm")
        found = {(row.clips_seen, row.label_fraction, row.features, row.label) for row in record.accuracies}
        labels = ("appearance", "motion", "order")
        assert {
            (seen, share, "all", label) for seen, share in ((24, 1.0), (48, 1.0), (48, 0.5)) for label in labels
        } | {(48, 1.0, f"{half} half", label) for half in ("appearance", "dynamics") for label in labels} == found
        assert {"rankme", "lidar", "velocity_r2"} <= record.representation.keys()
    controls = results_folder.read_controls(whole)
    assert controls is not None
    assert {(row.row, row.label_fraction, row.features) for row in controls.accuracies} == {
        *(("untrained", share, "all") for share in (0.5, 1.0)),
        *(("raw pixels", share, "all") for share in (0.5, 1.0)),
        *(("untrained", 1.0, f"{half} half") for half in ("appearance", "dynamics")),
    }
    assert controls.labels["motion"].test == 24
    assert not [path for path in (whole.parent / "runs").rglob("*") if path.is_file()]


def test_study_killed_at_three_moments_makes_the_same_records(config_file, whole, tmp_path):
    folder = tmp_path / "study"
    workdir = folder / "runs" / "fwm" / "239"
    moments = [
        lambda: (folder / "results" / "controls.json").exists(),
        lambda: (workdir / "checkpoints" / "4").exists(),
        lambda: (workdir / "study_probes.jsonl").exists(),
    ]
    for reached in moments:
        process = start(config_file, folder)
        wait_until(reached, process)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (folder / "results" / "fwm" / "239.json").exists()
    assert start(config_file, folder).wait() == 0
    assert content(folder / "results") == content(whole)


def test_study_stopped_by_sigterm_continues_with_two_jobs(config_file, whole, tmp_path):
    folder = tmp_path / "study"
    process = start(config_file, folder, "--jobs=2")
    wait_until(lambda: (folder / "runs" / "fwm" / "239" / "metrics.jsonl").exists(), process)
    process.terminate()
    assert process.wait() == 143
    assert start(config_file, folder, "--jobs=2").wait() == 0
    assert content(folder / "results") == content(whole)
