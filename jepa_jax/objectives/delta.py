"""Delta: visible tokens change from one time step to the next as their targets do."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float

from jepa_jax.objectives import base, temporal_pairs, term


@dataclasses.dataclass(frozen=True, kw_only=True)
class Delta(term.Term):
    """Mean over temporal pairs of |(z(t+1) − z(t)) − (h(t+1) − h(t))| (arXiv:2605.17165)."""

    coefficient: float = 0.5

    def value(self, head: base.Params, latents: base.Latents, moment: base.Moment) -> Float[Array, ""]:
        """The loss over the temporal pairs of each mask."""

        def of_view(view: base.View) -> Float[Array, ""]:
            pairs = temporal_pairs.pairs(view, latents.grid)
            error_BxKxD = pairs.change(view.context_BxKxD) - pairs.change_at(latents.target_BxNxD)
            return term.mean_where(jnp.abs(error_BxKxD), pairs.valid)

        return term.mean_over_masks(of_view, latents)
