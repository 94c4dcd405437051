"""Labelled clips in fixed order and fixed views, for frozen evaluation."""

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32

from jepa_jax import config
from jepa_jax.data import augment, faults, sampling, skipped_files, sources
from jepa_jax.data.workers import pool as processes
from jepa_jax.data.workers import worker_process
from jepa_jax.preprocessing import TRAINED_HERE, Preprocessing
from jepa_jax.settings import ConfigError, to_dict

FILE_TASK = "class"  # the only task of sources with files: the class folder or CSV label
# Version of decoding, resizing, cropping and drawing. Increase it to invalidate all cached features.
PREPROCESSING = 2
_SHOWN = 10  # class names in an error


class EvaluationSet:
    """The clips of one source, in order.

    Attributes:
        classes: class names of each task; labels are indices into them.
        source: where the clips come from.
        item_labels: of each item of a source of files, int32.
        size: number of items, including undecodable ones.
        views: number of rows per item, one per temporal and spatial crop; they are consecutive.
        rows: number of rows that `batches` yields, without padding of the last batch: size × views.
        clip: number of frames and size of each clip.
        clip_shape: [F, Y, X, C].
    """

    def __init__(
        self,
        settings: config.SourceConfig,
        *,
        clip: config.ClipConfig,
        views: config.ViewsConfig | None = None,
        seed: int = 0,
        name: str = "evaluation",
        setting: str = "config.test",
        max_skip_fraction: float = 0.0,
        classes: Mapping[str, Sequence[str]] | None = None,
        labelled: bool = True,
        keep_bytes: int = 0,
        preprocessing: Preprocessing = TRAINED_HERE,
    ):
        """Reads file names only; decodes nothing.

        Args:
            settings: the source of the clips.
            clip: number of frames and size of the clips.
            views: the crops to take of each video; default one view of the whole video.
            seed: seed of rendered clips.
            name: name of the set in errors about its files.
            setting: path of `settings` in the config, for errors.
            max_skip_fraction: the share of files that may be undecodable.
            classes: class names of the probes' training set, so that labels agree with it; default the source's own.
            labelled: whether every clip must have a class; otherwise clips without one are `sources.UNLABELLED`.
            keep_bytes: the first pass over all clips keeps them in memory if they take at most this, for later passes.
            preprocessing: of the encoder: how files are resized. Frames of rendered sets have the size of the clip.

        Raises:
            ConfigError: as `sources.open_source`; or a clip has no class or one that is not in `classes`; or `views` is
                given for a source that has no videos.
        """
        self._views = views or config.ViewsConfig()
        kind = sources.kind_of(settings)
        if (kind.is_image or kind.rendered) and self._views != config.ViewsConfig():
            raise ConfigError(f"config.views: {kind.noun} have one view only; leave all of it out.")
        self.source = sources.open_source(settings, name, setting)
        self.clip = clip
        self.clip_shape = clip.shape
        self._seed, self._keep_bytes, self._preprocessing = seed, keep_bytes, preprocessing
        self._kept: dict[int, list[dict[str, Any]]] = {}  # batches of a whole pass, by batch size
        self.size = self.source.size
        self.views = self._views.clips * self._views.crops
        self.rows = self.size * self.views
        self._ledger = skipped_files.SkipLedger(None, {name: self.size}, max_skip_fraction)
        if kind.rendered:
            self.classes = {task: tuple(names) for task, names in kind.task_classes().items()}
            self.item_labels = np.zeros(0, np.int32)
        else:
            names = list(self.source.classes if classes is None else classes[FILE_TASK])
            self.classes = {FILE_TASK: tuple(names)}
            self.item_labels = _labels(self.source, names, setting) if labelled else self.source.labels

    def note_skipped(self, skips: Sequence[skipped_files.Skip]) -> None:
        """Records undecodable clips found by an earlier pass, when cached features make this pass skip them.

        Raises:
            TooManySkippedError: there are more than `max_skip_fraction` allows.
        """
        self._ledger.add(skips)

    @property
    def names(self) -> tuple[str, ...]:
        """A location-independent name for each item: its path relative to the source, or the sprite's parameters."""
        return self.source.item_names(self._seed)

    def shared_with(self, other: "EvaluationSet") -> list[str]:
        """The items that both sets contain: paths, or names of rendered clips."""
        own, others = (clips.source.addresses(clips._seed) for clips in (self, other))
        return sorted(set(own).intersection(others))

    @property
    def skipped(self) -> list[skipped_files.Skip]:
        """The undecodable clips found so far; complete once `batches` is exhausted."""
        return self._ledger.skips

    def velocities(self, item_B: Int32[np.ndarray, "B"]) -> Float32[np.ndarray, "B F XY"]:
        """The velocity in each frame of clips of a `tracked` source, in frame sides per frame; y points down."""
        return self.source.velocities(self.clip, self._seed, item_B)

    @functools.cached_property
    def identity(self) -> dict[str, Any]:
        """Everything that determines the rows, their pixels and their labels, as JSON, for cache keys.

        Files are identified by relative path, size and modification time, so a replaced file changes the identity and a
        moved folder does not.
        """
        resize = self._preprocessing.resize
        resized = {} if resize == TRAINED_HERE.resize else {"resize": resize}  # older caches have no such field
        return self.source.cache_key(self._seed, self.item_labels) | {
            **resized,
            "rows": self.rows,
            "classes": {task: list(names) for task, names in self.classes.items()},
            "clip": to_dict(self.clip),
            "views": to_dict(self._views),
            "preprocessing": PREPROCESSING,
        }

    def batches(
        self, batch_size: int, workers: int = 0, rows: Sequence[int] | np.ndarray | None = None
    ) -> Iterator[dict[str, Any]]:
        """Iterates over the clips in batches of constant shape.

        Args:
            batch_size: clips per batch; the last batch is padded.
            workers: number of decoding processes; with 0 the calling process decodes.
            rows: the rows to read, in this order; default all.

        Yields:
            `video` [B, F, Y, X, C] in 0…255 (float32 for videos, which are not rounded after resizing; else uint8),
            `labels` {task: int32 [B]}, `row` and `item` int32 [B], and `valid` bool [B]: False for undecodable clips
            and for padding.

        Raises:
            TooManySkippedError: more clips are undecodable than `max_skip_fraction` allows.
        """
        wanted = np.arange(self.rows, dtype=np.int32) if rows is None else np.asarray(rows, np.int32)
        whole = np.array_equal(wanted, np.arange(self.rows))
        if whole and batch_size in self._kept:
            yield from map(self._at_full_length, self._kept[batch_size])
            return
        made = (
            self._rendered(batch_size, wanted) if self.source.rendered else self._decoded(batch_size, workers, wanted)
        )
        kept, free = [], self._keep_bytes if whole else -1
        for batch in made:
            free -= batch["video"].nbytes
            if free >= 0:  # a copy: the buffers of workers are used again
                kept.append(batch | {"video": np.array(batch["video"])})
            yield self._at_full_length(batch)
        if free >= 0:
            self._kept[batch_size] = kept

    def _at_full_length(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch; images, of which it has one frame, as still clips."""
        frames = self.clip.frames // batch["video"].shape[1]
        return batch if frames == 1 else batch | {"video": np.repeat(batch["video"], frames, axis=1)}

    def _decoded(self, batch_size: int, workers: int, wanted: np.ndarray) -> Iterator[dict[str, Any]]:
        import grain  # slow to import, and rendered clips do not need it

        positions = grain.MapDataset.range(_padded(len(wanted), batch_size))
        example = _Example(self.source, self.clip, self._views, wanted, self._preprocessing)
        dataset = positions.map(example).batch(batch_size, batch_fn=_stack)
        batches = processes.BatchPrefetcher(dataset, workers, batch_size * example.clip_bytes)
        try:
            for batch in batches:
                self._ledger.add(batch["skips"])
                yield {
                    "video": batch["video"],  # a still clip is transferred as one frame
                    "labels": {FILE_TASK: self.item_labels[batch["item"]]},
                    "row": batch["row"],
                    "item": batch["item"],
                    "valid": batch["valid"],
                }
        finally:
            batches.close()

    def _rendered(self, batch_size: int, wanted: np.ndarray) -> Iterator[dict[str, Any]]:
        for start in range(0, len(wanted), batch_size):
            position_B = np.arange(start, start + batch_size)
            item_B = wanted[np.minimum(position_B, len(wanted) - 1)]
            video_BxFxYxXxC, labels = self.source.render(self.clip, self._seed, item_B)
            valid_B = position_B < len(wanted)
            yield {"video": video_BxFxYxXxC, "labels": labels, "row": item_B, "item": item_B, "valid": valid_B}


def _padded(size: int, batch_size: int) -> int:
    return -(-size // batch_size) * batch_size


def _labels(source: sources.Source, names: Sequence[str], setting: str) -> np.ndarray:
    """Each clip's label as an index into `names`, int32."""
    unlabelled = np.flatnonzero(source.labels == sources.UNLABELLED)
    if len(unlabelled):
        raise ConfigError(
            f"{setting}.path: {source.paths[unlabelled[0]]} has no class, which evaluation needs; expected CLASS/file "
            f"below {source.settings.path}, or a CSV file with a label on each line (`path label`)."
        )
    number = {name: i for i, name in enumerate(names)}
    number_of_class = np.array([number.get(name, -1) for name in source.classes], np.int32)
    labels = number_of_class[source.labels]
    unknown = np.flatnonzero(labels < 0)
    if len(unknown):
        raise ConfigError(
            f"{setting}.path: {source.paths[unknown[0]]} has class {source.classes[source.labels[unknown[0]]]!r}, "
            f"which is not in the probes' training set. Its classes: {_list(names)}."
        )
    return labels


def _list(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else "")


@dataclasses.dataclass(frozen=True)
class _Example:
    """Position in the padded list of rows → clip. Runs in the workers."""

    source: sources.Source
    clip: config.ClipConfig
    views: config.ViewsConfig
    rows: np.ndarray
    preprocessing: Preprocessing

    def __call__(self, position: int) -> dict[str, Any]:
        row = int(self.rows[min(position, len(self.rows) - 1)])
        item, view = divmod(row, self.views.clips * self.views.crops)
        numbers = {"row": np.int32(row), "item": np.int32(item)}
        example = numbers | {"valid": np.bool_(position < len(self.rows)), "skips": ()}
        try:
            with faults.as_decode_error(self.source.paths[item]):
                return example | {"video": self._read(item, view)}
        except faults.DecodeError as error:
            skip = skipped_files.Skip(self.source.name, item, error.path, error.reason)
            return example | {"video": self._blank(), "valid": np.bool_(False), "skips": (skip,)}

    def _read(self, item: int, view: int) -> np.ndarray:
        if self.source.is_image:
            image = self.source.read_image(item)
            return augment.centre_view_of_image(image, *self.clip.shape[1:3], self.preprocessing)[None]
        window, crop = divmod(view, self.views.crops)

        def select_frames(count: int, fps: float) -> np.ndarray:
            del fps
            if not self.views.frame_step:
                return sampling.spread_window(count, self.clip.frames)
            return sampling.nth_window(count, self.clip.frames, self.views.frame_step, window, self.views.clips)

        frames = self.source.read_clip(item, select_frames)
        size = self.clip.height, self.clip.width
        return augment.centre_view(frames, *size, crop, self.views.crops, self.preprocessing)

    @property
    def clip_bytes(self) -> int:
        """Bytes of a clip as transferred by the workers."""
        shape, dtype = self._spec
        return math.prod(shape) * dtype.itemsize

    def _blank(self) -> np.ndarray:
        return np.zeros(*self._spec)

    @property
    def _spec(self) -> tuple[tuple[int, ...], np.dtype]:
        """Shape and dtype of a clip: an image is one frame, and videos are not rounded after resizing."""
        if self.source.is_image:
            return (1, *self.clip.shape[1:]), np.dtype(np.uint8)
        return self.clip.shape, np.dtype(np.float32)


def _stack(examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Stacks arrays and concatenates `skips`."""
    batch: dict[str, Any] = {"skips": tuple(skip for example in examples for skip in example["skips"])}
    for key in examples[0].keys() - batch.keys():
        arrays = [np.asarray(example[key]) for example in examples]
        batch[key] = worker_process.empty((len(arrays), *arrays[0].shape), arrays[0].dtype)
        np.stack(arrays, out=batch[key])
    return batch
