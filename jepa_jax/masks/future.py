"""Future prediction: the context uses the first time steps; everything else is the target."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from jepa_jax.masks.base import Grid
from jepa_jax.masks.positions import complement


def kept_times(keep: float, grid: Grid) -> int:
    """Returns the number of time steps in the first fraction `keep` of a clip; at least 1."""
    return max(int(grid[0] * keep), 1)


def late_tokens(keep: float, grid: Grid) -> Bool[Array, "N"]:
    """Returns which tokens come after the time steps of the context."""
    time, height, width = grid
    return jnp.arange(time * height * width) >= kept_times(keep, grid) * height * width


def everything_else(context_BxK: Int[Array, "B K"], grid: Grid) -> Int[Array, "B _"]:
    """Returns the target of future prediction: every token that is not in the context, ascending."""
    time, height, width = grid
    return complement(context_BxK, time * height * width)


def future_target(context: int, grid: Grid) -> int:
    """Returns the number of target tokens of future prediction."""
    return grid[0] * grid[1] * grid[2] - context
