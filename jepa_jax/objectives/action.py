"""Action-conditioned (AC): a head tells from a token how the mean colour of its pixels is about to change."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jepa_jax.objectives import base, factorization, heads, temporal_pairs, term


@dataclasses.dataclass(frozen=True, kw_only=True)
class Action(term.Term, factorization.Seen):
    """Mean over temporal pairs of |head(z(t)) − (colour(t+1) − colour(t))| (arXiv:2605.17165).

    The colour of a token is the mean of its normalised pixels. With a head on the dynamics channels, beside a
    factorization, it is FAC.
    """

    hidden: int = 256

    def init(self, key: jax.Array, dims: base.Dims) -> base.Params:
        """Linear, GELU, Linear: channels seen → hidden → colours."""
        return heads.init_mlp(key, (self.seen_width(dims), self.hidden, dims.colours))

    def value(self, head: base.Params, latents: base.Latents, moment: base.Moment) -> Float[Array, ""]:
        """The loss over the temporal pairs of each mask."""

        def of_view(view: base.View) -> Float[Array, ""]:
            pairs = temporal_pairs.pairs(view, latents.grid)
            z_BxKxR = self.seen(view.context_BxKxD, latents.levels)
            change_BxKxC = pairs.change_at(latents.colour_BxNxC)
            return term.mean_where(jnp.abs(heads.mlp(head, z_BxKxR).astype(jnp.float32) - change_BxKxC), pairs.valid)

        return term.mean_over_masks(of_view, latents)
