"""Hard-region weighting (HW): tokens that are predicted badly count more."""

import dataclasses

import jax
from jaxtyping import Array, Float

from jepa_jax.objectives import base, prediction, temporal_pairs, term


@dataclasses.dataclass(frozen=True, kw_only=True)
class HardRegion(term.Term):
    """Mean of w·|ẑ − h[target]|^p / p, beside the prediction loss (arXiv:2605.17165).

    w = M·softmax, over the M target tokens of a clip, of the token's mean error / temperature; no gradient through w.
    """

    coefficient: float = 0.3
    temperature: float = 1.0
    exponent: float = 1.0

    def __post_init__(self) -> None:
        """Refuses a temperature that is not positive."""
        check_temperature(self.temperature)

    def value(self, head: base.Params, latents: base.Latents, moment: base.Moment) -> Float[Array, ""]:
        """The loss over target tokens."""

        def of_view(view: base.View) -> Float[Array, ""]:
            h_BxMxD = temporal_pairs.at(latents.target_BxNxD, view.target_index_BxM)
            error_BxM = prediction.power(view.predicted_target_BxMxD - h_BxMxD, self.exponent).mean(-1)
            share_BxM = jax.nn.softmax(jax.lax.stop_gradient(error_BxM) / self.temperature, axis=-1)
            return (share_BxM * error_BxM).sum(-1).mean()

        return term.mean_over_masks(of_view, latents)


def check_temperature(temperature: float) -> None:
    """Refuses a temperature that is not positive."""
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}; expected more than 0")
