import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jepa_jax.data import sampling


def test_single_source_gives_each_item_once_per_epoch_in_a_new_order():
    order = sampling.Order([7], [1.0], seed=3)
    epochs = [[order[e * 7 + i] for i in range(7)] for e in range(6)]
    for e, draws in enumerate(epochs):
        assert sorted(draw.item for draw in draws) == list(range(7))
        assert {draw.epoch for draw in draws} == {e}
    assert len({tuple(draw.item for draw in draws) for draws in epochs}) > 3


def test_mixed_sources_follow_their_weights_and_give_each_item_once_per_epoch():
    sizes, weights = [50, 0, 300, 1], [0.2, 0.0, 0.7, 0.1]
    order = sampling.Order(sizes, weights, seed=0)
    draws = [order[i] for i in range(4096)]
    counts = np.bincount([draw.source for draw in draws], minlength=4)
    np.testing.assert_allclose(counts / len(draws), weights, atol=0.002)
    for source in (0, 2, 3):
        epochs = [[d.item for d in draws if d.source == source and d.epoch == e] for e in range(2)]
        for items in epochs:
            assert sorted(items) == list(range(sizes[source]))
    # The order is not periodic: the gaps between draws of a source vary.
    gaps = np.diff([i for i, draw in enumerate(draws) if draw.source == 0])
    assert len(set(gaps.tolist())) > 5


def test_draws_depend_only_on_seed_and_index():
    make = lambda seed: sampling.Order([50, 300], [1.0, 3.0], seed)  # noqa: E731
    late_first = make(5)
    late = [late_first[i] for i in (10**6, 3, 0)]
    early_first = make(5)
    assert [early_first[i] for i in (0, 3, 10**6)] == late[::-1]
    assert [make(6)[i][:3] for i in range(20)] != [make(5)[i][:3] for i in range(20)]
    seeds = {rng.integers(2**62) for i in range(100) for rng in make(5)[i].generators()}
    assert len(seeds) == 200


@pytest.mark.parametrize("seed", [0, 239, 2**31, 2**32 - 1, 2**40])
def test_random_access_to_late_draws_is_fast(seed):
    order = sampling.Order([1000, 7], [0.9, 0.1], seed)
    start = time.process_time()
    for index in range(10**9, 10**9 + 500):
        order[index]
    order[10**13]
    assert time.process_time() - start < 1.0  # about 15 ms; iterating to these indices would take hours


def rows_of(order, *arguments):
    return sampling.LocalRows([order], [1.0], 1, *arguments)


def test_rows_of_all_processes_are_disjoint_and_cover_the_batch():
    order = sampling.Order([100, 30], [0.5, 0.5], seed=1)
    whole = rows_of(order, 6, range(6), 0, 4)
    parts = [rows_of(order, 6, rows, 0, 4) for rows in ([0, 1, 2], [5, 3, 4])]
    assert len(whole) == 24
    assert [len(part) for part in parts] == [12, 12]
    for step in range(4):
        held = [parts[0][step * 3 + j] for j in range(3)] + [parts[1][step * 3 + j] for j in (1, 2, 0)]
        assert held == [whole[step * 6 + row] for row in range(6)]


def test_draws_do_not_depend_on_the_start_step():
    order = sampling.Order([100], [1.0], seed=1)
    whole, rest = rows_of(order, 4, range(4), 0, 10), rows_of(order, 4, range(4), 7, 10)
    assert [rest[j] for j in range(len(rest))] == [whole[j] for j in range(28, 40)]
    assert len(rows_of(order, 4, range(4), 10, 10)) == 0


@given(st.integers(1, 400), st.integers(1, 20), st.integers(1, 10), st.integers(0, 2**32))
def test_windows_are_in_range_and_repeat_the_last_frame_only_if_short(count, frames, step, seed):
    window = sampling.random_window(count, frames, step, np.random.default_rng(seed))
    assert len(window) == frames
    assert window.min() >= 0
    assert window.max() < count
    steps = np.diff(window)
    if (frames - 1) * step < count:
        assert (steps == step).all()
    else:
        assert window[0] == 0
        assert window[-1] == count - 1
        assert ((steps == step) | (window[1:] == count - 1)).all()


def test_window_starts_are_uniform():
    rng = np.random.default_rng(0)
    starts = [sampling.random_window(20, 4, 5, rng)[0] for _ in range(5000)]
    np.testing.assert_allclose(np.bincount(starts, minlength=5) / 5000, 1 / 5, atol=0.02)


@pytest.mark.parametrize(
    ("fps", "frame_step", "target_fps", "expected"),
    [
        (25, 2, 0, 2),
        (25, 1, 16, 1),
        (29.97, 1, 16, 1),
        (32, 1, 16, 2),
        (31.2, 5, 16, 2),
        (12, 1, 16, 1),
        (60, 1, 4, 15),
    ],
)
def test_stride_follows_frame_step_or_target_fps(fps, frame_step, target_fps, expected):
    assert sampling.stride(float(fps), frame_step, target_fps) == expected


def test_spread_window_spans_the_video():
    assert sampling.spread_window(100, 16).tolist() == [0, 6, 13, 19, 26, 33, 39, 46, 52, 59, 66, 72, 79, 85, 92, 99]
    assert sampling.spread_window(3, 6).tolist() == [0, 1, 2, 2, 2, 2]
    assert sampling.spread_window(1, 1).tolist() == [0]


@pytest.mark.parametrize(("count", "starts"), [(20, [6]), (20, [0, 13]), (20, [0, 6, 13]), (7, [0, 0]), (3, [0, 0])])
def test_nth_window_spreads_windows_over_the_video(count, starts):
    """Each window has four frames at frame step 2, so it spans seven."""
    for number, start in enumerate(starts):
        expected = np.minimum(start + 2 * np.arange(4), count - 1)
        np.testing.assert_array_equal(sampling.nth_window(count, 4, 2, number, len(starts)), expected)


def test_linspace_windows_match_the_study():
    first = sampling.random_linspace_window(33, 16, 2, np.random.default_rng(0))  # only one start is possible
    assert first.tolist() == [0, 2, 4, 6, 8, 10, 12, 14, 17, 19, 21, 23, 25, 27, 29, 31]
    rng = np.random.default_rng(0)
    windows = np.stack([sampling.random_linspace_window(40, 16, 2, rng) for _ in range(2000)])
    assert (windows - windows[:, :1] == first).all()
    np.testing.assert_allclose(np.bincount(windows[:, 0], minlength=8) / 2000, 1 / 8, atol=0.03)
    consecutive = sampling.random_linspace_window(17, 16, 1, np.random.default_rng(0))
    assert consecutive.tolist() == list(range(16))


def test_linspace_windows_of_short_videos_repeat_the_last_frame():
    rng = np.random.default_rng(0)
    spread = [0, 2, 4, 6, 8, 11, 13, 15, 17, 19]
    assert sampling.random_linspace_window(20, 16, 2, rng).tolist() == spread + [19] * 6
    assert sampling.random_linspace_window(1, 4, 2, rng).tolist() == [0, 0, 0, 0]


@given(st.integers(1, 400), st.integers(1, 20), st.integers(1, 10), st.integers(0, 2**32))
def test_linspace_windows_are_in_range(count, frames, step, seed):
    window = sampling.random_linspace_window(count, frames, step, np.random.default_rng(seed))
    assert window.shape == (frames,)
    assert window.min() >= 0
    assert window.max() < count
    assert (np.diff(window) >= 0).all()
