"""Block masks: blocks are placed at random; what they cover is the target, the rest the context.

After V-JEPA and arXiv:2605.17165. Token counts are fixed beforehand (a budget), so shapes are static. The study cuts
every mask of a batch to the shortest by dropping the last positions, that is the latest time steps; here each clip
keeps, of a few candidate placements, the one nearest the budget, and positions are ranked by how many blocks cover
them: no bias in time, no padding.
"""

import dataclasses
import functools
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jepa_jax.masks import future, motion_guided, placement, positions
from jepa_jax.masks.base import Grid, Mask, MaskPlan
from jepa_jax.settings import at_least, share

CANDIDATES = 4  # placements drawn a clip; with 4, 5 % of the `long` mask's context is covered by a block, with 1 18 %
SIMULATED_BATCHES, SIMULATED_BATCH = 4000, 8  # behind the budgets; the study's batch on a device is 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockMask(Mask):
    """Predicts what blocks cover; optionally the future alone, optionally where there is motion."""

    blocks: int = 8
    spatial_scale: float = 0.15  # a block's share of the H·W positions
    temporal_scale: float = 1.0  # a block's share of the T time steps; 1 makes tubes
    aspect: tuple[float, float] = (0.75, 1.5)
    temporal_keep: float = 1.0  # the context is in this first share of time; less than 1: see `future`
    motion_strength: float = 0.0  # > 0: block origins follow motion, probability ∝ motion^strength
    motion_random_rate: float = 0.1  # share of origins drawn uniformly all the same
    budget: Literal["mean", "truncated"] = "mean"  # token counts: the study's means, or after its batch-8 cut

    def __post_init__(self) -> None:
        at_least(self, 1, "blocks")
        at_least(self, 0, "motion_strength")
        share(self, "motion_random_rate")
        for name in ("spatial_scale", "temporal_scale", "temporal_keep"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected a share in (0, 1]")
        if not 0 < self.aspect[0] <= self.aspect[1]:
            raise ValueError(f"aspect is {self.aspect}; expected 0 < least ≤ most")

    @property
    def tubes(self) -> bool:
        """Whether the mask is the same at every time step (of those the context is in)."""
        return self.temporal_scale == 1.0

    @property
    def predicts_future(self) -> bool:
        """Whether the context is in the first share of time and everything else the target."""
        return self.temporal_keep < 1

    @property
    def follows_motion(self) -> bool:
        """Whether block origins follow motion."""
        return self.motion_strength > 0

    def plan(self, grid: Grid) -> MaskPlan:
        """The mask with its budget: the mean counts of free placements, or of those cut to a batch of 8's shortest.

        Raises:
            ValueError: fewer than two positions in a frame.
        """
        time, height, width = grid
        if height * width < 2:
            raise ValueError(
                f"masks need at least two positions in a frame, and the grid of tokens is {height}×{width}"
            )
        kept = future.kept_times(self.temporal_keep, grid)
        context, target = _simulated_counts(self, grid)
        if self.tubes:
            k = min(max(round(context / kept), 1), height * width - 1)
            m = min(max(round(target / time), 1), height * width - k)
            context, target = k * kept, m * time
        else:
            context = min(max(round(context), 1), time * height * width - 1)
            target = min(max(round(target), 1), time * height * width - context)
        if self.predicts_future:
            target = future.future_target(context, grid)
        return MaskPlan(self, grid, context, target)

    def draw(
        self, plan: MaskPlan, key: jax.Array, batch: int, motion_BxTxHxW: Float[Array, "B T H W"] | None = None
    ) -> tuple[Int[Array, "B K"], Int[Array, "B M"]]:
        """Context and target positions of each clip, ascending in time-major order."""
        place, rank = jax.random.split(key)
        cover = cover_counts(self, plan.grid, place, batch, motion_BxTxHxW)
        cover = nearest_to_budget(self, plan, cover)
        time, height, width = plan.grid
        if self.tubes:
            kept = future.kept_times(self.temporal_keep, plan.grid)
            ranked_BxP = positions.rank(rank, cover.reshape(batch, height * width))
            context = positions.over_time(ranked_BxP[:, : plan.context // kept], kept, height * width)
            target = positions.over_time(ranked_BxP[:, -(plan.target // time) :], time, height * width)
        else:
            cover_BxN = cover.reshape(batch, -1)
            late_N = future.late_tokens(self.temporal_keep, plan.grid)
            context = positions.rank(rank, cover_BxN + jnp.where(late_N, self.blocks + 1.0, 0.0))[:, : plan.context]
            target = positions.rank(rank, cover_BxN)[:, -plan.target :]
        context = jnp.sort(context, axis=-1)
        if self.predicts_future:
            return context, future.everything_else(context, plan.grid)
        return context, jnp.sort(target, axis=-1)


def cover_counts(
    mask: BlockMask,
    grid: Grid,
    key: jax.Array,
    batch: int,
    motion_BxTxHxW: Float[Array, "B T H W"] | None = None,
) -> Float[Array, "B candidates t H W"]:
    """How many blocks cover each position, for several placements a clip; t is 1 for tubes, T otherwise.

    The block size is drawn once a batch, the origins once a clip and placement.
    """
    size_key, origin_key = jax.random.split(key)
    block = placement.block_size(grid, size_key, mask.spatial_scale, mask.temporal_scale, mask.aspect)
    shape = (batch, CANDIDATES, mask.blocks)
    if mask.follows_motion:
        assert motion_BxTxHxW is not None
        origins = motion_guided.guided_origins(
            motion_BxTxHxW, block, origin_key, shape, mask.motion_strength, mask.motion_random_rate
        )
    else:
        origins = placement.uniform_origins(grid, block, origin_key, shape)
    return placement.cover_counts(grid, block, origins, tubes=mask.tubes)


def nearest_to_budget(
    mask: BlockMask, plan: MaskPlan, cover: Float[Array, "B candidates t H W"]
) -> Float[Array, "B t H W"]:
    """Of each clip's placements, the one whose uncovered count is nearest the budget, never one that leaves none."""
    free = _uncovered(mask, plan.grid, cover)
    distance = jnp.where(free == 0, jnp.inf, jnp.abs(free - plan.context))
    return jnp.take_along_axis(cover, distance.argmin(-1)[:, None, None, None, None], axis=1)[:, 0]


def first_valid(mask: BlockMask, grid: Grid, cover: Float[Array, "B candidates t H W"]) -> Float[Array, "B t H W"]:
    """Of each clip's placements, the first that leaves a context: a mask before its budget, as the study draws it."""
    empty = _uncovered(mask, grid, cover) == 0
    return jnp.take_along_axis(cover, empty.argmin(-1)[:, None, None, None, None], axis=1)[:, 0]


def _uncovered(mask: BlockMask, grid: Grid, cover: jax.Array) -> jax.Array:
    """Context tokens [B, candidates] that each placement leaves, before any budget."""
    kept = future.kept_times(mask.temporal_keep, grid)
    free = (cover[:, :, :kept] == 0).sum((2, 3, 4))
    return free * (kept if mask.tubes else 1)


@functools.cache
def _simulated_counts(mask: BlockMask, grid: Grid) -> tuple[float, float]:
    """Mean context and target tokens of uniform placements (an empty context redrawn), seed fixed.

    `truncated` takes, of every batch, the smallest count of each.
    """
    uniform = dataclasses.replace(mask, motion_strength=0.0)

    @jax.jit
    def one_batch(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        cover = cover_counts(uniform, grid, key, SIMULATED_BATCH)
        chosen = first_valid(uniform, grid, cover)
        context = _uncovered(uniform, grid, chosen[:, None])[:, 0]
        target = (chosen > 0).sum((1, 2, 3)) * (grid[0] if mask.tubes else 1)
        return context, target

    with jax.ensure_compile_time_eval():
        context, target = jax.lax.map(one_batch, jax.random.split(jax.random.key(0), SIMULATED_BATCHES))
    if mask.budget == "truncated":
        context, target = context.min(-1), target.min(-1)
    return float(context.mean()), float(target.mean())
