"""Kinematic: targets change slowly, or at a constant rate, from one time step to the next."""

import dataclasses
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

from jepa_jax.objectives import base


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kinematic(base.Objective):
    """Mean over all positions of a penalty on the motion of the targets h (arXiv:2605.17165).

    `l1`: |x| with x = h(t+1) − h(t). `huber`: ½x² where |x| < threshold, otherwise threshold·(|x| − threshold/2).
    `acceleration`: |h(t+2) − 2h(t+1) + h(t)|. Only the first ⌊share·D⌋ channels count. With EMA, targets have no
    gradient, so the loss has no effect. The study's `anneal` is a cosine schedule of the coefficient.
    """

    kind: Literal["l1", "huber", "acceleration"] = "l1"
    share: float = 1.0
    threshold: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"share is {self.share}; expected a share in (0, 1]")

    def value(self, head: base.Params, latents: base.Latents, context: base.StepContext) -> Float[Array, ""]:
        """Returns the loss over all positions, visible or not; it does not depend on the masks."""
        time = latents.grid[0]
        batch, tokens, features = latents.target_BxNxD.shape
        h_BxTxHWxD = latents.target_BxNxD.reshape(batch, time, tokens // time, features)
        h_BxTxHWxR = h_BxTxHWxD[..., : int(self.share * features)].astype(jnp.float32)
        motion = h_BxTxHWxR[:, 1:] - h_BxTxHWxR[:, :-1]
        if self.kind == "acceleration":
            motion = motion[:, 1:] - motion[:, :-1]
        if not motion.size:
            return jnp.zeros(())
        size = jnp.abs(motion)
        if self.kind == "huber":
            size = jnp.where(
                size < self.threshold, 0.5 * jnp.square(motion), self.threshold * (size - 0.5 * self.threshold)
            )
        return size.mean()
