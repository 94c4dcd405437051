"""Images in training: as still clips in mixed batches, or as single frames in separate steps."""

import dataclasses

import numpy as np
import pytest

from jepa_jax import config, data
from jepa_jax.data.workers import pool

SourceConfig = config.SourceConfig


@pytest.fixture
def settings(clips, pictures):
    """settings(steps, …) mixes half clips, a quarter sprites and a quarter images, which are single frames."""

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


def test_batch_has_either_single_frames_or_clips(settings):
    for batch in read(settings(24)):
        single = batch["video"].shape[1] == 1
        assert batch["video"].shape == (4, 1 if single else 4, 16, 16, 3)
        assert set(batch["source"].tolist()) <= ({1} if single else {0, 2})


@pytest.mark.slow
def test_image_steps_follow_the_weights_and_use_each_item_once_per_epoch(settings):
    batches = read(settings(256))
    images = [batch for batch in batches if batch["video"].shape[1] == 1]
    assert len(images) == 64
    order = np.flatnonzero([batch["video"].shape[1] == 1 for batch in batches])
    assert len(set(np.diff(order).tolist())) > 3  # not periodic, which could coincide with the logging interval
    assert sorted(np.bincount(np.concatenate([batch["item"] for batch in images])).tolist()) == [42] * 2 + [43] * 4


@pytest.mark.slow
def test_steps_do_not_depend_on_start_rows_or_workers(settings):
    whole = read(settings(20))
    for batch, other in zip(whole[7:], read(settings(20, workers=2), start_step=7, rows=[3, 1]), strict=True):
        for key in batch:
            np.testing.assert_array_equal(batch[key][[3, 1]], other[key])


def test_sources_of_one_kind_give_steps_of_one_kind(clips, pictures, settings):
    only = {"pictures": SourceConfig(kind="images", path=str(pictures))}
    assert {batch["video"].shape[1] for batch in read(settings(5, sources=only))} == {1}
    only = {"clips": SourceConfig(path=str(clips))}
    as_frames, as_clips = read(settings(5, sources=only)), read(settings(5, sources=only, images="clips"))
    for a, b in zip(as_frames, as_clips, strict=True):
        np.testing.assert_array_equal(a["video"], b["video"])


def test_image_sources_alone_reserve_memory_for_single_frames(settings, pictures, monkeypatch):
    reserved, prefetcher = [], pool.BatchPrefetcher
    monkeypatch.setattr(pool, "BatchPrefetcher", lambda *args: reserved.append(args[2]) or prefetcher(*args))
    mixed = settings(4)
    images = {"pictures": mixed.data.sources["pictures"]}
    for sources in (mixed.data.sources, images):
        (batch, *_) = read(dataclasses.replace(mixed, data=dataclasses.replace(mixed.data, sources=sources)))
        assert batch["video"].nbytes <= reserved[-1]
    assert reserved == [4 * 4 * 16 * 16 * 3, 4 * 16 * 16 * 3]
