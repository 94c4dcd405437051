"""Several workers share a study: every run exactly once, whoever is killed."""

import concurrent.futures
import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import unittest.mock

import pytest
import tiny_study
from waiting import wait_until

from jepa_jax.files import lock_stores, ownership
from jepa_jax.files.lock_owner import Owner
from jepa_jax.files.paths import locate
from jepa_jax.study import results_folder
from jepa_jax.study.engine.claims import Claims
from jepa_jax.study.engine.runner import StoppedError
from jepa_jax.study.engine.worker import Worker

REPOSITORY = pathlib.Path(__file__).parents[2]


def worker(folder, plan=None, **options):
    plan = plan or tiny_study.plan()
    runner = tiny_study.FakeRunner(plan=plan, folder=locate(folder / "runs"), **options)
    return Worker(plan, locate(folder), runner, sleep=lambda _: time.sleep(0.01))


def names(plan):
    return sorted(run.name for run in plan.runs)


def test_every_run_gets_a_record_and_its_folder_is_deleted(tmp_path):
    one = worker(tmp_path)
    one.work()
    records = results_folder.read_runs(one.results)
    assert sorted(f"{record.recipe}-{record.seed}" for record in records) == names(one.plan)
    assert [record.settings_sha256 for record in records if record.recipe == "ld"] == [one.plan.runs[2].settings_sha256]
    controls = results_folder.read_controls(one.results)
    assert controls is not None
    assert controls.accuracies[0].row == "untrained"
    assert controls.labels["order"].chance == pytest.approx(1 / 6)
    assert controls.representation == {"untrained": {"rankme": 2.0}}
    assert not [path for path in (tmp_path / "runs").rglob("*") if path.name.isdecimal()]
    assert not list((tmp_path / "claims").iterdir())
    before = one.runner.finished()
    worker(tmp_path).work()
    assert worker(tmp_path).runner.finished() == before


def test_checkpoints_are_kept_if_asked_for(tmp_path):
    one = worker(tmp_path, tiny_study.plan(keep_checkpoints=True))
    one.work()
    assert all(one.runner.workdir(run).exists() for run in one.plan.runs)


def test_failed_run_is_recorded_and_the_rest_goes_on(tmp_path):
    one = worker(tmp_path, errors={"fwm-239": FloatingPointError("not finite"), "ld-239": MemoryError("full")})
    one.work()
    records = {f"{r.recipe}-{r.seed}": r for r in results_folder.read_runs(one.results)}
    assert sorted(records) == names(one.plan)
    assert records["fwm-239"].error == "FloatingPointError: not finite"
    assert records["ld-239"].error == "MemoryError: full"
    assert {r.status for name, r in records.items() if name not in ("fwm-239", "ld-239")} == {"done"}
    assert one.runner.workdir(one.plan.runs[1]).exists()  # to find out what happened


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), StoppedError("SIGTERM"), KeyboardInterrupt()]
)
def test_run_that_is_not_to_blame_has_no_record_and_its_claim_is_released(tmp_path, error):
    one = worker(tmp_path, errors={"fwm-239": error})
    with pytest.raises(type(error)):
        one.work()
    assert [f"{r.recipe}-{r.seed}" for r in results_folder.read_runs(one.results)] == ["baseline-239"]
    assert not list((tmp_path / "claims").iterdir())
    worker(tmp_path).work()
    assert sorted(worker(tmp_path).runner.finished()) == names(one.plan)


def test_workers_divide_the_runs_among_them(tmp_path):
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(worker(tmp_path, pause=0.005).work) for _ in range(4)]:
            done.result()
    one = worker(tmp_path)
    assert sorted(one.runner.finished()) == names(one.plan)
    assert len(results_folder.read_runs(one.results)) == len(one.plan.runs)


def test_run_whose_claim_was_taken_over_writes_no_record(tmp_path, capsys):
    def take_over(run):
        (tmp_path / "claims" / f"{run.name}.lock").unlink()
        file = results_folder.run_file(tmp_path / "results", run.recipe, run.seed)
        results_folder.write(file, worker(tmp_path).runner.blank(run))

    one = worker(tmp_path, before=take_over)
    one.work()
    assert "Its new owner makes this record." in capsys.readouterr().err
    assert all(not record.accuracies for record in results_folder.read_runs(one.results))


def test_leftover_checkpoints_of_finished_runs_are_deleted(tmp_path):
    one = worker(tmp_path)
    one.work()
    left = one.runner.workdir(one.plan.runs[0])
    left.mkdir(parents=True)
    worker(tmp_path).work()
    assert not left.exists()


def claim_of(folder, name, **changes):
    """A lock file as another process would write it."""
    folder.mkdir(exist_ok=True)
    owner = dataclasses.replace(Owner.this_process(), **changes)
    (folder / f"{name}.lock").write_text(lock_stores.text(owner))


def test_claim_of_a_dead_process_is_free_and_that_of_a_live_one_is_not(tmp_path):
    claims = Claims(tmp_path)
    claim_of(tmp_path, "alive")
    claim_of(tmp_path, "dead", started="1")
    assert claims.take("alive") is None
    lock = claims.take("dead")
    assert lock is not None
    assert Claims(tmp_path).take("dead") is None
    lock.release()


def test_claim_of_another_machine_is_free_once_it_is_not_renewed(tmp_path, monkeypatch):
    now = [0.0]
    claims = Claims(tmp_path, clock=lambda: now[0])
    claim_of(tmp_path, "a", machine="elsewhere")
    taken, lock = [], unittest.mock.Mock(spec=ownership.Lock)
    monkeypatch.setattr(ownership, "acquire", lambda file, *_: taken.append(file.name) or lock)
    assert claims.take("a") is None
    now[0] = ownership.STALE_S - 1
    os.utime(tmp_path / "a.lock", (5, 5))  # renewed
    assert claims.take("a") is None
    now[0] += ownership.STALE_S - 1
    assert claims.take("a") is None
    assert not taken
    now[0] += 1
    assert claims.take("a") is lock
    assert taken == ["a.lock"]


FAKE = """
import os, pathlib, sys, time
sys.path[:0] = sys.argv[2:]
import tiny_study
from jepa_jax.files.paths import locate
from jepa_jax.study.engine.worker import Worker

folder = locate(sys.argv[1])
plan = tiny_study.plan(primary_seeds=8)
while True:
    pids = []
    for _ in range(int(sys.stdin.readline() or 0)):
        pid = os.fork()
        if not pid:
            os.dup2(2, 1)
            runner = tiny_study.FakeRunner(plan=plan, folder=folder / "runs", pause=0.03)
            Worker(plan, folder, runner, lambda _: time.sleep(0.05)).work()
            os._exit(0)
        pids.append(pid)
    if not pids:
        break
    print(*pids, flush=True)
    print(*(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids), flush=True)
"""


@pytest.mark.slow
def test_four_processes_of_which_some_are_killed_do_every_run_once(tmp_path):
    plan = tiny_study.plan(primary_seeds=8)
    alone = worker(tmp_path / "alone", plan)
    alone.work()
    folder = tmp_path / "shared"
    paths = [str(REPOSITORY), str(REPOSITORY / "tests")]
    command = [sys.executable, "-c", FAKE, str(folder), *paths]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("4\n")
        process.stdin.flush()
        pids = list(map(int, process.stdout.readline().split()))
        for number, pid in enumerate(pids[:3], start=1):
            wait_until(lambda n=number: len(results_folder.run_files(folder / "results")) >= 2 * n, process)
            os.kill(pid, signal.SIGKILL)
        codes = list(map(int, process.stdout.readline().split()))
        process.stdin.write("0\n")
        process.stdin.flush()
    assert codes == [-signal.SIGKILL] * 3 + [0]
    finished = worker(folder, plan).runner.finished()
    assert sorted(set(finished)) == names(plan)
    assert len(finished) <= len(plan.runs) + 3  # a run killed between its end and its record ends again

    def reproducible(path):
        return [record.reproducible() for record in results_folder.read_runs(path / "results")]

    assert json.dumps(reproducible(folder)) == json.dumps(reproducible(tmp_path / "alone"))
    assert not [path for path in (folder / "runs").rglob("*") if path.name.isdecimal()]
