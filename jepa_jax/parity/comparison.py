"""Cases of a golden folder, their comparisons and tolerances."""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np

LEVELS = 4
LOSS, ARRAY, PARAMETER, QKV_BIAS_NORM = 2e-6, 1e-5, 2e-5, 1e-4
TRAJECTORY_LOSS = 5e-6  # optax rounds β₂ to float32 in its bias correction, which changes a loss by up to 3e-6


@dataclasses.dataclass(frozen=True)
class Folder:
    """A folder of golden numbers, with sizes and settings in `meta.json`, and the type to compute in."""

    path: pathlib.Path
    dtype: Any = np.float32

    @functools.cached_property
    def meta(self) -> dict[str, Any]:
        """Model sizes, and the settings of each objective's case."""
        return json.loads((self.path / "meta.json").read_text())

    @property
    def grid(self) -> tuple[int, int, int]:
        """Tokens of a clip along time, height and width."""
        time, height, width = self.meta["grid"]
        return time, height, width

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """Returns all arrays of NAME.npz."""
        return _arrays(self.path / f"{name}.npz")

    def has(self, file: str) -> bool:
        """Whether the folder has this file. A folder need not have all of them."""
        return (self.path / file).exists()


@functools.cache
def _arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    with np.load(path) as arrays:
        return dict(arrays)


def linear(arrays: Mapping[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    """Returns the parameters of a Linear of PyTorch: [out, in] becomes [in, out]."""
    return {"kernel": arrays[f"{name}.weight"].T, "bias": arrays[f"{name}.bias"]}


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A computed array and the stored one; `tolerance` is absolute, `share` relative to the stored maximum."""

    name: str
    got: Any
    expected: Any
    tolerance: float = ARRAY
    share: float = float("inf")

    @property
    def absolute(self) -> float:
        """The largest difference; infinite if there is a NaN or the shapes differ."""
        got, expected = np.asarray(self.got, np.float64), np.asarray(self.expected, np.float64)
        if got.shape != expected.shape:
            return float("inf")
        difference = np.abs(got - expected).max(initial=0.0)
        return float("inf") if np.isnan(difference) else float(difference)

    @property
    def relative(self) -> float:
        """The largest difference divided by the stored maximum; 0 if the arrays are equal."""
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
    """A named computation that yields comparisons."""

    name: str
    run: Callable[[], Iterable[Comparison]]


@dataclasses.dataclass(frozen=True)
class Result:
    """The comparisons of a case."""

    name: str
    comparisons: tuple[Comparison, ...]

    @property
    def absolute(self) -> float:
        """The largest difference."""
        return max(c.absolute for c in self.comparisons)

    @property
    def relative(self) -> float:
        """The largest relative difference."""
        return max(c.relative for c in self.comparisons)

    @property
    def failed(self) -> list[str]:
        """A line for each comparison that is not within tolerance."""
        return [
            f"{c.name}: {c.absolute:.1e} ({c.relative:.1e} of the maximum); allowed {c.tolerance:.0e} ({c.share:.0e})"
            for c in self.comparisons
            if not c.ok
        ]


def run(case: Case, dtype: Any = np.float32) -> Result:
    """Runs a case. With float32, matrix products use full float32 precision on every device."""
    precision = "highest" if np.dtype(dtype) == np.float32 else "default"
    with jax.default_matmul_precision(precision):
        comparisons = tuple(case.run())
    if not comparisons:
        raise ValueError(f"case {case.name} compares nothing")
    return Result(case.name, comparisons)
