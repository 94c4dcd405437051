"""Parallel tasks: results in order, errors raised, and all processes ended."""

import multiprocessing
import os
import pathlib

import pytest

from jepa_jax import progress
from jepa_jax.data.preparation.runners import parallel


@pytest.fixture(autouse=True)
def importable_in_workers(monkeypatch):
    monkeypatch.syspath_prepend(pathlib.Path(__file__).parents[2])


def _square(number: int, tick: parallel.Tick) -> int:
    tick()
    if number < 0:
        raise ValueError(f"{number} is below zero")
    return number**2


def _run(tasks: list[int], processes: int) -> list[int]:
    with progress.Progress(len(tasks), "numbers", name="squares") as bar:
        return parallel.run(_square, tasks, processes, bar)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [0, 3])
def test_results_are_in_task_order(processes):
    assert _run([3, 1, 2], processes) == [9, 1, 4]
    # A worker that starts after all tasks are done would not find its arguments.
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_task_error_is_raised_and_all_processes_end():
    with pytest.raises(ValueError, match="-1 is below zero"):
        _run([-1, *range(100)], 3)
    assert not multiprocessing.active_children()


def test_dead_worker_raises_and_names_the_workers_flag():
    with progress.Progress(2, "numbers", name="deaths") as bar, pytest.raises(parallel.PrepareError, match="--workers"):
        parallel.run(_die, [1, 2], 1, bar)


def _die(number: int, tick: parallel.Tick) -> None:
    os._exit(number)
