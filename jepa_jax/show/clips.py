"""The clips of a picture: from any source, in the fixed view of evaluation."""

import contextlib
import dataclasses
import os
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Num, UInt8

from jepa_jax.config import ClipConfig, Config, SourceConfig
from jepa_jax.data import augment, sampling
from jepa_jax.data.decode import images, videos
from jepa_jax.data.evaluation_clips import EvaluationSet
from jepa_jax.data.faults import DecodeError
from jepa_jax.data.listing import file_types, names
from jepa_jax.data.skipped_files import TooManySkippedError
from jepa_jax.data.sources import UNLABELLED
from jepa_jax.settings import ConfigError, parse, to_dict
from jepa_jax.show.request import Request

_BATCH = 8


@dataclasses.dataclass(frozen=True)
class Clips:
    """Clips with their names and labels.

    Attributes:
        video_BxFxYxXx3: values 0…255, as encoders take them.
        names: of the clips in their source.
        labels: as text; empty for none.
    """

    video_BxFxYxXx3: Num[np.ndarray, "B F Y X 3"]
    names: tuple[str, ...]
    labels: tuple[str, ...]

    @property
    def rgb(self) -> UInt8[np.ndarray, "B F Y X 3"]:
        """The frames as RGB."""
        return np.rint(self.video_BxFxYxXx3).astype(np.uint8)

    @property
    def titles(self) -> tuple[str, ...]:
        """Name and label of each clip."""
        return tuple(
            names.printable(f"{name} ({label})" if label else name)
            for name, label in zip(self.names, self.labels, strict=True)
        )


def read(request: Request, trained: Config, count: int | None = None) -> Clips:
    """Reads the clips of a request: `request.items`, or `count` of the source, spread evenly.

    Args:
        request: names the source and the items.
        trained: of the run, whose clip shape is used, and whose first source if the request names none.
        count: number of clips; default `request.clips`. The source may have fewer.

    Raises:
        ConfigError: a source that cannot be read or is empty, an item it does not have, or no clip that can be decoded.
    """
    source, seed = _source(request, trained), trained.seed
    if file_types.suffix(source.path) in (*file_types.VIDEO_SUFFIXES, *file_types.IMAGE_SUFFIXES):
        return _one_file(source.path, trained.clip)
    opened = EvaluationSet(
        source, clip=trained.clip, seed=seed, name="source", setting="--source", max_skip_fraction=1.0, labelled=False
    )
    if outside := [item for item in request.items if not 0 <= item < opened.size]:
        raise ConfigError(f"--items has {outside[0]}; the source has clips 0 to {opened.size - 1}.")
    wanted = request.items or spread(opened.size, request.clips if count is None else count)
    return _read_rows(opened, np.array(wanted, np.int32), seed)


def _source(request: Request, trained: Config) -> SourceConfig:
    source = request.source
    if source is None:
        source = next((one for one in trained.data.sources.values() if one.weight > 0), None)
    if source is None:
        raise ConfigError("the run has no source of clips; name one with --source.")
    return parse(SourceConfig, {**to_dict(source), "split": request.split or source.split}, "--source, --split")


def spread(size: int, count: int) -> tuple[int, ...]:
    """Returns up to `count` numbers below `size`, evenly spread."""
    return tuple(np.linspace(0, size - 1, min(count, size)).astype(int).tolist())


def _read_rows(opened: EvaluationSet, rows_I: np.ndarray, seed: int) -> Clips:
    videos_, items, labels = [], [], []
    task_names = opened.classes
    for batch in _batches(opened, rows_I):
        for position in np.flatnonzero(batch["valid"]):
            videos_.append(np.array(batch["video"][position]))
            items.append(int(batch["item"][position]))
            numbers = {task: int(values[position]) for task, values in batch["labels"].items()}
            known = {task: number for task, number in numbers.items() if number != UNLABELLED}
            labels.append(", ".join(task_names[task][number] for task, number in known.items()))
    if not videos_:
        skipped = "".join(f"\n  {skip}" for skip in opened.skipped)
        raise ConfigError(f"--source: none of these clips can be decoded; name others with --items.{skipped}")
    for skip in opened.skipped:
        print(f"Not shown: {skip}", file=sys.stderr)
    if opened.source.rendered:
        named = [f"{opened.source.settings.kind} {item}" for item in items]
    else:
        every = opened.source.item_names(seed)
        named = [every[item] for item in items]
    return Clips(np.stack(videos_), tuple(named), tuple(labels))


def _batches(opened: EvaluationSet, rows_I: np.ndarray) -> Iterator[dict[str, Any]]:
    """Yields batches until the end, or until every clip of the source was skipped."""
    with contextlib.suppress(TooManySkippedError):
        yield from opened.batches(min(_BATCH, len(rows_I)), rows=rows_I)


def _one_file(path: str, clip: ClipConfig) -> Clips:
    """The clip of one media file.

    Raises:
        ConfigError: there is no such file, or it cannot be decoded.
    """
    if not os.path.isfile(path):
        raise ConfigError(f"--source: {path} does not exist (relative to {os.getcwd()}).")
    try:
        if file_types.suffix(path) in file_types.VIDEO_SUFFIXES:
            frames = videos.read_clip(path, lambda count, _: sampling.spread_window(count, clip.frames))
            video = augment.centre_view(frames, clip.height, clip.width)
        else:
            image = augment.centre_view_of_image(images.read_image(path), clip.height, clip.width)
            video = np.repeat(image[None], clip.frames, axis=0)
    except DecodeError as error:
        raise ConfigError(f"--source: {error}") from error
    return Clips(video[None], (os.path.basename(path),), ("",))
