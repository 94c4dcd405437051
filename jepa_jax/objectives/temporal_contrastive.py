"""Latent temporal contrast (LTC): a token is nearer to its own target than to the next time step's."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jepa_jax.objectives import base, temporal_pairs, term

LEAST_NORM = 1e-8


@dataclasses.dataclass(frozen=True, kw_only=True)
class TemporalContrastive(term.Term):
    """Mean over temporal pairs of max(0, margin − cos(z(t), h(t)) + cos(z(t), h(t+1))) (arXiv:2605.17165).

    Before the coefficient it lies in [0, margin + 2].
    """

    coefficient: float = 0.5
    margin: float = 0.5

    def value(self, head: base.Params, latents: base.Latents, moment: base.Moment) -> Float[Array, ""]:
        """The loss over the temporal pairs of each mask."""

        def of_view(view: base.View) -> Float[Array, ""]:
            pairs = temporal_pairs.pairs(view, latents.grid)
            z_BxKxD = unit(view.context_BxKxD.astype(jnp.float32))
            own_BxK = (z_BxKxD * unit(temporal_pairs.at(latents.target_BxNxD, pairs.index_BxK))).sum(-1)
            next_BxK = (z_BxKxD * unit(pairs.at_later(latents.target_BxNxD))).sum(-1)
            return term.mean_where(jnp.maximum(self.margin - own_BxK + next_BxK, 0.0)[..., None], pairs.valid)

        return term.mean_over_masks(of_view, latents)


def unit(x: Float[Array, "*S D"]) -> Float[Array, "*S D"]:
    """Vectors of length 1; a vector shorter than 1e-8 is divided by that."""
    return x * jax.lax.rsqrt(jnp.maximum(jnp.square(x).sum(-1, keepdims=True), LEAST_NORM**2))
