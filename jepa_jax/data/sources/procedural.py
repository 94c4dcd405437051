"""Rendered sources: procedural sprites.

JAX and the modules that use it are imported where they are used: sources are also used where JAX is not needed.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float32, Int32, UInt8

from jepa_jax import config
from jepa_jax.data.sources import fingerprints, interface
from jepa_jax.settings import to_dict


@dataclasses.dataclass(frozen=True)
class Sprites(interface.Source):
    """Procedural sprites (see `data.sprites`); nothing is read from disk."""

    noun: ClassVar[str] = "sprites"
    rendered: ClassVar[bool] = True
    renders_in_step: ClassVar[bool] = True
    reversible: ClassVar[bool] = True
    tracked: ClassVar[bool] = True

    @classmethod
    def task_classes(cls) -> Mapping[str, Sequence[str]]:
        """The classes of appearance, motion and order of events."""
        from jepa_jax.data import sprites

        return sprites.CLASSES

    @classmethod
    def check(cls, settings: config.SourceConfig) -> None:
        """Raises ValueError for a split that sprites do not have."""
        if settings.split == "validation":
            raise ValueError("split is 'validation', which sprites do not have; expected 'train' or 'test'")

    @classmethod
    def open(cls, settings: config.SourceConfig, name: str, setting: str) -> interface.Source:
        """`settings.clips` sprites."""
        del setting
        return cls(name, settings, settings.clips)

    def render(
        self, clip: config.ClipConfig, seed: int, item_B: Int32[np.ndarray, "B"]
    ) -> tuple[UInt8[np.ndarray, "B F Y X 3"], dict[str, np.ndarray]]:
        """Renders clips and labels to host arrays, on the CPU backend if there is one."""
        import jax

        from jepa_jax.data import sprites

        spec = sprites.spec_of(clip, self.settings.difficulty)
        try:
            device = jax.local_devices(backend="cpu")[0]
        except RuntimeError:  # JAX_PLATFORMS names accelerators only
            device = None
        with jax.default_device(device):
            video_BxFxYxXxC, labels = sprites.render(spec, seed, self.settings.split, item_B)
        return np.asarray(video_BxFxYxXxC), {task: np.asarray(label_B) for task, label_B in labels.items()}

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

    def item_names(self, seed: int) -> tuple[str, ...]:
        """`sprites-VERSION/DIFFICULTY/SPLIT/SEED/ITEM`."""
        from jepa_jax.data import sprites

        drawn = f"sprites-{sprites.VERSION}/{self.settings.difficulty}/{self.settings.split}/{seed}"
        return tuple(f"{drawn}/{item}" for item in range(self.size))

    def addresses(self, seed: int) -> Iterable[str]:
        """The names: they identify the clips."""
        return self.item_names(seed)

    def cache_key(self, seed: int, labels_I: Int32[np.ndarray, "I"]) -> dict[str, Any]:
        """The settings, the version of the drawing code and the seed."""
        from jepa_jax.data import sprites

        del labels_I
        return {"sprites": to_dict(self.settings), "version": sprites.VERSION, "seed": seed}

    def fingerprint(self) -> fingerprints.Fingerprint:
        """The version of the drawing code."""
        from jepa_jax.data import sprites

        return fingerprints.Fingerprint((), {}, {"sprites": str(sprites.VERSION)})
