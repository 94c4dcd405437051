"""Still images in training: as still clips among the others, or as single frames in steps of their own."""

import dataclasses

import numpy as np
import pytest

from jepa_jax import config, data
from jepa_jax.data.workers import pool

SourceConfig = config.SourceConfig


@pytest.fixture
def settings(clips, pictures):
    """settings(steps, …): half clips, a quarter sprites, a quarter images, as single frames."""

    def make(steps, **changes):
        sources = {
            "clips": SourceConfig(path=str(clips), weight=0.5),
            "pictures": SourceConfig(kind="images", path=str(pictures), weight=0.25),
            "sprites": SourceConfig(kind="sprites", weight=0.25),
        }
        return config.Config(
            steps=steps,
            batch_size=4,
            clip=config.ClipConfig(frames=4, size=16),
            data=config.DataConfig(**{"sources": sources, "workers": 0, "images": "frames"} | changes),
        )

    return make


def read(settings, **arguments):
    batches = data.TrainBatches(settings, **arguments)
    try:
        return list(batches)
    finally:
        batches.close()


def test_a_batch_is_of_single_frames_or_of_clips(settings):
    for batch in read(settings(24)):
        single = batch["video"].shape[1] == 1
        assert batch["video"].shape == (4, 1 if single else 4, 16, 16, 3)
        assert set(batch["source"].tolist()) <= ({1} if single else {0, 2})


@pytest.mark.slow
def test_steps_of_images_come_by_weight_and_every_item_once_an_epoch(settings):
    batches = read(settings(256))
    images = [batch for batch in batches if batch["video"].shape[1] == 1]
    assert len(images) == 64
    order = np.flatnonzero([batch["video"].shape[1] == 1 for batch in batches])
    assert len(set(np.diff(order).tolist())) > 3  # not a fixed pattern, which lines of the log might fall in with
    assert sorted(np.bincount(np.concatenate([batch["item"] for batch in images])).tolist()) == [42] * 2 + [43] * 4


@pytest.mark.slow
def test_steps_do_not_depend_on_start_rows_or_workers(settings):
    whole = read(settings(20))
    for batch, other in zip(whole[7:], read(settings(20, workers=2), start_step=7, rows=[3, 1]), strict=True):
        for key in batch:
            np.testing.assert_array_equal(batch[key][[3, 1]], other[key])


def test_without_images_or_with_nothing_else_all_steps_are_alike(clips, pictures, settings):
    only = {"pictures": SourceConfig(kind="images", path=str(pictures))}
    assert {batch["video"].shape[1] for batch in read(settings(5, sources=only))} == {1}
    only = {"clips": SourceConfig(path=str(clips))}
    assert_same = read(settings(5, sources=only)), read(settings(5, sources=only, images="clips"))
    for ours, theirs in zip(*assert_same, strict=True):
        np.testing.assert_array_equal(ours["video"], theirs["video"])


def test_memory_for_batches_is_that_of_single_frames_where_all_sources_are_images(settings, pictures, monkeypatch):
    asked, ahead = [], pool.BatchPrefetcher
    monkeypatch.setattr(pool, "BatchPrefetcher", lambda *given: asked.append(given[2]) or ahead(*given))
    mixed = settings(4)
    images = {"pictures": mixed.data.sources["pictures"]}
    for sources in (mixed.data.sources, images):
        (batch, *_) = read(dataclasses.replace(mixed, data=dataclasses.replace(mixed.data, sources=sources)))
        assert batch["video"].nbytes <= asked[-1]
    assert asked == [4 * 4 * 16 * 16 * 3, 4 * 16 * 16 * 3]
