"""Block masks: randomly placed blocks cover the target; the other tokens are the context.

After V-JEPA and arXiv:2605.17165. Token counts are fixed in advance (the budget), so shapes are static. The study
truncates every mask of a batch to the shortest by dropping the last positions, which are the latest time steps. Here
each clip draws a few candidate placements and keeps the one nearest the budget. Positions are then ranked by how many
blocks cover them. This needs no padding and has no bias in time.
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

CANDIDATES = 4  # placements per clip; blocks cover 5 % of the `long` mask's context with 4 candidates, 18 % with 1
SIMULATED_BATCHES, SIMULATED_BATCH = 4000, 8  # for the budgets; the study has 8 clips per device


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockMask(Mask):
    """Predicts the tokens that blocks cover. Optionally, only early tokens are context, or blocks follow motion."""

    blocks: int = 8
    spatial_scale: float = 0.15  # fraction of the H·W positions in a block
    temporal_scale: float = 1.0  # fraction of the T time steps in a block; 1 makes tubes
    aspect: tuple[float, float] = (0.75, 1.5)
    temporal_keep: float = 1.0  # the context uses only this first fraction of time; see `future`
    motion_strength: float = 0.0  # if > 0, block origins follow motion: probability ∝ motion^strength
    motion_random_rate: float = 0.1  # fraction of origins that do not follow motion but are drawn uniformly
    budget: Literal["mean", "truncated"] = "mean"  # the study's mean token counts, before or after truncation

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
        """Whether the mask is the same at every time step that the context uses."""
        return self.temporal_scale == 1.0

    @property
    def predicts_future(self) -> bool:
        """Whether the context uses only the first time steps and everything else is the target."""
        return self.temporal_keep < 1

    @property
    def follows_motion(self) -> bool:
        """Whether block origins follow motion."""
        return self.motion_strength > 0

    def plan(self, grid: Grid) -> MaskPlan:
        """Returns the mask with its budget: the mean token counts of simulated placements.

        The `truncated` budget takes the smallest counts of each simulated batch of 8.

        Raises:
            ValueError: a frame has fewer than two positions.
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
        """Returns the context and target positions of each clip, ascending in time-major order."""
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
    """Returns how many blocks cover each position, for several placements per clip; t is 1 for tubes, otherwise T.

    The block size is drawn once per batch, the origins once per clip and placement.
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
    """Returns the placement of each clip with the context size nearest the budget; empty contexts come last."""
    free = _uncovered(mask, plan.grid, cover)
    distance = jnp.where(free == 0, jnp.inf, jnp.abs(free - plan.context))
    return jnp.take_along_axis(cover, distance.argmin(-1)[:, None, None, None, None], axis=1)[:, 0]


def first_valid(mask: BlockMask, grid: Grid, cover: Float[Array, "B candidates t H W"]) -> Float[Array, "B t H W"]:
    """Returns the first placement of each clip that leaves a context: the study's mask before truncation."""
    empty = _uncovered(mask, grid, cover) == 0
    return jnp.take_along_axis(cover, empty.argmin(-1)[:, None, None, None, None], axis=1)[:, 0]


def _uncovered(mask: BlockMask, grid: Grid, cover: jax.Array) -> jax.Array:
    """Returns the number of context tokens [B, candidates] that each placement leaves, before the budget."""
    kept = future.kept_times(mask.temporal_keep, grid)
    free = (cover[:, :, :kept] == 0).sum((2, 3, 4))
    return free * (kept if mask.tubes else 1)


@functools.cache
def _simulated_counts(mask: BlockMask, grid: Grid) -> tuple[float, float]:
    """Returns the mean context and target counts of uniform placements, with a fixed seed; empty contexts are redrawn.

    The `truncated` budget takes the smallest context and target counts of each batch.
    """
    uniform = dataclasses.replace(mask, motion_strength=0.0)

    def one_batch(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        cover = cover_counts(uniform, grid, key, SIMULATED_BATCH)
        chosen = first_valid(uniform, grid, cover)
        context = _uncovered(uniform, grid, chosen[:, None])[:, 0]
        target = (chosen > 0).sum((1, 2, 3)) * (grid[0] if mask.tubes else 1)
        return context, target

    def all_batches() -> tuple[jax.Array, jax.Array]:
        context, target = jax.lax.map(one_batch, jax.random.split(jax.random.key(0), SIMULATED_BATCHES))
        return (context.min(-1), target.min(-1)) if mask.budget == "truncated" else (context, target)

    # One program, which the compilation cache keeps. Compiled explicitly, it also runs while another is being traced.
    context, target = jax.device_get(jax.jit(all_batches).lower().compile()())
    return float(context.mean()), float(target.mean())
