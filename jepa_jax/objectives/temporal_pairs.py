"""Temporal pairs: a visible token and its visible successor, the token at the same y, x one time step later.

Only small integer tables have the size of the grid. Features are gathered, K per clip. No two tokens share a successor,
so gradients are gathered too; neither pass scatters features.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jepa_jax.objectives import base

ABSENT = -1


@dataclasses.dataclass(frozen=True)
class Pairs:
    """The temporal pairs of one mask: one for each context token with a successor."""

    index_BxK: Int[Array, "B K"]  # positions of the context tokens
    successor_BxK: Int[Array, "B K"]  # index in the context of the token one time step later, or ABSENT
    predecessor_BxK: Int[Array, "B K"]  # the inverse
    step: int  # difference in position from one time step to the next, H·W

    @property
    def valid(self) -> Bool[Array, "B K"]:
        """Whether each token is the first of a pair."""
        return self.successor_BxK != ABSENT

    def mean(self, x_BxKxR: Float[Array, "B K R"]) -> Float[Array, ""]:
        """Returns the mean over channels and the first tokens of the pairs; 0 without pairs."""
        return base.mean_where(x_BxKxR, self.valid)

    def later(self, z_BxKxD: Float[Array, "B K D"]) -> Float[Array, "B K D"]:
        """Returns each context token's successor; 0 if it has none."""
        return take(z_BxKxD, self.successor_BxK, self.predecessor_BxK)

    def change(self, z_BxKxD: Float[Array, "B K D"]) -> Float[Array, "B K D"]:
        """Returns z(t+1) − z(t) in float32; undefined for tokens without a pair."""
        z_BxKxD = z_BxKxD.astype(jnp.float32)
        return self.later(z_BxKxD) - z_BxKxD

    def change_at(self, h_BxNxD: Float[Array, "B N D"]) -> Float[Array, "B K D"]:
        """Returns h(t+1) − h(t) at the context tokens, from an array over all positions; undefined without a pair."""
        return self.at_later(h_BxNxD) - at(h_BxNxD, self.index_BxK)

    def at_later(self, h_BxNxD: Float[Array, "B N D"]) -> Float[Array, "B K D"]:
        """Returns h(t+1) at the context tokens, from an array over all positions; undefined without a pair."""
        last = h_BxNxD.shape[1] - 1
        return at(h_BxNxD, jnp.minimum(self.index_BxK + self.step, last))


def pairs(view: base.View, grid: tuple[int, int, int]) -> Pairs:
    """Returns the temporal pairs among the context tokens of a view, for tube masks and ragged masks."""
    place_BxN = places(view.context_index_BxK, grid)
    step = grid[1] * grid[2]
    index_BxK = view.context_index_BxK

    def place_at(position_BxK: Int[Array, "B K"]) -> Int[Array, "B K"]:
        inside = (position_BxK >= 0) & (position_BxK < place_BxN.shape[1])
        found = jnp.take_along_axis(place_BxN, jnp.clip(position_BxK, 0, place_BxN.shape[1] - 1), axis=1)
        return jnp.where(inside, found, ABSENT)

    return Pairs(index_BxK, place_at(index_BxK + step), place_at(index_BxK - step), step)


def places(context_index_BxK: Int[Array, "B K"], grid: tuple[int, int, int]) -> Int[Array, "B N"]:
    """Returns the index of the context token at every position, or ABSENT."""
    nowhere = jnp.full(grid[0] * grid[1] * grid[2], ABSENT, jnp.int32)
    numbers = jnp.arange(context_index_BxK.shape[1], dtype=jnp.int32)
    return jax.vmap(lambda index_K: nowhere.at[index_K].set(numbers))(context_index_BxK)


def at(h_BxNxD: Float[Array, "B N D"], index_BxS: Int[Array, "B S"]) -> Float[Array, "B S D"]:
    """Returns rows of an array over all positions, in float32."""
    return jnp.take_along_axis(h_BxNxD, index_BxS[..., None], axis=1).astype(jnp.float32)


@jax.custom_vjp
def take(
    z_BxKxD: Float[Array, "B K D"], to_BxS: Int[Array, "B S"], back_BxK: Int[Array, "B K"]
) -> Float[Array, "B S D"]:
    """Returns rows of z, and 0 where `to` is ABSENT. No row may be taken twice.

    Args:
        z_BxKxD: features.
        to_BxS: the row to take for each of S outputs.
        back_BxK: the inverse: the output of each row, or ABSENT. It makes the gradient a gather too.
    """
    found = jnp.take_along_axis(z_BxKxD, jnp.maximum(to_BxS, 0)[..., None], axis=1)
    return jnp.where((to_BxS != ABSENT)[..., None], found, 0)


def _take_forward(z_BxKxD: jax.Array, to_BxS: jax.Array, back_BxK: jax.Array) -> tuple[jax.Array, tuple]:
    return take(z_BxKxD, to_BxS, back_BxK), (to_BxS, back_BxK)


def _take_backward(indices: tuple, gradient_BxSxD: jax.Array) -> tuple:
    to_BxS, back_BxK = indices
    return take(gradient_BxSxD, back_BxK, to_BxS), None, None


take.defvjp(_take_forward, _take_backward)
