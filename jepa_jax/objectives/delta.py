"""Delta: the change of visible tokens between time steps matches the change of their targets."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float

from jepa_jax.objectives import base, temporal_pairs


@dataclasses.dataclass(frozen=True, kw_only=True)
class Delta(base.Objective):
    """Mean over temporal pairs of |(z(t+1) − z(t)) − (h(t+1) − h(t))| (arXiv:2605.17165)."""

    coefficient: float = 0.5

    def view_value(self, head: base.Params, view: base.View, latents: base.Latents) -> Float[Array, ""]:
        """Returns the mean error over the temporal pairs."""
        pairs = temporal_pairs.pairs(view, latents.grid)
        return pairs.mean(jnp.abs(pairs.change(view.context_BxKxD) - pairs.change_at(latents.target_BxNxD)))
