"""What a case of a golden folder is, and how far from it is too far."""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np

from jepa_jax import models

LEVELS = 4
LOSS, ARRAY, PARAMETER, QKV_BIAS_NORM = 2e-6, 1e-5, 2e-5, 1e-4


@dataclasses.dataclass(frozen=True)
class Folder:
    """Golden numbers on disk, their sizes and settings in `meta.json`; and the type to compute in."""

    path: pathlib.Path
    dtype: Any = np.float32

    @functools.cached_property
    def meta(self) -> dict[str, Any]:
        """Sizes of the models, and settings of each objective's case."""
        return json.loads((self.path / "meta.json").read_text())

    @property
    def grid(self) -> tuple[int, int, int]:
        """Tokens of a clip in time, height and width."""
        time, height, width = self.meta["grid"]
        return time, height, width

    @property
    def ends(self) -> tuple[int, ...]:
        """Blocks run at the end of each of the four levels."""
        return tuple(models.level_ends(self.meta["depth"], LEVELS))

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """All arrays of NAME.npz."""
        return _arrays(self.path / f"{name}.npz")

    def has(self, file: str) -> bool:
        """Whether the folder has this file; a folder may hold a part."""
        return (self.path / file).exists()


@functools.cache
def _arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    with np.load(path) as arrays:
        return dict(arrays)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A computed array beside the stored one; `tolerance` is absolute, `share` of the greatest stored number."""

    name: str
    got: Any
    expected: Any
    tolerance: float = ARRAY
    share: float = float("inf")

    @property
    def absolute(self) -> float:
        """The greatest difference; infinite for a NaN or another shape."""
        got, expected = np.asarray(self.got, np.float64), np.asarray(self.expected, np.float64)
        if got.shape != expected.shape:
            return float("inf")
        difference = np.abs(got - expected).max(initial=0.0)
        return float("inf") if np.isnan(difference) else float(difference)

    @property
    def relative(self) -> float:
        """The greatest difference, as a share of the greatest stored number; 0 where both are zero."""
        if self.absolute == 0:
            return 0.0
        scale = float(np.abs(np.asarray(self.expected, np.float64)).max(initial=0.0))
        return self.absolute / scale if scale > 0 else float("inf")

    @property
    def ok(self) -> bool:
        """Whether the difference is within both tolerances."""
        return self.absolute <= self.tolerance and self.relative <= self.share


@dataclasses.dataclass(frozen=True)
class Case:
    """A named computation and the comparisons it makes when run."""

    name: str
    run: Callable[[], Iterable[Comparison]]


@dataclasses.dataclass(frozen=True)
class Result:
    """How a case went: the worst of its comparisons."""

    name: str
    comparisons: tuple[Comparison, ...]

    @property
    def absolute(self) -> float:
        """The greatest difference."""
        return max(c.absolute for c in self.comparisons)

    @property
    def relative(self) -> float:
        """The greatest difference relative to its array."""
        return max(c.relative for c in self.comparisons)

    @property
    def failed(self) -> list[str]:
        """One line for each comparison past its tolerance."""
        return [
            f"{c.name}: {c.absolute:.1e} ({c.relative:.1e} of the greatest); allowed {c.tolerance:.0e} ({c.share:.0e})"
            for c in self.comparisons
            if not c.ok
        ]


def run(case: Case, dtype: Any = np.float32) -> Result:
    """Runs a case; in float32, matrix products are taken in float32 on every device."""
    precision = "highest" if np.dtype(dtype) == np.float32 else "default"
    with jax.default_matmul_precision(precision):
        comparisons = tuple(case.run())
    if not comparisons:
        raise ValueError(f"case {case.name} compares nothing")
    return Result(case.name, comparisons)
