"""Compares this package with golden numbers on the default device: `python -m jepa_jax.parity FOLDER`.

Prints a row per case: the largest absolute difference, the largest difference relative to the maximum of its array, and
whether both are within tolerance. Exits with 1 if a case is not. `--precision=bfloat16` computes in bfloat16, reports
the differences and always exits with 0.
"""

import sys
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from absl import app, flags

from jepa_jax.files.paths import require_local
from jepa_jax.parity import comparison, input_cases, model_cases, objective_cases, trajectory_cases
from jepa_jax.settings import ConfigError

PRECISION = flags.DEFINE_enum("precision", "float32", ["float32", "bfloat16"], "Type to compute in.")


def cases(folder: comparison.Folder) -> Iterator[comparison.Case]:
    """Yields every case of a golden folder."""
    for part in (input_cases, model_cases, objective_cases, trajectory_cases):
        yield from part.cases(folder)


def main(arguments: list[str]) -> int:
    """Prints the table. Returns 1 after an error or if a case is not within tolerance, else 0."""
    if len(arguments) != 2:
        raise app.UsageError("Give one folder of golden numbers, as in: python -m jepa_jax.parity tests/golden")
    try:
        path = require_local(arguments[1], "FOLDER")
    except ConfigError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    if not (path / "meta.json").exists():
        print(f"Error: {path} has no meta.json; expected a folder of golden numbers.", file=sys.stderr)
        return 1
    dtype = jnp.dtype(PRECISION.value)
    print(f"{PRECISION.value} on {jax.devices()[0].device_kind}")
    return report(comparison.Folder(path, dtype), judge=PRECISION.value == "float32")


def report(folder: comparison.Folder, *, judge: bool) -> int:
    """Prints a row per case. Returns 1 if `judge` is set and a case is not within tolerance, else 0."""
    print(f"{'case':52} {'max abs':>9} {'max rel':>9}  ok")
    failures = 0
    for case in cases(folder):
        result = comparison.run(case, folder.dtype)
        failures += bool(result.failed)
        print(
            f"{case.name:52} {result.absolute:9.1e} {result.relative:9.1e}  {'NO' if result.failed else 'yes'}",
            flush=True,
        )
        for line in result.failed if judge else []:
            print(f"    {line}")
    print(f"{failures} cases not within tolerance")
    return int(judge and failures > 0)


if __name__ == "__main__":
    app.run(main)
