"""Masks: which tokens are seen (context) and which predicted (target), as jitted functions of a key.

Blocks are placed at random; what they cover is the target, the rest the context (arXiv:2605.17165, after V-JEPA). Token
counts are fixed beforehand (a budget), so shapes are static. The study cuts every mask of a batch to the shortest by
dropping the last positions, that is the latest time steps; here each clip keeps, of a few candidate placements, the one
nearest the budget, and positions are ranked by how many blocks cover them: no bias in time, no padding.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jepa_jax.config import MaskConfig

CANDIDATES = 4  # placements drawn a clip; with 4, 5 % of the `long` mask's context is covered by a block, with 1 18 %
SIMULATED_BATCHES, SIMULATED_BATCH = 4000, 8  # behind the budgets; the study's batch on a device is 8
Grid = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class MaskPlan:
    """A mask's settings on a grid, with its token counts."""

    config: MaskConfig
    grid: Grid
    context: int  # K
    target: int  # M

    @property
    def tube(self) -> bool:
        """Whether the mask is the same at every time step (of those the context is kept in)."""
        return self.config.temporal_scale == 1.0


def plan(config: MaskConfig, grid: Grid) -> MaskPlan:
    """The mask with its budget: the mean counts of free placements, or of placements cut to a batch of 8's shortest.

    Raises:
        ValueError: a grid too small to hide anything in.
    """
    time, height, width = grid
    if height * width < 2:
        raise ValueError(f"masks need at least two positions in a frame, and the grid of tokens is {height}×{width}")
    kept = _kept_times(config, grid)
    context, target = (float(x) for x in _simulated_counts(config, grid))
    if config.temporal_scale == 1.0:
        k = min(max(round(context / kept), 1), height * width - 1)
        m = min(max(round(target / time), 1), height * width - k)
        context, target = k * kept, m * time
    else:
        context = min(max(round(context), 1), time * height * width - 1)
        target = min(max(round(target), 1), time * height * width - context)
    if config.temporal_keep < 1:
        target = time * height * width - context
    return MaskPlan(config, grid, int(context), int(target))


def draw(
    plan: MaskPlan, key: jax.Array, batch: int, motion_BxTxHxW: Float[Array, "B T H W"] | None = None
) -> tuple[Int[Array, "B K"], Int[Array, "B M"]]:
    """Context and target positions of each clip, ascending in time-major order.

    Args:
        plan: from `plan`.
        key: a PRNG key.
        batch: number of clips.
        motion_BxTxHxW: from `motion_map`; needed when the mask follows motion.
    """
    place, rank = jax.random.split(key)
    cover = cover_counts(plan.config, plan.grid, place, batch, motion_BxTxHxW)
    cover = nearest_to_budget(plan, cover)
    time, height, width = plan.grid
    kept = _kept_times(plan.config, plan.grid)
    if plan.tube:
        ranked_BxP = _rank(rank, cover.reshape(batch, height * width))
        context = _over_time(ranked_BxP[:, : plan.context // kept], kept, height * width)
        target = _over_time(ranked_BxP[:, -(plan.target // time) :], time, height * width)
    else:
        cover_BxN = cover.reshape(batch, -1)
        late = jnp.arange(cover_BxN.shape[1]) >= kept * height * width
        context = _rank(rank, cover_BxN + jnp.where(late, plan.config.blocks + 1.0, 0.0))[:, : plan.context]
        target = _rank(rank, cover_BxN)[:, -plan.target :]
    context = jnp.sort(context, axis=-1)
    if plan.config.temporal_keep < 1:  # future prediction: everything that is not seen
        return context, _complement(context, time * height * width)
    return context, jnp.sort(target, axis=-1)


def cover_counts(
    config: MaskConfig,
    grid: Grid,
    key: jax.Array,
    batch: int,
    motion_BxTxHxW: Float[Array, "B T H W"] | None = None,
) -> Float[Array, "B candidates t H W"]:
    """How many blocks cover each position, for several placements a clip; t is 1 for tubes, T otherwise.

    The block size is drawn once a batch, the origins once a clip and placement.
    """
    size_key, origin_key = jax.random.split(key)
    block = block_size(config, grid, size_key)
    shape = (batch, CANDIDATES, config.blocks)
    if config.motion_strength > 0:
        if motion_BxTxHxW is None:
            raise ValueError("the mask follows motion (motion_strength > 0): pass the motion map")
        origins = _motion_origins(config, block, motion_BxTxHxW, origin_key, shape)
    else:
        origins = _uniform_origins(grid, block, origin_key, shape)
    inside = [
        _inside(origin[..., None], jnp.arange(length), extent)
        for origin, length, extent in zip(origins, grid, block, strict=True)
    ]
    if config.temporal_scale == 1.0:
        return jnp.einsum("bcny,bcnx->bcyx", *inside[1:])[:, :, None]
    return jnp.einsum("bcnt,bcny,bcnx->bctyx", *inside)


def block_size(config: MaskConfig, grid: Grid, key: jax.Array) -> tuple[int, jax.Array, jax.Array]:
    """Block extent (t, h, w): area ⌊s·H·W⌋, aspect ratio uniform, each side at most the grid's."""
    time, height, width = grid
    area = int(config.spatial_scale * height * width)
    aspect = jax.random.uniform(key, minval=config.aspect[0], maxval=config.aspect[1])
    h = jnp.clip(jnp.round(jnp.sqrt(area * aspect)), 1, height).astype(jnp.int32)
    w = jnp.clip(jnp.round(jnp.sqrt(area / aspect)), 1, width).astype(jnp.int32)
    return max(int(time * config.temporal_scale), 1), h, w


def motion_map(clips: Float[Array, "B F Y X C"], grid: Grid) -> Float[Array, "B T H W"]:
    """Mean absolute frame difference on the token grid, at most 1 in each clip (0 everywhere in a still one).

    Args:
        clips: normalised clips. The first difference stands twice, so the map is as long as the clip before it is
            resized (trilinear, half-pixel centres, no antialiasing).
        grid: tokens in time, height, width.
    """
    if clips.shape[1] == 1:
        return jnp.zeros((clips.shape[0], *grid))
    difference = jnp.abs(jnp.diff(clips, axis=1)).mean(-1)
    difference = jnp.concatenate([difference[:, :1], difference], axis=1)
    motion = jax.image.resize(difference, (clips.shape[0], *grid), "linear", antialias=False)
    return motion / jnp.maximum(motion.max((1, 2, 3), keepdims=True), 1e-6)


def origin_probabilities(
    motion_BxTxHxW: Float[Array, "B T H W"], block: tuple[int, int | jax.Array, int | jax.Array], strength: float
) -> Float[Array, "B starts H W"]:
    """Probability of each block origin: ∝ (mean motion inside the block, at least 1e-6)^strength, 0 where it would
    stick out. `block` is (t, h, w), of which h and w may be traced; there are T − t + 1 starts in time.
    """
    return jnp.exp(_origin_log_probabilities(motion_BxTxHxW, block, strength))


def _origin_log_probabilities(
    motion_BxTxHxW: jax.Array, block: tuple[int, int | jax.Array, int | jax.Array], strength: float
) -> jax.Array:
    _, time, height, width = motion_BxTxHxW.shape
    t, h, w = block
    inside = [
        _inside(jnp.arange(starts)[:, None], jnp.arange(length), extent)
        for starts, length, extent in ((time - t + 1, time, t), (height, height, h), (width, width, w))
    ]
    total = jnp.einsum("btyx,it,jy,kx->bijk", motion_BxTxHxW, *inside, precision="highest")
    logits = strength * jnp.log(jnp.maximum(total / (t * h * w), 1e-6))
    fits = (jnp.arange(height)[:, None] <= height - h) & (jnp.arange(width)[None] <= width - w)
    return jax.nn.log_softmax(jnp.where(fits, logits, -jnp.inf), axis=(1, 2, 3))


def _motion_origins(
    config: MaskConfig,
    block: tuple[int, jax.Array, jax.Array],
    motion_BxTxHxW: jax.Array,
    key: jax.Array,
    shape: tuple[int, int, int],
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Origins that follow motion, but for a share `motion_random_rate` of them."""
    guided_key, uniform_key, choice_key = jax.random.split(key, 3)
    log_probability = _origin_log_probabilities(motion_BxTxHxW, block, config.motion_strength)
    batch, _, height, width = log_probability.shape
    flat = jax.random.categorical(guided_key, log_probability.reshape(batch, 1, 1, -1), shape=shape)
    guided = (flat // (height * width), flat // width % height, flat % width)
    grid = (motion_BxTxHxW.shape[1], height, width)
    uniform = _uniform_origins(grid, block, uniform_key, shape)
    free = jax.random.uniform(choice_key, shape) < config.motion_random_rate
    return tuple(jnp.where(free, u, g) for u, g in zip(uniform, guided, strict=True))  # pyright: ignore


def _uniform_origins(
    grid: Grid, block: tuple[int, jax.Array, jax.Array], key: jax.Array, shape: tuple[int, int, int]
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Origins uniform over the positions where the block fits."""
    t, y, x = (
        jax.random.randint(k, shape, 0, length - extent + 1)
        for k, length, extent in zip(jax.random.split(key, 3), grid, block, strict=True)
    )
    return t, y, x


def _inside(origin: jax.Array, position: jax.Array, extent: int | jax.Array) -> jax.Array:
    return ((position >= origin) & (position < origin + extent)).astype(jnp.float32)


def _kept_times(config: MaskConfig, grid: Grid) -> int:
    return max(int(grid[0] * config.temporal_keep), 1)


def _uncovered(config: MaskConfig, grid: Grid, cover: jax.Array) -> jax.Array:
    """Context tokens [B, candidates] that each placement leaves, before any budget."""
    kept = _kept_times(config, grid)
    free = (cover[:, :, :kept] == 0).sum((2, 3, 4))
    return free * (kept if config.temporal_scale == 1.0 else 1)


def nearest_to_budget(plan: MaskPlan, cover: Float[Array, "B candidates t H W"]) -> Float[Array, "B t H W"]:
    """Of each clip's placements, the one whose uncovered count is nearest the budget, never one that leaves none."""
    free = _uncovered(plan.config, plan.grid, cover)
    distance = jnp.where(free == 0, jnp.inf, jnp.abs(free - plan.context))
    return jnp.take_along_axis(cover, distance.argmin(-1)[:, None, None, None, None], axis=1)[:, 0]


def _rank(key: jax.Array, cover_BxP: jax.Array) -> jax.Array:
    """Positions from the least covered to the most, ties in random order."""
    return jnp.argsort(cover_BxP + jax.random.uniform(key, cover_BxP.shape, maxval=0.5), axis=-1)


def _over_time(position_BxP: jax.Array, times: int, step: int) -> jax.Array:
    """Spatial positions repeated at the first `times` time steps, as token positions."""
    token = jnp.arange(times)[None, :, None] * step + position_BxP[:, None]
    return token.reshape(position_BxP.shape[0], -1)


def _complement(index_BxK: jax.Array, tokens: int) -> jax.Array:
    nothing = jnp.zeros(tokens, bool)
    taken = jax.vmap(lambda index_K: nothing.at[index_K].set(True))(index_BxK)
    return jnp.argsort(taken, axis=-1, stable=True)[:, : tokens - index_BxK.shape[1]]


@functools.cache
def _simulated_counts(config: MaskConfig, grid: Grid) -> tuple[float, float]:
    """Mean context and target tokens of uniform placements (an empty context redrawn), seed fixed.

    `truncated` takes, of every batch, the smallest count of each.
    """
    uniform = dataclasses.replace(config, motion_strength=0.0)

    @jax.jit
    def one_batch(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        cover = cover_counts(uniform, grid, key, SIMULATED_BATCH)
        chosen = first_valid(uniform, grid, cover)
        context = _uncovered(uniform, grid, chosen[:, None])[:, 0]
        target = (chosen > 0).sum((1, 2, 3)) * (grid[0] if config.temporal_scale == 1.0 else 1)
        return context, target

    with jax.ensure_compile_time_eval():
        context, target = jax.lax.map(one_batch, jax.random.split(jax.random.key(0), SIMULATED_BATCHES))
    if config.budget == "truncated":
        context, target = context.min(-1), target.min(-1)
    return float(context.mean()), float(target.mean())


def first_valid(config: MaskConfig, grid: Grid, cover: Float[Array, "B candidates t H W"]) -> Float[Array, "B t H W"]:
    """Of each clip's placements, the first that leaves a context: a mask before its budget, as the study draws it."""
    empty = _uncovered(config, grid, cover) == 0
    return jnp.take_along_axis(cover, empty.argmin(-1)[:, None, None, None, None], axis=1)[:, 0]
