"""Sources that read a split of a prepared set, stored in ArrayRecord files (see `array_record`)."""

import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from jaxtyping import Shaped, UInt8

from jepa_jax import config
from jepa_jax.data.decode import videos
from jepa_jax.data.sources import array_record, fingerprints, interface, patterns
from jepa_jax.data.workers import timing
from jepa_jax.files import open_files
from jepa_jax.settings import ConfigError


@dataclasses.dataclass(frozen=True)
class PreparedVideos(interface.Source):
    """Videos of a prepared set."""

    prepared_set: array_record.PreparedSet = dataclasses.field(kw_only=True)

    @classmethod
    def open(cls, settings: config.SourceConfig, name: str, setting: str) -> interface.Source:
        """Opens the items of `settings.split` that `include` and `exclude` select.

        Raises:
            ConfigError: the set is incomplete, holds another kind of items, or lacks the split or fold.
        """
        root = pathlib.Path(settings.path)
        try:
            found = array_record.open_set(str(root), settings.split, settings.fold)
        except array_record.NotPreparedError as error:
            raise ConfigError(f"{setting}: {error}") from error
        if found.kind != cls.noun:
            raise ConfigError(f"{setting}.kind is {settings.kind!r}; {root} is a prepared set of {found.kind}.")
        open_files.allow(len(_record_files(found)), f"{setting}.path: {root}")
        if not len(found.index.ids):
            raise ConfigError(f"{setting}.path: {root} has no {found.kind} in its split {settings.split!r}.")
        if settings.include or settings.exclude:
            found = found.select(patterns.chosen(found.index.ids, settings, setting))
        return cls(
            name=name,
            settings=settings,
            size=len(found.index.ids),
            paths=found.index.ids.with_prefix(f"{root}/"),
            labels=found.index.label_I,
            classes=found.classes,
            prepared_set=found,
        )

    def decode_clip(
        self,
        item: int,
        select_frames: videos.SelectFrames,
        transform: videos.Transform,
        on_stage: timing.OnStage,
        out: np.ndarray | None,
    ) -> Shaped[np.ndarray, "F _ _ 3"]:
        """See `Source.read_clip`."""
        return self.prepared_set.read_clip(item, select_frames, transform, on_stage, out)

    def fingerprint(self) -> fingerprints.Fingerprint:
        """Covers the items, the index, and sizes and excerpts of the record files."""
        found = self.prepared_set
        files = _record_files(found)
        index = hashlib.sha256()
        for array in (found.index.count_I, found.index.fps_I, found.index.nominal_I, found.part_I, found.record_I):
            index.update(np.ascontiguousarray(array).tobytes())
        names = tuple(found.index.ids)
        frames = {names[i]: int(found.index.count_I[i]) for i in fingerprints.spread(len(names), fingerprints.SIZES)}
        sampled = [str(files[i]) for i in fingerprints.spread(len(files), fingerprints.EXCERPTS)]
        content = {
            os.path.basename(path): f"{fingerprints.size_of(path)} bytes, {fingerprints.excerpt(path)}"
            for path in sampled
        }
        return fingerprints.Fingerprint(names, frames, content | {"index": index.hexdigest()})

    def stored_files(self) -> Sequence[str]:
        """All files of the set."""
        return sorted(str(path) for path in pathlib.Path(self.root).rglob("*") if path.is_file())


@dataclasses.dataclass(frozen=True)
class PreparedImages(PreparedVideos):
    """Images of a prepared set."""

    noun: ClassVar[str] = "images"
    is_image: ClassVar[bool] = True

    def decode_image(self, item: int) -> UInt8[np.ndarray, "Y X 3"]:
        """See `Source.read_image`."""
        return self.prepared_set.read_image(item)


def _record_files(prepared_set: array_record.PreparedSet) -> list[pathlib.Path]:
    folder = pathlib.Path(prepared_set.folder)
    return sorted(path for part in prepared_set.parts for path in folder.glob(f"*-{part}.array_record*"))
