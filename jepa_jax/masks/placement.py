"""Blocks on the token grid: their size, their uniform origins, and what they cover."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jepa_jax.masks.base import Grid

Block = tuple[int, int | jax.Array, int | jax.Array]  # extent in time, height and width; the last two may be traced
Origins = tuple[jax.Array, jax.Array, jax.Array]  # in time, height and width, each [B, candidates, blocks]


def block_size(
    grid: Grid, key: jax.Array, spatial_scale: float, temporal_scale: float, aspect: tuple[float, float]
) -> Block:
    """Returns the block extent (t, h, w): area ⌊s·H·W⌋, uniform aspect ratio, each side at most the grid's."""
    time, height, width = grid
    area = int(spatial_scale * height * width)
    ratio = jax.random.uniform(key, minval=aspect[0], maxval=aspect[1])
    h = jnp.clip(jnp.round(jnp.sqrt(area * ratio)), 1, height).astype(jnp.int32)
    w = jnp.clip(jnp.round(jnp.sqrt(area / ratio)), 1, width).astype(jnp.int32)
    return max(int(time * temporal_scale), 1), h, w


def uniform_origins(grid: Grid, block: Block, key: jax.Array, shape: tuple[int, int, int]) -> Origins:
    """Returns origins drawn uniformly from the positions where the block fits."""
    t, y, x = (
        jax.random.randint(k, shape, 0, length - extent + 1)
        for k, length, extent in zip(jax.random.split(key, 3), grid, block, strict=True)
    )
    return t, y, x


def inside(origin: jax.Array, position: jax.Array, extent: int | jax.Array) -> jax.Array:
    """Returns 1.0 where a position is inside a block of this origin and extent along one axis, else 0.0."""
    return ((position >= origin) & (position < origin + extent)).astype(jnp.float32)


def cover_counts(grid: Grid, block: Block, origins: Origins, *, tubes: bool) -> Float[Array, "B candidates t H W"]:
    """Returns how many blocks cover each position; t is 1 for tubes, otherwise T."""
    covered = [
        inside(origin[..., None], jnp.arange(length), extent)
        for origin, length, extent in zip(origins, grid, block, strict=True)
    ]
    if tubes:
        return jnp.einsum("bcny,bcnx->bcyx", *covered[1:])[:, :, None]
    return jnp.einsum("bcnt,bcny,bcnx->bctyx", *covered)
