"""The split of channels into appearance and dynamics, for factorized world models."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from jaxtyping import Array, Float

from jepa_jax import settings


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChannelSplit:
    """Splits the D channels of a token into appearance and dynamics.

    D is the concatenation of the encoder's levels, shallow ones first. `levels` splits D once, after ⌊share·D⌋
    channels, as in the study: with a share of ½ and four levels, the two shallow levels are appearance and the two deep
    ones dynamics. No single level is then factorized, and evaluation uses only the last level. `per_level` splits every
    level of E channels after ⌊share·E⌋. All objectives of a run must use the same split.
    """

    appearance_share: float = 0.5
    split: Literal["levels", "per_level"] = "levels"

    def __post_init__(self) -> None:
        settings.share(self, "appearance_share")

    def parts(
        self, z_BxKxD: Float[Array, "B K D"], levels: int
    ) -> tuple[Float[Array, "B K appearance"], Float[Array, "B K dynamics"]]:
        """Returns the appearance channels and the dynamics channels."""
        batch, tokens, features = z_BxKxD.shape
        groups, cut = self._groups_and_cut(features, levels)
        z_BxKxGxE = z_BxKxD.reshape(batch, tokens, groups, -1)
        appearance, dynamics = z_BxKxGxE[..., :cut], z_BxKxGxE[..., cut:]
        width = groups * cut
        return appearance.reshape(batch, tokens, width), dynamics.reshape(batch, tokens, features - width)

    def dynamics_width(self, features: int, levels: int) -> int:
        """Returns the number of dynamics channels among `features`."""
        groups, cut = self._groups_and_cut(features, levels)
        return features - groups * cut

    @property
    def is_used(self) -> bool:
        """Whether appearance and dynamics channels are treated differently."""
        return True

    def _groups_and_cut(self, features: int, levels: int) -> tuple[int, int]:
        groups = 1 if self.split == "levels" else levels
        return groups, int(self.appearance_share * (features // groups))


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadChannels(ChannelSplit):
    """Selects the channels of context tokens for a head: all, or, with a factorization, only the dynamics channels."""

    channels: Literal["all", "dynamics"] = "all"

    @property
    def is_used(self) -> bool:
        """Whether the head receives only the dynamics channels."""
        return self.channels == "dynamics"

    def width(self, features: int, levels: int) -> int:
        """Returns the number of channels that the head receives."""
        return self.dynamics_width(features, levels) if self.is_used else features

    def select(self, z_BxKxD: Float[Array, "B K D"], levels: int) -> Float[Array, "B K selected"]:
        """Returns the channels that the head receives."""
        return self.parts(z_BxKxD, levels)[1] if self.is_used else z_BxKxD


def used_splits(objectives: Mapping[str, Any]) -> dict[str, ChannelSplit]:
    """Returns the `channel_split` of each objective that uses one, by objective name."""
    splits = {name: getattr(objective, "channel_split", None) for name, objective in objectives.items()}
    return {name: split for name, split in splits.items() if isinstance(split, ChannelSplit) and split.is_used}


def check_equal(objectives: Mapping[str, Any]) -> None:
    """Raises ValueError if two objectives split channels differently; the message names both."""
    splits = used_splits(objectives)
    for name, split in splits.items():
        first, expected = next(iter(splits.items()))
        if (split.split, split.appearance_share) != (expected.split, expected.appearance_share):
            raise ValueError(
                f"{first} splits channels by {expected.split!r} with an appearance_share of "
                f"{expected.appearance_share}, {name} by {split.split!r} with {split.appearance_share}; expected the "
                f"same in {', '.join(splits)}"
            )
