"""Factorized world model (FWM): some channels are to hold appearance and stand still, the others dynamics."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

from jepa_jax.objectives import base, temporal_pairs, term


@dataclasses.dataclass(frozen=True, kw_only=True)
class Split:
    """Which of the D channels are appearance, the rest being dynamics.

    D is the levels of the encoder end to end, shallow ones first. `levels` cuts D once, after ⌊share·D⌋ channels, as
    the study does: with a share of ½ the two shallow levels are appearance and the two deep ones dynamics, so nothing
    inside a level is factorized, least of all in the last, the only one that is evaluated. `per_level` cuts every level
    after ⌊share·E⌋ of its channels. Objectives that are used together must have the same split.
    """

    appearance_share: float = 0.5
    split: Literal["levels", "per_level"] = "levels"

    def __post_init__(self) -> None:
        """Refuses a share outside [0, 1]."""
        if not 0 <= self.appearance_share <= 1:
            raise ValueError(f"appearance_share is {self.appearance_share}; expected a share in [0, 1]")

    def parts(
        self, z_BxKxD: Float[Array, "B K D"], levels: int
    ) -> tuple[Float[Array, "B K appearance"], Float[Array, "B K dynamics"]]:
        """Appearance and dynamics channels."""
        groups = 1 if self.split == "levels" else levels
        grouped = z_BxKxD.reshape(*z_BxKxD.shape[:2], groups, -1)
        cut = int(self.appearance_share * grouped.shape[-1])
        appearance, dynamics = grouped[..., :cut], grouped[..., cut:]
        return appearance.reshape(*z_BxKxD.shape[:2], groups * cut), dynamics.reshape(
            *z_BxKxD.shape[:2], z_BxKxD.shape[-1] - groups * cut
        )

    def dynamics_width(self, dims: base.Dims) -> int:
        """How many channels are dynamics."""
        groups = 1 if self.split == "levels" else dims.levels
        return dims.features - groups * int(self.appearance_share * (dims.features // groups))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Seen(Split):
    """What a head sees of a context token: all of z, or, beside a factorization, its dynamics channels."""

    channels: Literal["all", "dynamics"] = "all"

    def seen_width(self, dims: base.Dims) -> int:
        """How many channels the head sees."""
        return dims.features if self.channels == "all" else self.dynamics_width(dims)

    def seen(self, z_BxKxD: Float[Array, "B K D"], levels: int) -> Float[Array, "B K seen"]:
        """The channels that the head sees."""
        return z_BxKxD if self.channels == "all" else self.parts(z_BxKxD, levels)[1]


def check_agreement(objectives: Mapping[str, Any]) -> None:
    """Refuses objectives that take different channels for appearance.

    Raises:
        ValueError: names two that differ.
    """
    splits = {
        name: (objective.split, objective.appearance_share)
        for name, objective in objectives.items()
        if isinstance(objective, Split) and not (isinstance(objective, Seen) and objective.channels == "all")
    }
    for name, split in splits.items():
        other, first = next(iter(splits.items()))
        if split != first:
            raise ValueError(
                f"{other} splits channels by {first[0]!r} with an appearance_share of {first[1]}, "
                f"{name} by {split[0]!r} with {split[1]}; expected the same of both in "
                f"{', '.join(splits)}"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Static(term.Term, Split):
    """Mean over temporal pairs of |z_appearance(t+1) − z_appearance(t)| (arXiv:2605.17165)."""

    coefficient: float = 0.05

    def value(self, head: base.Params, latents: base.Latents, moment: base.Moment) -> Float[Array, ""]:
        """The loss over the temporal pairs of each mask."""

        def of_view(view: base.View) -> Float[Array, ""]:
            pairs = temporal_pairs.pairs(view, latents.grid)
            appearance_BxKxR, _ = self.parts(view.context_BxKxD, latents.levels)
            return term.mean_where(jnp.abs(pairs.change(appearance_BxKxR)), pairs.valid)

        return term.mean_over_masks(of_view, latents)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Orthogonality(term.Term, Split):
    """Mean of squares of the cross-covariance of appearance and dynamics channels (arXiv:2605.17165).

    Over all visible tokens of the batch, ÷ (n − 1). The product is taken in float32 proper (`highest`): rounding its
    factors to 8 bits, as accelerators do by default, leaves an error of the size of the small covariances it is to
    drive to zero. It costs a few times a bfloat16 product, of about 1 % of a ViT-B step's operations.
    """

    coefficient: float = 0.01

    def value(self, head: base.Params, latents: base.Latents, moment: base.Moment) -> Float[Array, ""]:
        """The loss over the visible tokens of each mask."""

        def of_view(view: base.View) -> Float[Array, ""]:
            z_BxKxD = view.context_BxKxD.astype(jnp.float32)
            appearance_BxKxR, dynamics_BxKxQ = self.parts(z_BxKxD - z_BxKxD.mean((0, 1)), latents.levels)
            samples = z_BxKxD.shape[0] * z_BxKxD.shape[1]
            if samples < 2 or not appearance_BxKxR.size or not dynamics_BxKxQ.size:
                return jnp.zeros(())
            covariance_RxQ = jnp.einsum("bkr,bkq->rq", appearance_BxKxR, dynamics_BxKxQ, precision="highest")
            return jnp.square(covariance_RxQ / (samples - 1)).mean()

        return term.mean_over_masks(of_view, latents)
