"""Labelled clips in order, one fixed view each, for frozen evaluation."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import grain
import numpy as np

from jepa_jax import config
from jepa_jax.data import augment, decode, loader, sampling, skipped, sources, sprites
from jepa_jax.data import workers as processes

FILE_TASK = "class"  # the one task of files: which folder or CSV label they have


class EvaluationSet:
    """Clips of one source in its order.

    Attributes:
        classes: for each task the names of its classes; labels are indices into them.
        size: how many clips the source lists, undecodable ones included.
    """

    def __init__(
        self,
        settings: config.SourceConfig,
        *,
        clip: config.ClipConfig,
        seed: int = 0,
        name: str = "evaluation",
        setting: str = "config.test",
        max_skip_fraction: float = 0.0,
        classes: Mapping[str, Sequence[str]] | None = None,
    ):
        """Reads names only; no file is decoded yet.

        Args:
            settings: which clips.
            clip: their frames and size.
            seed: of sprites.
            name: of the set, in errors about its files.
            setting: where `settings` stands in the config, in errors about it.
            max_skip_fraction: more undecodable files than this share are an error.
            classes: those of the set the probes are trained on, so that labels mean the same here.

        Raises:
            ConfigError: as `sources.open_source`; a clip without a class, or with one that `classes` lacks.
        """
        self._source = sources.open_source(settings, name, setting)
        self._clip = clip
        self._seed = seed
        self.size = self._source.size
        self._ledger = skipped.SkipLedger(None, {name: self.size}, max_skip_fraction)
        if settings.kind == "sprites":
            self.classes = dict(sprites.CLASSES)
            self._labels = np.zeros(0, np.int32)
        else:
            names = list(self._source.classes if classes is None else classes[FILE_TASK])
            self.classes = {FILE_TASK: tuple(names)}
            self._labels = _labels(self._source, names, setting)

    @property
    def skipped(self) -> list[skipped.Skip]:
        """The undecodable clips met so far; complete once `batches` has been read to its end."""
        return self._ledger.skips

    def batches(self, batch_size: int, workers: int = 0) -> Iterator[dict[str, Any]]:
        """All clips in order, in batches of one shape.

        Yields:
            `video` [B, F, Y, X, C] in 0…255 (float32 for videos, which are not rounded after resizing; else uint8),
            `labels` {task: int32 [B]}, `item` int32 [B], and `valid` bool [B]: False for undecodable clips and for the
            repetitions that fill up the last batch.

        Raises:
            TooManySkippedError: more of the clips are undecodable than `max_skip_fraction` allows.
        """
        if self._source.kind == "sprites":
            yield from self._sprites(batch_size)
            return
        items = grain.MapDataset.range(_padded(self.size, batch_size))
        dataset = items.map(_Example(self._source, self._clip)).batch(batch_size, batch_fn=loader.stack)
        batches = processes.Ahead(dataset, workers, batch_size * self._clip.frames * self._clip.size**2 * 3 * 4)
        try:
            for batch in batches:
                self._ledger.add(batch["skips"])
                frames = self._clip.frames // batch["video"].shape[1]  # those of a still clip travel as one
                yield {
                    "video": batch["video"] if frames == 1 else np.repeat(batch["video"], frames, axis=1),
                    "labels": {FILE_TASK: self._labels[batch["item"]]},
                    "item": batch["item"],
                    "valid": batch["valid"],
                }
        finally:
            batches.close()

    def _sprites(self, batch_size: int) -> Iterator[dict[str, Any]]:
        spec = sprites.SpriteSpec(self._clip.frames, self._clip.size, self._source.settings.difficulty)
        for start in range(0, self.size, batch_size):
            place_B = np.arange(start, start + batch_size)
            item_B = np.minimum(place_B, self.size - 1).astype(np.int32)
            video_BxFxYxXxC, labels = loader.render_sprites(spec, self._seed, self._source.settings.split, item_B)
            yield {"video": video_BxFxYxXxC, "labels": labels, "item": item_B, "valid": place_B < self.size}


def _padded(size: int, batch_size: int) -> int:
    return -(-size // batch_size) * batch_size


def _labels(source: sources.Source, names: Sequence[str], setting: str) -> np.ndarray:
    """Each clip's label as an index into `names`, int32."""
    unlabelled = np.flatnonzero(source.labels == sources.UNLABELLED)
    if len(unlabelled):
        raise config.ConfigError(
            f"{setting}.path: {source.paths[unlabelled[0]]} has no class; expected CLASS/file below "
            f"{source.settings.path}, or a CSV file of `path label`."
        )
    number = {name: i for i, name in enumerate(names)}
    number_of_class = np.array([number.get(name, -1) for name in source.classes], np.int32)
    labels = number_of_class[source.labels]
    strange = np.flatnonzero(labels < 0)
    if len(strange):
        raise config.ConfigError(
            f"{setting}.path: {source.paths[strange[0]]} is of class {source.classes[source.labels[strange[0]]]!r}, "
            f"which the clips that the probes are trained on do not have. They have: {', '.join(names)}."
        )
    return labels


@dataclasses.dataclass(frozen=True)
class _Example:
    """A place in the padded set → its clip. Runs in the workers."""

    source: sources.Source
    clip: config.ClipConfig

    def __call__(self, place: int) -> dict[str, Any]:
        item = min(place, self.source.size - 1)
        example = {"item": np.int32(item), "valid": np.bool_(place < self.source.size), "skips": ()}
        try:
            return example | {"video": self._read(item)}
        except decode.DecodeError as error:
            skip = skipped.Skip(self.source.name, item, error.path, error.reason)
            return example | {"video": self._blank(), "valid": np.bool_(False), "skips": (skip,)}

    def _read(self, item: int) -> np.ndarray:
        if self.source.kind == "images":
            return augment.centre_view_of_image(self.source.read_image(item), self.clip.size)[None]
        frames = self.source.read_clip(item, lambda count, _: sampling.spread_window(count, self.clip.frames))
        return augment.centre_view(frames, self.clip.size)

    def _blank(self) -> np.ndarray:
        if self.source.kind == "images":
            return np.zeros((1, self.clip.size, self.clip.size, 3), np.uint8)
        return np.zeros((self.clip.frames, self.clip.size, self.clip.size, 3), np.float32)
