"""Hard-region weighting (HW): tokens with a large prediction error count more."""

import dataclasses

import jax
from jaxtyping import Array, Float

from jepa_jax.objectives import base, prediction


@dataclasses.dataclass(frozen=True, kw_only=True)
class HardRegion(base.Objective):
    """Mean of w·|ẑ − h[target]|^p / p, in addition to the prediction loss (arXiv:2605.17165).

    w is M times the softmax of mean error / temperature over the M target tokens of a clip. w has no gradient.
    """

    coefficient: float = 0.3
    temperature: float = 1.0
    exponent: float = 1.0

    def __post_init__(self) -> None:
        base.require_positive(self, "temperature")

    def view_value(self, head: base.Params, view: base.View, latents: base.Latents) -> Float[Array, ""]:
        """Returns the loss over the target tokens."""
        error_BxM = prediction.target_error(view, latents, self.exponent).mean(-1)
        share_BxM = jax.nn.softmax(jax.lax.stop_gradient(error_BxM) / self.temperature, axis=-1)
        return (share_BxM * error_BxM).sum(-1).mean()
