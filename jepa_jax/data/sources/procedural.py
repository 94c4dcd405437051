"""Rendered sources: sprites and moving discs.

JAX and the modules that use it are imported where they are used: sources are also used where JAX is not needed.
"""

import abc
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float32, Int32, UInt8

from jepa_jax import config
from jepa_jax.data.sources import fingerprints, interface
from jepa_jax.settings import to_dict


@dataclasses.dataclass(frozen=True)
class Procedural(interface.Source):
    """Clips that JAX renders; nothing is read from disk.

    A subclass implements `version`, `variant`, `task_classes` and `renderer`, and names its set.
    """

    set_name: ClassVar[str]  # in the names of items, in fingerprints and among recorded versions
    rendered: ClassVar[bool] = True
    renders_in_step: ClassVar[bool] = True

    @classmethod
    @abc.abstractmethod
    def version(cls) -> Any:
        """Returns the version of the drawing code, as JSON: clips of different versions are not comparable."""

    @classmethod
    @abc.abstractmethod
    def variant(cls, settings: config.SourceConfig) -> str:
        """Returns the variant of the set that the settings choose, for the names of items."""

    @classmethod
    def check(cls, settings: config.SourceConfig) -> None:
        """Raises ValueError for a split that rendered sets do not have."""
        if settings.split == "validation":
            raise ValueError(f"split is 'validation', which {cls.noun} do not have; expected 'train' or 'test'")

    @classmethod
    def open(cls, settings: config.SourceConfig, name: str, setting: str) -> interface.Source:
        """`settings.clips` clips."""
        del setting
        return cls(name, settings, settings.clips)

    def render(
        self, clip: config.ClipConfig, seed: int, item_B: Int32[np.ndarray, "B"]
    ) -> tuple[UInt8[np.ndarray, "B F Y X 3"], dict[str, np.ndarray]]:
        """Renders clips and labels to host arrays, on the CPU backend if there is one."""
        import jax

        render = self.renderer(self.settings, clip)
        try:
            device = jax.local_devices(backend="cpu")[0]
        except RuntimeError:  # JAX_PLATFORMS names accelerators only
            device = None
        with jax.default_device(device):
            video_BxFxYxXxC, labels = render(seed, item_B)
        return np.asarray(video_BxFxYxXxC), {task: np.asarray(label_B) for task, label_B in labels.items()}

    def item_names(self, seed: int) -> tuple[str, ...]:
        """`SET-VERSION/VARIANT/SPLIT/SEED/ITEM`."""
        drawn = f"{self.set_name}-{self.version()}/{self.variant(self.settings)}/{self.settings.split}/{seed}"
        return tuple(f"{drawn}/{item}" for item in range(self.size))

    def addresses(self, seed: int) -> Iterable[str]:
        """The names: they identify the clips."""
        return self.item_names(seed)

    def cache_key(self, seed: int, labels_I: Int32[np.ndarray, "I"]) -> dict[str, Any]:
        """The settings, the version of the drawing code and the seed."""
        del labels_I
        return {self.set_name: to_dict(self.settings), "version": self.version(), "seed": seed}

    def fingerprint(self) -> fingerprints.Fingerprint:
        """The version of the drawing code."""
        return fingerprints.Fingerprint((), {}, {self.set_name: str(self.version())})


@dataclasses.dataclass(frozen=True)
class Sprites(Procedural):
    """Procedural sprites (see `data.sprites`)."""

    noun: ClassVar[str] = "sprites"
    set_name: ClassVar[str] = "sprites"
    reversible: ClassVar[bool] = True
    tracked: ClassVar[bool] = True

    @classmethod
    def version(cls) -> Any:
        """The version of sprites."""
        from jepa_jax.data import sprites

        return sprites.VERSION

    @classmethod
    def variant(cls, settings: config.SourceConfig) -> str:
        """The difficulty."""
        return settings.difficulty

    @classmethod
    def task_classes(cls) -> Mapping[str, Sequence[str]]:
        """The classes of appearance, motion and order of events."""
        from jepa_jax.data import sprites

        return sprites.CLASSES

    @classmethod
    def renderer(cls, settings: config.SourceConfig, clip: config.ClipConfig) -> interface.Render:
        """Raises ConfigError if sprites cannot have the shape of `clip`."""
        from jepa_jax.data import sprites

        spec = sprites.spec_of(clip, settings.difficulty)
        return lambda seed, item_B: sprites.render(spec, seed, settings.split, item_B)

    def velocities(
        self, clip: config.ClipConfig, seed: int, item_B: Int32[np.ndarray, "B"]
    ) -> Float32[np.ndarray, "B F XY"]:
        """The velocity of the glyph in each frame."""
        from jepa_jax.data import sprites

        spec = sprites.spec_of(clip, self.settings.difficulty)
        return np.asarray(sprites.velocities(spec, seed, self.settings.split, item_B))

    @classmethod
    def reverse_labels(cls, labels: Mapping[str, Any]) -> Mapping[str, Any]:
        """The labels of clips played backwards."""
        from jepa_jax.data import sprites

        return {task: np.asarray(values) for task, values in sprites.reverse_labels(labels).items()}


@dataclasses.dataclass(frozen=True)
class Directions(Procedural):
    """Discs in eight directions that stop at the border (see `data.directions`)."""

    noun: ClassVar[str] = "moving discs"
    set_name: ClassVar[str] = "directions"
    motion: ClassVar[str] = "clamped"  # a name of `data.directions.MOTIONS`

    @classmethod
    def version(cls) -> Any:
        """The version of moving discs."""
        from jepa_jax.data import directions

        return directions.VERSION

    @classmethod
    def variant(cls, settings: config.SourceConfig) -> str:
        """How discs move."""
        del settings
        return cls.motion

    @classmethod
    def task_classes(cls) -> Mapping[str, Sequence[str]]:
        """The eight directions, or the velocities along x and y."""
        from jepa_jax.data import directions

        return directions.classes(cls.motion)

    @classmethod
    def renderer(cls, settings: config.SourceConfig, clip: config.ClipConfig) -> interface.Render:
        """Raises ConfigError if clips cannot have the shape of `clip`."""
        from jepa_jax.data import directions

        spec = directions.spec_of(clip, cls.motion)
        return lambda seed, item_B: directions.render(spec, seed, settings.split, item_B)


@dataclasses.dataclass(frozen=True)
class WrappedDirections(Directions):
    """Discs in eight directions that leave on one side and re-enter on the other."""

    motion: ClassVar[str] = "wrapped"


@dataclasses.dataclass(frozen=True)
class MovingDiscs(Directions):
    """Discs with random velocities that stop at the border."""

    motion: ClassVar[str] = "random"
