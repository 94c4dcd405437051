"""Block masks match the statistics of the study, keep their budgets and follow motion."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jepa_jax import masks
from jepa_jax.masks import block, motion_guided
from jepa_jax.masks.block import BlockMask

GRID = (8, 14, 14)
SMALL = (4, 5, 6)
STUDY = {
    "short_8x0.15": BlockMask(blocks=8, spatial_scale=0.15),
    "long_2x0.7": BlockMask(blocks=2, spatial_scale=0.7),
    "future_4x0.15": BlockMask(blocks=4, spatial_scale=0.15, temporal_keep=0.5),
    "future_1x0.7": BlockMask(blocks=1, spatial_scale=0.7, temporal_keep=0.5),
}
KINDS = {
    "block": BlockMask(blocks=1, spatial_scale=0.4, temporal_scale=0.5),
    "tube": BlockMask(blocks=2, spatial_scale=0.3),
    "multi_block": BlockMask(blocks=4, spatial_scale=0.3, temporal_scale=0.5),
    "future": BlockMask(blocks=2, spatial_scale=0.3, temporal_keep=0.5),
    "future_block": BlockMask(blocks=2, spatial_scale=0.3, temporal_scale=0.5, temporal_keep=0.5),
    "motion": BlockMask(blocks=2, spatial_scale=0.3, motion_strength=2.0),
    "motion_block": BlockMask(blocks=2, spatial_scale=0.3, temporal_scale=0.5, motion_strength=5.0),
}


@pytest.fixture(scope="module")
def statistics(golden_folder):
    return json.loads((golden_folder / "mask_statistics.json").read_text())


def rows(index, height, width):
    """The share of positions in the mask for each row, averaged over clips, time and width."""
    flat = np.zeros((index.shape[0], np.prod(GRID)))
    np.put_along_axis(flat, np.asarray(index), 1, axis=1)
    return flat.reshape(-1, *GRID).mean((0, 1, 3))


@pytest.fixture(scope="module", params=list(STUDY))
def drawn(request):
    """8,000 samples of a mask of the study: cover counts before budgeting, positions after it."""
    config = STUDY[request.param]
    plan = masks.plan(config, GRID)

    def one(key):
        place, _ = jax.random.split(key)
        cover = block.cover_counts(config, GRID, place, 8)
        chosen = block.nearest_to_budget(config, plan, cover)
        return block.first_valid(config, GRID, cover), chosen, *masks.draw(plan, key, 8)

    cover, chosen, context, target = jax.jit(lambda keys: jax.lax.map(one, keys))(
        jax.random.split(jax.random.key(1), 1000)
    )
    flat = lambda x: np.asarray(x).reshape(-1, *x.shape[2:])  # noqa: E731
    return request.param, plan, flat(cover), flat(chosen), flat(context), flat(target)


@pytest.mark.slow
def test_masks_before_budgeting_match_the_study(drawn, statistics):
    name, plan, cover, *_ = drawn
    golden = statistics[name]
    free = np.broadcast_to(cover == 0, (len(cover), *GRID)) * (
        np.arange(GRID[0])[:, None, None] < GRID[0] * plan.mask.temporal_keep
    )
    assert abs(free.sum((1, 2, 3)).mean() / golden["context_tokens"]["mean"] - 1) <= 0.02
    assert np.abs(free.mean((0, 1, 3)) - golden["context_probability_by_row"]).max() <= 0.02
    assert abs((np.prod(GRID) - free.sum((1, 2, 3))).mean() / golden["target_tokens"]["mean"] - 1) <= 0.02


def test_budgets_match_the_means_of_the_study(drawn, statistics):
    name, plan, _, _, context, target = drawn
    golden = statistics[name]
    assert context.shape[1] == plan.context
    assert target.shape[1] == plan.target
    assert abs(plan.context / golden["context_tokens"]["mean"] - 1) <= 0.02
    assert abs(plan.target / golden["target_tokens"]["mean"] - 1) <= 0.02
    row = rows(context, *GRID[1:])
    assert np.abs(row - golden["context_probability_by_row"]).max() <= 0.04


@pytest.mark.parametrize("drawn", ["long_2x0.7"], indirect=True)
def test_at_most_6_percent_of_the_long_context_is_covered(drawn):
    _, _, _, chosen, context, _ = drawn
    covered = np.broadcast_to(chosen > 0, (len(chosen), *GRID)).reshape(len(chosen), -1)
    assert np.take_along_axis(covered, context, axis=1).mean() <= 0.06


@pytest.mark.slow
def test_truncated_budgets_match_the_study(statistics):
    """The golden mean over 150 batches is accurate to about 5 tokens for the long mask."""
    for name, config in STUDY.items():
        plan = masks.plan(dataclasses.replace(config, budget="truncated"), GRID)
        assert abs(plan.context - statistics[name]["context_tokens_batch8_truncated_mean"]) <= 12


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_masks_are_sorted_disjoint_and_reproducible(name):
    config = KINDS[name]
    plan = masks.plan(config, SMALL)
    motion = jax.random.uniform(jax.random.key(3), (6, *SMALL))
    draw = jax.jit(functools.partial(masks.draw, plan, batch=6))
    context, target = (np.asarray(x) for x in draw(jax.random.key(0), motion_BxTxHxW=motion))
    assert (np.diff(context) > 0).all()
    assert (np.diff(target) > 0).all()
    assert min(context.min(), target.min()) >= 0
    assert max(context.max(), target.max()) < np.prod(SMALL)
    for c, t in zip(context, target, strict=True):
        assert not set(c) & set(t)
        if config.temporal_keep < 1:
            assert set(c) | set(t) == set(range(int(np.prod(SMALL))))
    if config.temporal_keep < 1:
        assert context.max() < np.prod(SMALL) * config.temporal_keep
    again, _ = draw(jax.random.key(0), motion_BxTxHxW=motion)
    other, _ = draw(jax.random.key(1), motion_BxTxHxW=motion)
    np.testing.assert_array_equal(context, again)
    assert (context != np.asarray(other)).any()
    assert len({tuple(c) for c in context}) > 1


def test_tubes_are_the_same_at_every_time_step():
    plan = masks.plan(KINDS["tube"], SMALL)
    context, target = masks.draw(plan, jax.random.key(0), 3)
    for index in (context, target):
        per_time = np.asarray(index).reshape(3, SMALL[0], -1) % (SMALL[1] * SMALL[2])
        assert (per_time == per_time[:, :1]).all()


@pytest.mark.slow
def test_blocks_cover_motion():
    """Without random blocks, moving corners are covered. Without motion, origins are uniform."""
    config = BlockMask(blocks=1, spatial_scale=0.2, motion_strength=5.0, motion_random_rate=0.0)
    motion = jnp.zeros((2, *SMALL)).at[0, :, :2, :2].set(1.0)
    covers = jax.vmap(lambda key: block.cover_counts(config, SMALL, key, 2, motion))(
        jax.random.split(jax.random.key(0), 400)
    )
    covered = np.asarray((covers > 0).mean((0, 2, 3)))  # [clip, H, W]
    assert covered[0, :2, :2].min() > 0.9
    still = np.asarray(motion_guided.origin_probabilities(motion, (4, 2, 3), 5.0))[1, :, :4, :4]
    np.testing.assert_allclose(still, 1 / still.size, rtol=1e-5)


def test_motion_map_of_an_image_is_zero():
    assert not np.asarray(masks.motion_map(jnp.ones((2, 1, 8, 8, 3)), (1, 2, 2))).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spatial_scale": 0.0}, "spatial_scale is 0.0"),
        ({"temporal_keep": 1.5}, "temporal_keep is 1.5"),
        ({"blocks": 0}, "blocks is 0"),
        ({"aspect": (2.0, 1.0)}, "expected 0 < least ≤ most"),
        ({"motion_strength": -1.0}, "motion_strength is -1.0"),
        ({"motion_random_rate": 2.0}, "motion_random_rate is 2.0"),
    ],
)
def test_invalid_masks_raise(change, message):
    with pytest.raises(ValueError, match=message):
        BlockMask(**change)


def test_grid_with_one_position_per_frame_raises():
    with pytest.raises(ValueError, match="at least two positions in a frame, and the grid of tokens is 1×1"):
        masks.plan(BlockMask(), (8, 1, 1))


def test_motion_mask_without_a_motion_map_raises():
    plan = masks.plan(KINDS["motion"], SMALL)
    with pytest.raises(ValueError, match="motion map"):
        masks.draw(plan, jax.random.key(0), 2)
