"""Compares this package with golden numbers on the present device: `python -m jepa_jax.parity FOLDER`.

A row a case: the greatest difference, the same relative to the greatest number of its array, and whether all is within
the tolerance. Exits with 1 if something is not; `--precision=bfloat16` computes in bfloat16 and only reports.
"""

import pathlib
import sys
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from absl import app, flags

from jepa_jax.golden import comparison, inputs, models, objectives, trajectories

PRECISION = flags.DEFINE_enum("precision", "float32", ["float32", "bfloat16"], "What models and objectives compute in.")


def cases(folder: comparison.Folder) -> Iterator[comparison.Case]:
    """Every case of a golden folder."""
    for part in (inputs, models, objectives, trajectories):
        yield from part.cases(folder)


def main(arguments: list[str]) -> int:
    """A folder in, a table out."""
    if len(arguments) != 2:
        raise app.UsageError("Give one folder of golden numbers, as in: python -m jepa_jax.parity tests/golden")
    path = pathlib.Path(arguments[1])
    if not (path / "meta.json").exists():
        print(f"Error: {path} has no meta.json; expected a folder of golden numbers.", file=sys.stderr)
        return 1
    dtype = jnp.dtype(PRECISION.value)
    print(f"{PRECISION.value} on {jax.devices()[0].device_kind}")
    return report(comparison.Folder(path, dtype), judge=PRECISION.value == "float32")


def report(folder: comparison.Folder, *, judge: bool) -> int:
    """Prints a row a case; 1 if `judge` and a case is past its tolerance, else 0."""
    print(f"{'case':52} {'max abs':>9} {'max rel':>9}  ok")
    bad = 0
    for case in cases(folder):
        result = comparison.run(case, folder.dtype)
        bad += bool(result.failed)
        print(
            f"{case.name:52} {result.absolute:9.1e} {result.relative:9.1e}  {'NO' if result.failed else 'yes'}",
            flush=True,
        )
        for line in result.failed if judge else []:
            print(f"    {line}")
    print(f"{bad} cases past their tolerance")
    return int(judge and bad > 0)


if __name__ == "__main__":
    app.run(main)
