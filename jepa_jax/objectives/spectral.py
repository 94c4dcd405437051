"""Spectral: tokens visible at every time step match the temporal spectrum of their targets.

High frequencies have more weight than low ones.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jepa_jax.objectives import base, temporal_pairs

LEAST_TIME = 4  # fewer time steps have no useful spectrum
SLOWEST, FASTEST = 0.1, 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spectral(base.Objective):
    """Mean of |ω·(F z − F h)| over positions visible at every time step, frequencies and channels (arXiv:2605.17165).

    F is the unnormalised real Fourier transform over time, |·| is the complex modulus, and ω rises linearly from 0.1 at
    the lowest frequency to 1 at the highest. The loss is 0 if T < 4.
    """

    def view_value(self, head: base.Params, view: base.View, latents: base.Latents) -> Float[Array, ""]:
        """Returns the loss over the positions visible at every time step."""
        time, height, width = latents.grid
        batch, visible, _ = view.context_BxKxD.shape
        if time < LEAST_TIME or visible < time:
            return jnp.zeros(())
        real_FxT, imaginary_FxT = weighted_transform(time)
        place_BxTxHW = temporal_pairs.places(view.context_index_BxK, latents.grid).reshape(batch, time, -1)
        columns_BxP, whole_BxP = whole_columns(place_BxTxHW, visible // time)
        to_BxTxP = jnp.take_along_axis(place_BxTxHW, columns_BxP[:, None], axis=2)
        to_BxS = jnp.where(whole_BxP[:, None], to_BxTxP, temporal_pairs.ABSENT).reshape(batch, -1)
        z_BxSxD = temporal_pairs.take(view.context_BxKxD.astype(jnp.float32), to_BxS, inverse(to_BxS, visible))
        index_BxTxP = columns_BxP[:, None] + (jnp.arange(time) * height * width)[:, None]
        h_BxSxD = temporal_pairs.at(latents.target_BxNxD, index_BxTxP.reshape(batch, -1))
        error_BxTxPxD = (z_BxSxD - h_BxSxD).reshape(batch, time, columns_BxP.shape[1], -1)
        modulus_BxFxPxD = modulus(
            jnp.einsum("ft,btpd->bfpd", real_FxT, error_BxTxPxD, precision="highest"),
            jnp.einsum("ft,btpd->bfpd", imaginary_FxT, error_BxTxPxD, precision="highest"),
        )
        return base.mean_where(modulus_BxFxPxD.mean(1), whole_BxP)


def weighted_transform(time: int) -> tuple[Float[np.ndarray, "F T"], Float[np.ndarray, "F T"]]:
    """Returns the real and imaginary parts of the matrix ω·F. With few time steps, a matrix product is fastest."""
    transform = np.fft.rfft(np.eye(time), axis=0)
    transform *= np.linspace(SLOWEST, FASTEST, len(transform))[:, None]
    return transform.real.astype(np.float32), transform.imag.astype(np.float32)


def whole_columns(place_BxTxHW: Int[Array, "B T HW"], most: int) -> tuple[Int[Array, "B P"], Bool[Array, "B P"]]:
    """Returns `most` positions of each clip, those visible at every time step first, and which of them are."""
    whole_BxHW = (place_BxTxHW != temporal_pairs.ABSENT).all(1)
    columns_BxP = jnp.argsort(~whole_BxHW, axis=1, stable=True)[:, :most].astype(jnp.int32)
    return columns_BxP, jnp.take_along_axis(whole_BxHW, columns_BxP, axis=1)


def inverse(to_BxS: Int[Array, "B S"], rows: int) -> Int[Array, "B K"]:
    """Returns, for each of `rows` rows, its index in `to`, or ABSENT."""
    nowhere = jnp.full(rows + 1, temporal_pairs.ABSENT, jnp.int32)  # the extra row collects absent entries
    to = jnp.where(to_BxS == temporal_pairs.ABSENT, rows, to_BxS)
    numbers = jnp.arange(to_BxS.shape[1], dtype=jnp.int32)
    return jax.vmap(lambda to_S: nowhere.at[to_S].set(numbers))(to)[:, :rows]


def modulus(real: Float[Array, "*S"], imaginary: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """Returns √(real² + imaginary²), with gradient 0 at 0."""
    square = jnp.square(real) + jnp.square(imaginary)
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)
