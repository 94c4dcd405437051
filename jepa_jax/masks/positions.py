"""Operations on token positions: rank, repeat over time, complement."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def rank(key: jax.Array, cover_BxP: Float[Array, "B P"]) -> Int[Array, "B P"]:
    """Returns positions from the least to the most covered, with ties in random order."""
    return jnp.argsort(cover_BxP + jax.random.uniform(key, cover_BxP.shape, maxval=0.5), axis=-1)


def over_time(position_BxP: Int[Array, "B P"], times: int, step: int) -> Int[Array, "B _"]:
    """Returns spatial positions repeated at the first `times` time steps, as token positions; `step` is H·W."""
    token = jnp.arange(times)[None, :, None] * step + position_BxP[:, None]
    return token.reshape(position_BxP.shape[0], -1)


def complement(index_BxK: Int[Array, "B K"], tokens: int) -> Int[Array, "B _"]:
    """Returns the positions among a clip's `tokens` that are not in `index_BxK`, ascending."""
    nothing = jnp.zeros(tokens, bool)
    taken = jax.vmap(lambda index_K: nothing.at[index_K].set(True))(index_BxK)
    return jnp.argsort(taken, axis=-1, stable=True)[:, : tokens - index_BxK.shape[1]]
