"""Prepares a folder of files for a benchmark."""

import contextlib
import pathlib
import sys

from jepa_jax.data.preparation import build, sets
from jepa_jax.data.preparation.frames import JpegSettings


def prepare(raw: pathlib.Path, out: pathlib.Path, processes: int = 0) -> None:
    """Writes the prepared set of the folder `raw` to `out`, with its messages on standard error."""
    with contextlib.redirect_stdout(sys.stderr):
        print(build.prepare(sets.OPEN["folder"](raw), out, JpegSettings(), processes))
