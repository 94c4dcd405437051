"""The interface of a source of clips. A new kind is a subclass of `Source` and a line in `sources.CLASSES`."""

import abc
import concurrent.futures
import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float32, Int32, Shaped, UInt8

from jepa_jax import config
from jepa_jax.data.decode import videos
from jepa_jax.data.sources import fingerprints
from jepa_jax.data.workers import timing, worker_process
from jepa_jax.settings import to_dict

UNLABELLED = -1

Render = Callable[[Any, Any], tuple[Any, dict[str, Any]]]
"""(seed, item int32 [B]) → video uint8 [B, F, Y, X, 3] and labels {task: int32 [B]}, traceable by JAX."""


@dataclasses.dataclass(frozen=True)
class Source(abc.ABC):
    """A set of clips. Items are numbered 0 … size − 1; the order does not depend on the machine.

    A subclass implements `open` and one of `decode_clip` (videos), `decode_image` (`is_image`) and `render`
    (`rendered`). Instances are pickled to the worker processes, so they hold no open files.
    """

    name: str
    settings: config.SourceConfig
    size: int
    paths: Sequence[str] = ()  # one name per item, for errors and logs; empty if the items are rendered
    labels: Int32[np.ndarray, "I"] = dataclasses.field(default_factory=lambda: np.zeros(0, np.int32))
    """Indices into `classes`, or UNLABELLED; empty if the items are rendered."""
    classes: tuple[str, ...] = ()

    noun: ClassVar[str] = "videos"  # the items, in messages
    is_image: ClassVar[bool] = False  # items are still images
    rendered: ClassVar[bool] = False  # items have no files; the process that owns the device renders them
    renders_in_step: ClassVar[bool] = False  # the training step can render them
    reversible: ClassVar[bool] = False  # labels of clips played backwards are known
    tracked: ClassVar[bool] = False  # velocities are known

    @classmethod
    def task_classes(cls) -> Mapping[str, Sequence[str]]:
        """Returns the class names of each task of a `rendered` source."""
        return {}

    @classmethod
    def check(cls, settings: config.SourceConfig) -> None:
        """Raises ValueError for settings that this kind does not support. Does not access files."""
        del settings

    @classmethod
    @abc.abstractmethod
    def open(cls, settings: config.SourceConfig, name: str, setting: str) -> "Source":
        """Lists the items; decodes none.

        Args:
            settings: the settings of the source.
            name: the source's name in errors and in skipped.jsonl.
            setting: the path of `settings` in the config, for errors.

        Raises:
            ConfigError: there is nothing to read, or it cannot be listed.
        """

    def read_clip(
        self,
        item: int,
        select_frames: videos.SelectFrames,
        transform: videos.Transform = videos.unchanged,
        on_stage: timing.OnStage = timing.no_op,
        out: np.ndarray | None = None,
    ) -> Shaped[np.ndarray, "F _ _ 3"]:
        """Decodes the frames that `select_frames(frame count, fps)` returns and applies `transform` to each.

        `on_stage` is called with the stage that begins, reading or decoding. `out`, if given, is filled and returned.

        Raises:
            DecodeError: the item cannot be decoded.
        """
        with worker_process.reading(self.paths[item]):
            return self.decode_clip(item, select_frames, transform, on_stage, out)

    def read_image(self, item: int) -> UInt8[np.ndarray, "Y X 3"]:
        """Decodes a still image.

        Raises:
            DecodeError: the item cannot be decoded.
        """
        with worker_process.reading(self.paths[item]):
            return self.decode_image(item)

    def decode_clip(
        self,
        item: int,
        select_frames: videos.SelectFrames,
        transform: videos.Transform,
        on_stage: timing.OnStage,
        out: np.ndarray | None,
    ) -> Shaped[np.ndarray, "F _ _ 3"]:
        """Implements `read_clip`."""
        raise NotImplementedError(f"{type(self).__name__} has no videos.")

    def decode_image(self, item: int) -> UInt8[np.ndarray, "Y X 3"]:
        """Implements `read_image`."""
        raise NotImplementedError(f"{type(self).__name__} has no images.")

    def render(
        self, clip: config.ClipConfig, seed: int, item_B: Int32[np.ndarray, "B"]
    ) -> tuple[UInt8[np.ndarray, "B F Y X 3"], dict[str, np.ndarray]]:
        """Renders clips of a `rendered` source; also returns the labels of each task."""
        raise NotImplementedError(f"{type(self).__name__} is not rendered.")

    def velocities(
        self, clip: config.ClipConfig, seed: int, item_B: Int32[np.ndarray, "B"]
    ) -> Float32[np.ndarray, "B F XY"]:
        """Returns the velocities in clips of a `tracked` source, in frame sides per frame; y points down."""
        raise NotImplementedError(f"{type(self).__name__} does not know velocities.")

    @classmethod
    def renderer(cls, settings: config.SourceConfig, clip: config.ClipConfig) -> Render:
        """Returns the function by which the training step renders clips of a `renders_in_step` source.

        Raises:
            ConfigError: the source has no clips of this shape.
        """
        raise NotImplementedError(f"{cls.__name__} is not rendered in the training step.")

    @classmethod
    def reverse_labels(cls, labels: Mapping[str, Any]) -> Mapping[str, Any]:
        """Returns the labels of the same clips played backwards (`reversible` sources)."""
        raise NotImplementedError(f"{cls.__name__} has no labels for clips played backwards.")

    @property
    def root(self) -> str:
        """The folder of the items: the source's path, or the folder of the file that lists them."""
        given = self.settings.path
        return given if os.path.isdir(given) else os.path.dirname(given) or "."

    def item_names(self, seed: int) -> tuple[str, ...]:
        """Location-independent names of all items; `seed` is the seed of rendered items."""
        del seed
        return tuple(os.path.relpath(path, self.root) for path in self.paths)

    def addresses(self, seed: int) -> Iterable[str]:
        """Names of all items; equal in two sources if and only if the items are the same."""
        del seed
        return map(os.path.abspath, self.paths)

    def fingerprint(self) -> fingerprints.Fingerprint:
        """The fingerprint by which a resumed run recognizes its data."""
        return fingerprints.of_files(fingerprints.relative_names(self.settings.path, self.paths), self.paths)

    def stored_files(self) -> Sequence[str]:
        """Paths of the files that hold the items."""
        return self.paths

    def cache_key(self, seed: int, labels_I: Int32[np.ndarray, "I"]) -> dict[str, Any]:
        """What determines the clips and their labels, as JSON, for the key of a feature cache.

        Args:
            seed: seed of rendered items.
            labels_I: the labels that evaluation uses.
        """
        settings = to_dict(self.settings)
        chosen_by_path = {"path", "weight", "include", "exclude"}
        return {
            "files": _digest(self.file_versions()),
            "settings": {name: value for name, value in settings.items() if name not in chosen_by_path},
            "items": _digest(list(self.item_names(seed))),
            "labels": _digest(labels_I.tolist()),
        }

    def file_versions(self) -> list[tuple[str, int, int]]:
        """Path from `root`, size and modification time (ns) of each stored file; −1 and 0 if it is not there."""
        root = self.root

        def version(path: str) -> tuple[str, int, int]:
            try:
                found = os.stat(path)
            except OSError:  # a broken link, for one: skipped when it is read
                return os.path.relpath(path, root), -1, 0
            return os.path.relpath(path, root), found.st_size, found.st_mtime_ns

        with concurrent.futures.ThreadPoolExecutor(16) as threads:  # a network disk answers many in parallel
            return list(threads.map(version, self.stored_files()))


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
