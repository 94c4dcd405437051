"""The clips of a picture: from any source, in the fixed view of evaluation."""

import contextlib
import dataclasses
import os
import sys
from collections.abc import Iterator, Mapping, Sequence

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
from jepa_jax.pictures import clip_sheets
from jepa_jax.settings import ConfigError, parse, to_dict
from jepa_jax.show.request import Request

BATCH = 8  # clips decoded and encoded together


@dataclasses.dataclass(frozen=True)
class Clips:
    """Clips with their names and labels.

    Attributes:
        video_BxFxYxXx3: values 0…255, as encoders take them.
        names: of the clips in their source.
        labels: as text; empty for none.
        items: their numbers in the source.
    """

    video_BxFxYxXx3: Num[np.ndarray, "B F Y X 3"]
    names: tuple[str, ...]
    labels: tuple[str, ...]
    items: tuple[int, ...] = (0,)

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


def read(request: Request, trained: Config) -> Clips:
    """Reads the clips of a request: `items`, or `clips` of the source, spread evenly.

    Args:
        request: names the source and the items.
        trained: of the run, whose clip shape is used, and whose first source if the request names none.

    Raises:
        ConfigError: a source that cannot be read or is empty, an item it does not have, or no clip that can be decoded.
    """
    source = _source(request, trained)
    if _is_media_file(source):
        return _one_file(source.path, trained.clip)
    opened = open_set(request, trained)
    wanted = request.items or clip_sheets.spread(opened.size, request.clips)
    parts = list(stream(opened, wanted, trained.seed))
    if not parts:
        skipped = "".join(f"\n  {skip}" for skip in opened.skipped)
        raise ConfigError(f"--source: none of these clips can be decoded; name others with --items.{skipped}")
    return Clips(
        np.concatenate([part.video_BxFxYxXx3 for part in parts]),
        tuple(name for part in parts for name in part.names),
        tuple(label for part in parts for label in part.labels),
        tuple(item for part in parts for item in part.items),
    )


def open_set(request: Request, trained: Config) -> EvaluationSet:
    """Opens the source of a request; decodes nothing.

    Raises:
        ConfigError: a source that cannot be used, is empty or is a single file, or an item that it does not have.
    """
    source = _source(request, trained)
    if _is_media_file(source):
        raise ConfigError(f"--source is {source.path}, a single clip; name a folder, a CSV file or a prepared dataset.")
    opened = open_clips(source, trained.clip, trained.seed)
    if outside := [item for item in request.items if not 0 <= item < opened.size]:
        raise ConfigError(f"--items has {outside[0]}; the source has clips 0 to {opened.size - 1}.")
    return opened


def open_clips(source: SourceConfig, clip: ClipConfig, seed: int) -> EvaluationSet:
    """Opens a source whose clips need no labels and may be undecodable; `seed` is that of rendered clips."""
    options = {"name": "source", "setting": "--source", "max_skip_fraction": 1.0, "labelled": False}
    return EvaluationSet(source, clip=clip, seed=seed, **options)


def _source(request: Request, trained: Config) -> SourceConfig:
    source = request.source
    if source is None:
        source = next((one for one in trained.data.sources.values() if one.weight > 0), None)
    if source is None:
        raise ConfigError("the run has no source of clips; name one with --source.")
    return parse(SourceConfig, {**to_dict(source), "split": request.split or source.split}, "--source, --split")


def stream(opened: EvaluationSet, wanted: Sequence[int], seed: int) -> Iterator[Clips]:
    """Yields the wanted clips in batches of up to BATCH. Those that cannot be decoded are left out and reported."""
    rows_I = np.array(wanted, np.int32)
    batches = opened.batches(min(BATCH, len(rows_I)), rows=rows_I)
    every = () if opened.source.rendered else opened.source.item_names(seed)
    with contextlib.suppress(TooManySkippedError):  # every clip of the source was skipped
        for batch in batches:
            valid = np.flatnonzero(batch["valid"])
            if not len(valid):
                continue
            items = tuple(batch["item"][valid].tolist())
            named = tuple(every[item] if every else f"{opened.source.settings.kind} {item}" for item in items)
            labels = tuple(_label(opened, batch["labels"], position) for position in valid.tolist())
            yield Clips(np.array(batch["video"][valid]), named, labels, items)
    for skip in opened.skipped:
        print(f"Not shown: {skip}", file=sys.stderr)


def _label(opened: EvaluationSet, labels: Mapping[str, np.ndarray], position: int) -> str:
    numbers = {task: int(values[position]) for task, values in labels.items()}
    return ", ".join(opened.classes[task][number] for task, number in numbers.items() if number != UNLABELLED)


def _is_media_file(source: SourceConfig) -> bool:
    return file_types.suffix(source.path) in (*file_types.VIDEO_SUFFIXES, *file_types.IMAGE_SUFFIXES)


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
