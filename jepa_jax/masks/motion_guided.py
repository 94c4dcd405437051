"""Block origins that follow motion."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jepa_jax.masks.base import Grid
from jepa_jax.masks.placement import Block, Origins, inside, uniform_origins


def motion_map(clips: Float[Array, "B F Y X C"], grid: Grid) -> Float[Array, "B T H W"]:
    """Returns the mean absolute frame difference on the token grid, scaled to a maximum of 1 per clip (0 if still).

    Args:
        clips: normalised clips. The first difference is repeated, so the map has as many frames as the clip before it
            is resized (trilinear, half-pixel centres, no antialiasing).
        grid: tokens in time, height, width.
    """
    if clips.shape[1] == 1:
        return jnp.zeros((clips.shape[0], *grid))
    difference = jnp.abs(jnp.diff(clips, axis=1)).mean(-1)
    difference = jnp.concatenate([difference[:, :1], difference], axis=1)
    motion = jax.image.resize(difference, (clips.shape[0], *grid), "linear", antialias=False)
    return motion / jnp.maximum(motion.max((1, 2, 3), keepdims=True), 1e-6)


def origin_probabilities(
    motion_BxTxHxW: Float[Array, "B T H W"], block: Block, strength: float
) -> Float[Array, "B starts H W"]:
    """Returns the probability of each block origin: ∝ (mean motion inside the block, at least 1e-6)^strength.

    It is 0 where the block does not fit. There are T − t + 1 starts in time.
    """
    return jnp.exp(_origin_log_probabilities(motion_BxTxHxW, block, strength))


def _origin_log_probabilities(motion_BxTxHxW: jax.Array, block: Block, strength: float) -> jax.Array:
    _, time, height, width = motion_BxTxHxW.shape
    t, h, w = block
    covered = [
        inside(jnp.arange(starts)[:, None], jnp.arange(length), extent)
        for starts, length, extent in ((time - t + 1, time, t), (height, height, h), (width, width, w))
    ]
    total = jnp.einsum("btyx,it,jy,kx->bijk", motion_BxTxHxW, *covered, precision="highest")
    logits = strength * jnp.log(jnp.maximum(total / (t * h * w), 1e-6))
    fits = (jnp.arange(height)[:, None] <= height - h) & (jnp.arange(width)[None] <= width - w)
    return jax.nn.log_softmax(jnp.where(fits, logits, -jnp.inf), axis=(1, 2, 3))


def guided_origins(
    motion_BxTxHxW: Float[Array, "B T H W"],
    block: Block,
    key: jax.Array,
    shape: tuple[int, int, int],
    strength: float,
    random_rate: float,
) -> Origins:
    """Returns origins that follow motion, except for a fraction `random_rate` that is drawn uniformly."""
    guided_key, uniform_key, choice_key = jax.random.split(key, 3)
    log_probability = _origin_log_probabilities(motion_BxTxHxW, block, strength)
    batch, _, height, width = log_probability.shape
    flat = jax.random.categorical(guided_key, log_probability.reshape(batch, 1, 1, -1), shape=shape)
    guided = (flat // (height * width), flat // width % height, flat % width)
    grid = (motion_BxTxHxW.shape[1], height, width)
    uniform = uniform_origins(grid, block, uniform_key, shape)
    free = jax.random.uniform(choice_key, shape) < random_rate
    return tuple(jnp.where(free, u, g) for u, g in zip(uniform, guided, strict=True))  # pyright: ignore
