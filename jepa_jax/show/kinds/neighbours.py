"""The clips of a set that are most similar to each query, by the cosine of their mean tokens: neighbours.png."""

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

from jepa_jax.evaluation import frozen_encoder
from jepa_jax.pictures import clip_sheets, film, sheet, upsample
from jepa_jax.settings import ConfigError
from jepa_jax.show import clips, tokens
from jepa_jax.show.request import Request

FRAMES = 3  # of each clip: first, middle and last


class Name(NamedTuple):
    """Name and label of a clip; the label may be empty."""

    clip: str
    label: str


def draw(request: Request) -> Sequence[pathlib.Path]:
    """Writes neighbours.png. The queries are `items`, or `clips` clips of the set; the rest of the set is searched.

    Raises:
        ConfigError: a source that cannot be read, or fewer than two clips.
    """
    frozen = frozen_encoder.load(request.require_checkpoint("neighbours"))
    opened = clips.open_set(request, frozen.config)
    wanted = sorted({*clip_sheets.spread(opened.size, request.gallery), *request.items})
    means, images, names, items = [], [], [], []
    for part in clips.stream(opened, wanted, frozen.config.seed):
        encoded = tokens.output(frozen, tokens.encode(frozen, part.video_BxFxYxXx3, clips.BATCH))
        means.append(encoded.mean((1, 2, 3)))
        images += [thumbnail(video) for video in part.rgb]
        names += [Name(name, label) for name, label in zip(part.names, part.labels, strict=True)]
        items += part.items
    if len(items) < 2:
        raise ConfigError(f"--source has {len(items)} clips that can be decoded; neighbours needs at least 2.")
    queries = [items.index(item) for item in request.items if item in items]
    queries = queries or list(clip_sheets.spread(len(items), request.clips))
    features_IxE = np.concatenate(means)
    file = request.out / "neighbours.png"
    nearest_QxK, cosine_QxK = nearest(features_IxE, np.array(queries), request.neighbours)
    film.write_png(file, picture(images, names, queries, nearest_QxK, cosine_QxK))
    return [file]


def nearest(
    features_IxE: Float[np.ndarray, "I E"], query_Q: Int[np.ndarray, "Q"], count: int
) -> tuple[Int[np.ndarray, "Q K"], Float[np.ndarray, "Q K"]]:
    """Returns the most similar other rows of each query, most similar first, and their cosines.

    K is `count`, or I − 1 if there are fewer rows.
    """
    length_Ix1 = np.linalg.norm(features_IxE, axis=1, keepdims=True)
    unit_IxE = features_IxE / np.where(length_Ix1 > 0, length_Ix1, 1.0)
    cosine_QxI = unit_IxE[query_Q] @ unit_IxE.T
    cosine_QxI[np.arange(len(query_Q)), query_Q] = -np.inf
    nearest_QxK = np.argsort(-cosine_QxI, axis=1, kind="stable")[:, : min(count, len(features_IxE) - 1)]
    return nearest_QxK, np.take_along_axis(cosine_QxI, nearest_QxK, axis=1)


def thumbnail(video_FxYxXx3: UInt8[np.ndarray, "F Y X 3"]) -> UInt8[np.ndarray, "_ _ 3"]:
    """Returns the first, the middle and the last frame side by side."""
    enlarged = upsample.frames(video_FxYxXx3, upsample.factor(*video_FxYxXx3.shape[1:3]))
    return sheet.side_by_side([enlarged[frame] for frame in clip_sheets.spread(len(enlarged), FRAMES)], gap=1)


def picture(
    images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
    names: Sequence[Name],
    queries: Sequence[int],
    nearest_QxK: Int[np.ndarray, "Q K"],
    cosine_QxK: Float[np.ndarray, "Q K"],
) -> UInt8[np.ndarray, "_ _ 3"]:
    """Returns one sheet: a row for each query, with the query first."""
    width = images[0].shape[1]
    rows = []
    for query, found, cosines in zip(queries, nearest_QxK.tolist(), cosine_QxK.tolist(), strict=True):
        firsts = [names[query].clip, *(f"{c:.3f} {names[one].clip}" for one, c in zip(found, cosines, strict=True))]
        cells, labels = [images[index] for index in (query, *found)], [names[index].label for index in (query, *found)]
        notes = [
            f"{sheet.shorten(first, width)}\n{sheet.shorten(label, width)}"
            for first, label in zip(firsts, labels, strict=True)
        ]
        rows.append(sheet.Row("", cells, notes=notes))
    columns = ["query", *(f"neighbour {number}" for number in range(1, nearest_QxK.shape[1] + 1))]
    footer = "First, middle and last frame of each clip. Numbers: cosine of the mean tokens, 1 is the same."
    return sheet.sheet(rows, columns=columns, footer=footer)
