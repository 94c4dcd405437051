"""Batches depend only on (config, seed, step), not on workers, processes or the start step."""

import dataclasses

import numpy as np
import pytest

from jepa_jax import config, data
from jepa_jax.data import sampling

SourceConfig = config.SourceConfig


@pytest.fixture
def settings(clips, pictures):
    sources = {
        "clips": SourceConfig(path=str(clips), weight=0.6, frame_step=2),
        "pictures": SourceConfig(kind="images", path=str(pictures), weight=0.4),
    }
    return config.Config(
        steps=12,
        batch_size=8,
        clip=config.ClipConfig(frames=4, size=16),
        data=config.DataConfig(sources=sources, workers=0),
    )


def read(settings, **arguments):
    batches = data.TrainBatches(settings, **arguments)
    try:
        return list(batches)
    finally:
        batches.close()


def with_workers(settings, workers):
    return dataclasses.replace(settings, data=dataclasses.replace(settings.data, workers=workers))


def assert_equal(got, wanted):
    assert len(got) == len(wanted)
    for a, b in zip(got, wanted, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])


def put_together(parts):
    return [{key: np.concatenate([part[key] for part in step]) for key in step[0]} for step in zip(*parts, strict=True)]


@pytest.mark.parametrize("processes", [2, 4])
def test_rows_of_several_processes_concatenate_to_the_global_batch(settings, processes):
    """A process holds B / process_count rows, from row process_index · B / process_count."""
    each = settings.batch_size // processes
    parts = [read(settings, rows=range(i * each, (i + 1) * each)) for i in range(processes)]
    assert_equal(put_together(parts), read(settings))


@pytest.mark.slow
def test_batches_after_resuming_do_not_depend_on_workers_or_processes(settings):
    """Two processes without workers run up to step 5, then four processes, one of them with a worker."""
    whole = read(settings)
    first = [read(settings, rows=range(i, i + 4)) for i in (0, 4)]
    assert_equal(put_together(first)[:5], whole[:5])
    rest = [read(with_workers(settings, int(i == 2)), rows=range(2 * i, 2 * i + 2), start_step=5) for i in range(4)]
    assert_equal(put_together(rest), whole[5:])


@pytest.mark.slow
def test_batches_with_four_workers_match_those_without(settings):
    assert_equal(read(with_workers(settings, 4)), read(settings))


def test_different_seeds_give_different_batches(settings):
    other = read(dataclasses.replace(settings, seed=1, steps=2))
    assert any((a["item"] != b["item"]).any() for a, b in zip(other, read(settings), strict=False))


def test_late_start_step_draws_only_its_own_clips(settings, monkeypatch):
    """None of the 240,000 earlier clips is drawn."""
    indices, draw = [], sampling.LocalRows.__getitem__

    def counted(rows, index):
        indices.append(index)
        return draw(rows, index)

    monkeypatch.setattr(sampling.LocalRows, "__getitem__", counted)
    late = dataclasses.replace(settings, steps=30_001)
    (batch,) = read(late, start_step=30_000)
    assert len(set(indices)) == 8
    assert batch["video"].shape == (8, 4, 16, 16, 3)
