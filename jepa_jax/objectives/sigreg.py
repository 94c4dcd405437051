"""SIGReg: visible tokens are spread like a standard normal distribution, seen from any direction."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jepa_jax.objectives import base, term

KNOTS, LAST_KNOT = 17, 3.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class SIGReg(term.Term):
    """Distance of the samples' characteristic function from a standard normal's along random directions.

    Samples are the visible tokens of all masks, together. New directions each step, the same on every device; means
    are over the global batch (arXiv:2605.17165, after LeJEPA, arXiv:2511.08544).
    """

    directions: int = 1024

    def draw_directions(self, key: jax.Array, features: int) -> Float[Array, "D R"]:
        """Random unit directions, as columns."""
        normal_DxR = jax.random.normal(key, (features, self.directions))
        return normal_DxR / jnp.linalg.norm(normal_DxR, axis=0, keepdims=True)

    def value(self, head: base.Params, latents: base.Latents, moment: base.Moment) -> Float[Array, ""]:
        """The mean over directions of the statistic."""
        features = latents.target_BxNxD.shape[-1]
        samples_BxSxD = jnp.concatenate([view.context_BxKxD for view in latents.views], axis=1)
        directions_DxR = self.draw_directions(moment.key, features).astype(samples_BxSxD.dtype)
        projected_BxSxR = jnp.einsum("bsd,dr->bsr", samples_BxSxD, directions_DxR, preferred_element_type=jnp.float32)
        return statistic(projected_BxSxR)


def statistic(projected_BxSxR: Float[Array, "B S R"]) -> Float[Array, ""]:
    """Mean over R of n·Σ_k w_k[(mean cos t_k x − e^{−t_k²/2})² + (mean sin t_k x)²], n = B·S samples.

    17 knots t_k on [0, 3]; w is the trapezoid rule, doubled for the negative half, times e^{−t²/2}. One knot at a time,
    and again in the backward pass, so that nothing 17 times the projections is ever held.
    """
    count = projected_BxSxR.shape[0] * projected_BxSxR.shape[1]
    if count < 2:
        return jnp.zeros(())
    knot_k, weight_k, normal_k = quadrature()

    @jax.checkpoint
    def add(total_R: jax.Array, knot: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        t, weight, normal = knot
        cosine_R = jnp.cos(t * projected_BxSxR).mean((0, 1))
        sine_R = jnp.sin(t * projected_BxSxR).mean((0, 1))
        return total_R + weight * (jnp.square(cosine_R - normal) + jnp.square(sine_R)), None

    total_R, _ = jax.lax.scan(add, jnp.zeros(projected_BxSxR.shape[-1]), (knot_k, weight_k, normal_k))
    return count * total_R.mean()


def quadrature() -> tuple[Float[np.ndarray, "k"], Float[np.ndarray, "k"], Float[np.ndarray, "k"]]:
    """Knots, their weights, and the normal distribution's characteristic function there."""
    knot = np.linspace(0, LAST_KNOT, KNOTS)
    normal = np.exp(-np.square(knot) / 2)
    weight = np.full(KNOTS, 2 * LAST_KNOT / (KNOTS - 1))
    weight[[0, -1]] /= 2
    return knot.astype(np.float32), (weight * normal).astype(np.float32), normal.astype(np.float32)
