"""Latent dynamics (LD): a head predicts from each token how its target changes."""

import dataclasses
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jepa_jax.objectives import base, heads, temporal_pairs
from jepa_jax.objectives.channel_split import HeadChannels
from jepa_jax.settings import Inline


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatentDynamics(base.Objective):
    """Mean over temporal pairs of |head(z(t)) − (h(t+1) − h(t))| (arXiv:2605.17165).

    In combination with hard-region weighting, `weighting` is `hard`: each of the n pairs of the batch is weighted by n
    times the softmax of mean error / temperature, and the weight has no gradient. In the study's code the error has no
    gradient either, so the loss is only logged; `hard_without_gradient` reproduces that.
    """

    channel_split: Annotated[HeadChannels, Inline] = dataclasses.field(default_factory=HeadChannels)
    hidden: int = 256
    weighting: Literal["uniform", "hard", "hard_without_gradient"] = "uniform"
    temperature: float = 1.0

    def __post_init__(self) -> None:
        base.require_positive(self, "temperature")

    def init(self, key: jax.Array, dims: base.Dims) -> base.Params:
        """Returns the parameters of a head (Linear, GELU, Linear): selected channels → hidden → D."""
        return heads.init_mlp(key, (self.channel_split.width(dims.features, dims.levels), self.hidden, dims.features))

    def view_value(self, head: base.Params, view: base.View, latents: base.Latents) -> Float[Array, ""]:
        """Returns the weighted mean error over the temporal pairs."""
        pairs = temporal_pairs.pairs(view, latents.grid)
        z_BxKxR = self.channel_split.select(view.context_BxKxD, latents.levels)
        change_BxKxD = pairs.change_at(latents.target_BxNxD)
        error_BxKxD = jnp.abs(heads.mlp(head, z_BxKxR).astype(jnp.float32) - change_BxKxD)
        if self.weighting == "uniform":
            return pairs.mean(error_BxKxD)
        error_BxK = error_BxKxD.mean(-1)
        if self.weighting == "hard_without_gradient":
            error_BxK = jax.lax.stop_gradient(error_BxK)
        share_BxK = softmax_where(jax.lax.stop_gradient(error_BxK) / self.temperature, pairs.valid)
        return (share_BxK * error_BxK).sum()


def softmax_where(x_BxK: Float[Array, "B K"], valid_BxK: Bool[Array, "B K"]) -> Float[Array, "B K"]:
    """Returns the softmax over all valid entries of the batch. Invalid entries are 0."""
    shifted_BxK = x_BxK - jnp.max(x_BxK, where=valid_BxK, initial=-1e30)
    weight_BxK = jnp.where(valid_BxK, jnp.exp(jnp.where(valid_BxK, shifted_BxK, 0.0)), 0.0)
    return weight_BxK / jnp.maximum(weight_BxK.sum(), 1e-30)
