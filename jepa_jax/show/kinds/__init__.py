"""The kinds of pictures. A kind is a module of this folder with `draw(request) -> files`, and a line in `KINDS`."""

import importlib
import pathlib
from collections.abc import Sequence

from jepa_jax.settings import ConfigError, nearest
from jepa_jax.show.request import Request

KINDS = {
    "features": "principal components of the tokens as colours, beside the frames",
    "masks": "context and target of each mask, as the run draws them",
    "source": "what training sees: clips after crop and flip, with labels and skipped files",
    "surprise": "error of the predictor for each token and frame, and what it predicts where tokens are hidden",
    "similarity": "cosine similarity of one token to all others of its clip",
    "neighbours": "the clips of a set that are most similar to each query",
    "curves": "loss, rank, learning rate, speed and probes of one or several runs",
    "results": "results.json as one HTML page, with the most confident mistakes",
}
"""Name of the module, which is the command's WHAT, and what it shows."""


def require(what: str) -> None:
    """Checks that there is such a kind of picture; imports nothing.

    Raises:
        ConfigError: there is none.
    """
    if what not in KINDS:
        raise ConfigError(f"there is no picture {what!r}.{nearest(what, KINDS)}")


def draw(what: str, request: Request) -> Sequence[pathlib.Path]:
    """Draws one kind of picture and returns the files written.

    Raises:
        ConfigError: no such kind, or a request that it cannot serve.
    """
    require(what)
    return importlib.import_module(f"{__name__}.{what}").draw(request)
