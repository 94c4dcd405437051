"""Action-conditioned (AC): a head predicts from each token how the mean colour of its pixels changes."""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jepa_jax.objectives import base, heads, temporal_pairs
from jepa_jax.objectives.channel_split import HeadChannels
from jepa_jax.settings import Inline


@dataclasses.dataclass(frozen=True, kw_only=True)
class Action(base.Objective):
    """Mean over temporal pairs of |head(z(t)) − (colour(t+1) − colour(t))| (arXiv:2605.17165).

    The colour of a token is the mean of its normalised pixels. FAC is this objective with a head on the dynamics
    channels, combined with a factorization.
    """

    channel_split: Annotated[HeadChannels, Inline] = dataclasses.field(default_factory=HeadChannels)
    hidden: int = 256

    def init(self, key: jax.Array, dims: base.Dims) -> base.Params:
        """Returns the parameters of a head (Linear, GELU, Linear): selected channels → hidden → colours."""
        return heads.init_mlp(key, (self.channel_split.width(dims.features, dims.levels), self.hidden, dims.colours))

    def view_value(self, head: base.Params, view: base.View, latents: base.Latents) -> Float[Array, ""]:
        """Returns the mean error over the temporal pairs."""
        pairs = temporal_pairs.pairs(view, latents.grid)
        z_BxKxR = self.channel_split.select(view.context_BxKxD, latents.levels)
        return pairs.mean(jnp.abs(heads.mlp(head, z_BxKxR).astype(jnp.float32) - pairs.change_at(latents.colour_BxNxC)))
