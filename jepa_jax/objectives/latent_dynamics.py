"""Latent dynamics (LD): a head tells from a token how its target is about to change."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jepa_jax.objectives import base, factorization, hard_region, heads, temporal_pairs, term


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatentDynamics(term.Term, factorization.Seen):
    """Mean over temporal pairs of |head(z(t)) − (h(t+1) − h(t))| (arXiv:2605.17165).

    `weighting` is `hard` beside hard-region weighting: each pair counts n·softmax, over the n pairs of the batch, of
    its mean error / temperature, no gradient through the weight. In the study's code that error, too, has no gradient,
    so the term is but a number in its log: `hard_without_gradient`.
    """

    hidden: int = 256
    weighting: Literal["uniform", "hard", "hard_without_gradient"] = "uniform"
    temperature: float = 1.0

    def __post_init__(self) -> None:
        """Refuses settings out of range."""
        super().__post_init__()
        hard_region.check_temperature(self.temperature)

    def init(self, key: jax.Array, dims: base.Dims) -> base.Params:
        """Linear, GELU, Linear: channels seen → hidden → D."""
        return heads.init_mlp(key, (self.seen_width(dims), self.hidden, dims.features))

    def value(self, head: base.Params, latents: base.Latents, moment: base.Moment) -> Float[Array, ""]:
        """The loss over the temporal pairs of each mask."""

        def of_view(view: base.View) -> Float[Array, ""]:
            pairs = temporal_pairs.pairs(view, latents.grid)
            z_BxKxR = self.seen(view.context_BxKxD, latents.levels)
            change_BxKxD = pairs.change_at(latents.target_BxNxD)
            error_BxKxD = jnp.abs(heads.mlp(head, z_BxKxR).astype(jnp.float32) - change_BxKxD)
            if self.weighting == "uniform":
                return term.mean_where(error_BxKxD, pairs.valid)
            error_BxK = error_BxKxD.mean(-1)
            if self.weighting == "hard_without_gradient":
                error_BxK = jax.lax.stop_gradient(error_BxK)
            share_BxK = softmax_where(jax.lax.stop_gradient(error_BxK) / self.temperature, pairs.valid)
            return (share_BxK * error_BxK).sum()

        return term.mean_over_masks(of_view, latents)


def softmax_where(x_BxK: Float[Array, "B K"], valid_BxK: Bool[Array, "B K"]) -> Float[Array, "B K"]:
    """A softmax over all valid entries of the batch; 0 elsewhere, and everywhere where none is valid."""
    shifted_BxK = x_BxK - jnp.max(x_BxK, where=valid_BxK, initial=-1e30)
    weight_BxK = jnp.where(valid_BxK, jnp.exp(jnp.where(valid_BxK, shifted_BxK, 0.0)), 0.0)
    return weight_BxK / jnp.maximum(weight_BxK.sum(), 1e-30)
