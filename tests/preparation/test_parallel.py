"""Several processes: results in order, errors handed on, and nothing left behind."""

import multiprocessing
import os
import pathlib

import pytest

from jepa_jax import progress
from jepa_jax.data.preparation import parallel


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
def test_results_come_in_the_order_of_the_tasks(processes):
    assert _run([3, 1, 2], processes) == [9, 1, 4]
    # A worker that starts when all is done already would not find what it is given.
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_the_error_of_a_task_ends_all_and_leaves_no_process():
    with pytest.raises(ValueError, match="-1 is below zero"):
        _run([-1, *range(100)], 3)
    assert not multiprocessing.active_children()


def test_a_worker_that_dies_is_an_error_that_says_what_to_do():
    with progress.Progress(2, "numbers", name="deaths") as bar, pytest.raises(parallel.PrepareError, match="--workers"):
        parallel.run(_die, [1, 2], 1, bar)


def _die(number: int, tick: parallel.Tick) -> None:
    os._exit(number)
