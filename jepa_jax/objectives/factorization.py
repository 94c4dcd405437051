"""Factorized world model (FWM): appearance channels stay constant over time, dynamics channels may change."""

import dataclasses
from typing import Annotated

import jax.numpy as jnp
from jaxtyping import Array, Float

from jepa_jax.objectives import base, temporal_pairs
from jepa_jax.objectives.channel_split import ChannelSplit
from jepa_jax.settings import Inline

EPSILON = 1e-8  # of a variance; without it, equal features have no gradient


@dataclasses.dataclass(frozen=True, kw_only=True)
class Static(base.Objective):
    """Mean over temporal pairs of |z_appearance(t+1) − z_appearance(t)| (arXiv:2605.17165).

    Features that shrink lower this loss, and at the end all are equal. A relative loss has not this way out: it divides
    the change of each channel by the channel's standard deviation over the visible tokens of the batch (ours).
    """

    coefficient: float = 0.05
    relative: bool = False
    channel_split: Annotated[ChannelSplit, Inline] = dataclasses.field(default_factory=ChannelSplit)

    def view_value(self, head: base.Params, view: base.View, latents: base.Latents) -> Float[Array, ""]:
        """Returns the mean change over the temporal pairs."""
        pairs = temporal_pairs.pairs(view, latents.grid)
        appearance_BxKxR, _ = self.channel_split.parts(view.context_BxKxD, latents.levels)
        change_BxKxR = jnp.abs(pairs.change(appearance_BxKxR))
        if self.relative:
            change_BxKxR /= jnp.sqrt(appearance_BxKxR.astype(jnp.float32).var((0, 1)) + EPSILON)
        return pairs.mean(change_BxKxR)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Orthogonality(base.Objective):
    """Mean square of the cross-covariance between appearance and dynamics channels (arXiv:2605.17165).

    The covariance is over all n visible tokens of the batch, divided by n − 1. Its product is computed in full float32
    (`highest`). By default, accelerators round the factors to 8 bits, an error as large as the small covariances that
    this loss drives to zero. Full precision costs a few times a bfloat16 product, which is about 1 % of the operations
    of a ViT-B step.
    """

    coefficient: float = 0.01
    channel_split: Annotated[ChannelSplit, Inline] = dataclasses.field(default_factory=ChannelSplit)

    def view_value(self, head: base.Params, view: base.View, latents: base.Latents) -> Float[Array, ""]:
        """Returns the loss over the visible tokens; 0 for a single token or if either part is empty."""
        z_BxKxD = view.context_BxKxD.astype(jnp.float32)
        appearance_BxKxR, dynamics_BxKxQ = self.channel_split.parts(z_BxKxD - z_BxKxD.mean((0, 1)), latents.levels)
        samples = z_BxKxD.shape[0] * z_BxKxD.shape[1]
        if samples < 2 or not appearance_BxKxR.size or not dynamics_BxKxQ.size:
            return jnp.zeros(())
        covariance_RxQ = jnp.einsum("bkr,bkq->rq", appearance_BxKxR, dynamics_BxKxQ, precision="highest")
        return jnp.square(covariance_RxQ / (samples - 1)).mean()
