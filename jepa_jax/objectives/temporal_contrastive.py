"""Latent temporal contrast (LTC): each token is closer to its own target than to the next time step's."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jepa_jax.objectives import base, temporal_pairs

LEAST_NORM = 1e-8


@dataclasses.dataclass(frozen=True, kw_only=True)
class TemporalContrastive(base.Objective):
    """Mean over temporal pairs of max(0, margin − cos(z(t), h(t)) + cos(z(t), h(t+1))) (arXiv:2605.17165).

    Without the coefficient, the loss is in [0, margin + 2].
    """

    coefficient: float = 0.5
    margin: float = 0.5

    def view_value(self, head: base.Params, view: base.View, latents: base.Latents) -> Float[Array, ""]:
        """Returns the mean loss over the temporal pairs."""
        pairs = temporal_pairs.pairs(view, latents.grid)
        z_BxKxD = unit(view.context_BxKxD.astype(jnp.float32))
        own_BxK = (z_BxKxD * unit(temporal_pairs.at(latents.target_BxNxD, pairs.index_BxK))).sum(-1)
        next_BxK = (z_BxKxD * unit(pairs.at_later(latents.target_BxNxD))).sum(-1)
        return pairs.mean(jnp.maximum(self.margin - own_BxK + next_BxK, 0.0)[..., None])


def unit(x: Float[Array, "*S D"]) -> Float[Array, "*S D"]:
    """Returns vectors divided by their norms. Norms below 1e-8 count as 1e-8."""
    return x * jax.lax.rsqrt(jnp.maximum(jnp.square(x).sum(-1, keepdims=True), LEAST_NORM**2))
