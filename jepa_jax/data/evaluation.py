"""Labelled clips in order, in fixed views, for frozen evaluation."""

import concurrent.futures
import dataclasses
import functools
import hashlib
import json
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import grain
import numpy as np

from jepa_jax import config
from jepa_jax.data import augment, decode, loader, sampling, skipped, sources, sprites
from jepa_jax.data import workers as processes

FILE_TASK = "class"  # the one task of files: which folder or CSV label they have
# How clips are decoded, resized, cropped or drawn; a larger number makes all cached features stale.
PREPROCESSING = 1


class EvaluationSet:
    """Clips of one source in its order.

    Attributes:
        classes: for each task the names of its classes; labels are indices into them.
        size: how many clips the source lists, undecodable ones included.
        views: how many rows an item has, each another stretch or crop of it; they follow each other.
        rows: how many rows `batches` has, without those that fill up the last batch: size × views.
        clip: frames and size of each.
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
    ):
        """Reads names only; no file is decoded yet.

        Args:
            settings: which clips.
            clip: their frames and size.
            views: what is seen of a video; left out, one view of the whole.
            seed: of sprites.
            name: of the set, in errors about its files.
            setting: where `settings` stands in the config, in errors about it.
            max_skip_fraction: more undecodable files than this share are an error.
            classes: those of the set the probes are trained on, so that labels mean the same here.

        Raises:
            ConfigError: as `sources.open_source`; a clip without a class, or with one that `classes` lacks; views of
                what are no videos.
        """
        self._views = views or config.ViewsConfig()
        if settings.kind != "videos" and self._views != config.ViewsConfig():
            raise config.ConfigError(f"config.views: {settings.kind} have one view only; leave all of it out.")
        self._source = sources.open_source(settings, name, setting)
        self.clip = clip
        self.clip_shape = (clip.frames, clip.size, clip.size, 3)
        self._seed = seed
        self.size = self._source.size
        self.views = self._views.clips * self._views.crops
        self.rows = self.size * self.views
        self._ledger = skipped.SkipLedger(None, {name: self.size}, max_skip_fraction)
        if settings.kind == "sprites":
            self.classes = dict(sprites.CLASSES)
            self._labels = np.zeros(0, np.int32)
        else:
            names = list(self._source.classes if classes is None else classes[FILE_TASK])
            self.classes = {FILE_TASK: tuple(names)}
            self._labels = _labels(self._source, names, setting)

    def note_skipped(self, skips: Sequence[skipped.Skip]) -> None:
        """Undecodable clips that an earlier pass met, where this one will not.

        Raises:
            TooManySkippedError: they are more than `max_skip_fraction` allows.
        """
        self._ledger.add(skips)

    @property
    def names(self) -> tuple[str, ...]:
        """A name for every item that is the same wherever the data lie: the path below the source's, or the draw."""
        settings = self._source.settings
        if self._source.kind == "sprites":
            draw = f"sprites-{sprites.VERSION}/{settings.difficulty}/{settings.split}/{self._seed}"
            return tuple(f"{draw}/{item}" for item in range(self.size))
        root = settings.path if os.path.isdir(settings.path) else os.path.dirname(settings.path)
        return tuple(os.path.relpath(path, root) for path in self._source.paths)

    def shared_with(self, other: "EvaluationSet") -> list[str]:
        """The items that are in both sets: paths, or names of sprites."""
        return sorted(set(self._addresses()).intersection(other._addresses()))

    def _addresses(self) -> Iterable[str]:
        return self.names if self._source.kind == "sprites" else map(os.path.abspath, self._source.paths)

    @property
    def skipped(self) -> list[skipped.Skip]:
        """The undecodable clips met so far; complete once `batches` has been read to its end."""
        return self._ledger.skips

    @functools.cached_property
    def identity(self) -> dict[str, Any]:
        """What decides which rows come, how they look and how they are labelled, as JSON; for the key of a cache.

        Files count by path below the source's folder, size and time of change: one replaced under its old name is
        another file, and a folder moved as a whole is the same.
        """
        settings = config.to_dict(self._source.settings)
        if self._source.kind == "sprites":
            clips: dict[str, Any] = {"sprites": settings, "version": sprites.VERSION, "seed": self._seed}
        else:
            chosen_by_path = {"path", "weight", "include", "exclude"}
            clips = {
                "files": _digest(_stat_files(self._source)),
                "settings": {name: value for name, value in settings.items() if name not in chosen_by_path},
                "items": _digest(list(self.names)),
                "labels": _digest(self._labels.tolist()),
            }
        return clips | {
            "rows": self.rows,
            "classes": {task: list(names) for task, names in self.classes.items()},
            "clip": config.to_dict(self.clip),
            "views": config.to_dict(self._views),
            "preprocessing": PREPROCESSING,
        }

    def batches(
        self, batch_size: int, workers: int = 0, rows: Sequence[int] | np.ndarray | None = None
    ) -> Iterator[dict[str, Any]]:
        """Clips in batches of one shape.

        Args:
            batch_size: clips a batch; the last is filled up.
            workers: processes that decode; with 0 the caller does.
            rows: which, and in what order; left out, all in order.

        Yields:
            `video` [B, F, Y, X, C] in 0…255 (float32 for videos, which are not rounded after resizing; else uint8),
            `labels` {task: int32 [B]}, `row` and `item` int32 [B], and `valid` bool [B]: False for undecodable clips
            and for the repetitions that fill up the last batch.

        Raises:
            TooManySkippedError: more of the clips are undecodable than `max_skip_fraction` allows.
        """
        wanted = np.arange(self.rows, dtype=np.int32) if rows is None else np.asarray(rows, np.int32)
        if self._source.kind == "sprites":
            yield from self._sprites(batch_size, wanted)
            return
        places = grain.MapDataset.range(_padded(len(wanted), batch_size))
        example = _Example(self._source, self.clip, self._views, wanted)
        dataset = places.map(example).batch(batch_size, batch_fn=loader.stack)
        batches = processes.Ahead(dataset, workers, batch_size * self.clip.frames * self.clip.size**2 * 3 * 4)
        try:
            for batch in batches:
                self._ledger.add(batch["skips"])
                frames = self.clip.frames // batch["video"].shape[1]  # those of a still clip travel as one
                yield {
                    "video": batch["video"] if frames == 1 else np.repeat(batch["video"], frames, axis=1),
                    "labels": {FILE_TASK: self._labels[batch["item"]]},
                    "row": batch["row"],
                    "item": batch["item"],
                    "valid": batch["valid"],
                }
        finally:
            batches.close()

    def _sprites(self, batch_size: int, wanted: np.ndarray) -> Iterator[dict[str, Any]]:
        spec = sprites.SpriteSpec(self.clip.frames, self.clip.size, self._source.settings.difficulty)
        for start in range(0, len(wanted), batch_size):
            place_B = np.arange(start, start + batch_size)
            item_B = wanted[np.minimum(place_B, len(wanted) - 1)]
            video_BxFxYxXxC, labels = loader.render_sprites(spec, self._seed, self._source.settings.split, item_B)
            valid_B = place_B < len(wanted)
            yield {"video": video_BxFxYxXxC, "labels": labels, "row": item_B, "item": item_B, "valid": valid_B}


def _padded(size: int, batch_size: int) -> int:
    return -(-size // batch_size) * batch_size


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _stat_files(source: sources.Source) -> list[tuple[str, int, int]]:
    """Path, size and time of change of every file; of a prepared set, of the files that hold it all."""
    given = source.settings.path
    root = given if os.path.isdir(given) else os.path.dirname(given) or "."
    paths = source.paths
    if source.prepared_set is not None:
        paths = sorted(str(path) for path in pathlib.Path(root).rglob("*") if path.is_file())

    def stat(path: str) -> tuple[str, int, int]:
        found = os.stat(path)
        return os.path.relpath(path, root), found.st_size, found.st_mtime_ns

    with concurrent.futures.ThreadPoolExecutor(16) as threads:  # a network disk answers many at once
        return list(threads.map(stat, paths))


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
    """A place in the padded list of rows → its clip. Runs in the workers."""

    source: sources.Source
    clip: config.ClipConfig
    views: config.ViewsConfig
    rows: np.ndarray

    def __call__(self, place: int) -> dict[str, Any]:
        row = int(self.rows[min(place, len(self.rows) - 1)])
        item, view = divmod(row, self.views.clips * self.views.crops)
        numbers = {"row": np.int32(row), "item": np.int32(item)}
        example = numbers | {"valid": np.bool_(place < len(self.rows)), "skips": ()}
        try:
            return example | {"video": self._read(item, view)}
        except decode.DecodeError as error:
            skip = skipped.Skip(self.source.name, item, error.path, error.reason)
            return example | {"video": self._blank(), "valid": np.bool_(False), "skips": (skip,)}

    def _read(self, item: int, view: int) -> np.ndarray:
        if self.source.kind == "images":
            return augment.centre_view_of_image(self.source.read_image(item), self.clip.size)[None]
        stretch, crop = divmod(view, self.views.crops)

        def choose(count: int, fps: float) -> np.ndarray:
            del fps
            if not self.views.frame_step:
                return sampling.spread_window(count, self.clip.frames)
            return sampling.nth_window(count, self.clip.frames, self.views.frame_step, stretch, self.views.clips)

        return augment.centre_view(self.source.read_clip(item, choose), self.clip.size, crop, self.views.crops)

    def _blank(self) -> np.ndarray:
        if self.source.kind == "images":
            return np.zeros((1, self.clip.size, self.clip.size, 3), np.uint8)
        return np.zeros((self.clip.frames, self.clip.size, self.clip.size, 3), np.float32)
