"""Sources of video or image files: a folder, or a CSV file of `path label` lines. Opening reads names only."""

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from absl import logging
from jaxtyping import Shaped, UInt8

from jepa_jax import config
from jepa_jax.data.decode import images, videos
from jepa_jax.data.listing import csv_list, file_types, layout, walk
from jepa_jax.data.sources import array_record, interface, patterns, prepared_set
from jepa_jax.data.workers import timing
from jepa_jax.files.paths import require_local
from jepa_jax.files.remote.any_path import AnyPath
from jepa_jax.settings import ConfigError


@dataclasses.dataclass(frozen=True)
class Videos(interface.Source):
    """Video files; a path to a prepared set opens `PreparedVideos`."""

    file_kind: ClassVar[file_types.Kind] = "videos"
    prepared: ClassVar[type[interface.Source]] = prepared_set.PreparedVideos

    @classmethod
    def open(cls, settings: config.SourceConfig, name: str, setting: str) -> interface.Source:
        """Lists the files of `settings.split`, or all files if there are no split folders.

        Raises:
            ConfigError: the path is missing or has no files or lacks the split; also as `csv_list.read_csv`,
                `layout.arrange` and `patterns.chosen`.
        """
        if not settings.path:
            raise ConfigError(f"{setting}.path is empty; expected a folder or a CSV file of `path label` lines.")
        root = require_local(settings.path, f"{setting}.path")
        if array_record.is_prepared(root):
            return cls.prepared.open(settings, name, setting)
        if root.is_dir():
            files = _read_folder(root, cls.file_kind, settings, setting)
        elif root.is_file():
            listed = csv_list.read_csv(root)
            files = [listed[i] for i in patterns.chosen([path for path, _ in listed], settings, setting)]
        else:
            is_known = root.name in array_record.SETS
            made_by = f" To prepare it: {array_record.command(root.name, str(root))}" if is_known else ""
            raise ConfigError(f"{setting}.path: {root} does not exist (relative to {os.getcwd()}).{made_by}")
        names = {label for _, label in files if label is not None}
        classes = sorted(names) if root.is_dir() else csv_list.sort_classes(names)
        number = {label: i for i, label in enumerate(classes)}
        return cls(
            name=name,
            settings=settings,
            size=len(files),
            paths=tuple(str(root / path if root.is_dir() else root.parent / path) for path, _ in files),
            labels=np.array([interface.UNLABELLED if label is None else number[label] for _, label in files], np.int32),
            classes=tuple(classes),
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
        _require_file(self.paths[item])
        return videos.read_clip(self.paths[item], select_frames, transform, on_stage, out)


@dataclasses.dataclass(frozen=True)
class Images(Videos):
    """Image files; a path to a prepared set opens `PreparedImages`."""

    noun: ClassVar[str] = "images"
    is_image: ClassVar[bool] = True
    file_kind: ClassVar[file_types.Kind] = "images"
    prepared: ClassVar[type[interface.Source]] = prepared_set.PreparedImages

    def decode_image(self, item: int) -> UInt8[np.ndarray, "Y X 3"]:
        """See `Source.read_image`."""
        _require_file(self.paths[item])
        return images.read_image(self.paths[item])


def scan_folder(root: AnyPath, kind: file_types.Kind) -> csv_list.Files:
    """Lists the files of a kind below `root`, sorted; a file's class is the first folder of its path.

    Unreadable files and folders are listed too, so that they count as undecodable.
    """
    files = layout.find_files(root, kind)
    in_class = [path != "." if path in files.unreadable else "/" in path for path in files.paths]
    return [
        (path, path.partition("/")[0] if inside else None) for path, inside in zip(files.paths, in_class, strict=True)
    ]


def _read_folder(
    root: pathlib.Path, kind: file_types.Kind, settings: config.SourceConfig, setting: str
) -> csv_list.Files:
    """Lists the files of a split of a folder, or all files if it has no split folders."""
    files = layout.find_files(root, kind)
    if not files.paths:
        raise _nothing_found(root, kind, files.others, setting)
    chosen = [files.paths[i] for i in patterns.chosen(files.paths, settings, setting)]
    try:
        arranged = layout.arrange(chosen, files.unreadable)
    except layout.LayoutError as error:
        raise ConfigError(
            f"{setting}.path: {root}: {error} Or select files with {setting}.include or exclude."
        ) from error
    if arranged.folders and settings.split not in arranged.folders:
        there = ", ".join(f"{split!r} ({folder}/)" for split, folder in arranged.folders.items())
        raise ConfigError(f"{setting}.split is {settings.split!r}; {root} has the splits {there}.")
    if left_over := layout.left_over([*files.others, *arranged.outside]):
        logging.warning("%s.path: %s: %s", setting, root, left_over)
    return arranged.splits[settings.split if arranged.folders else "train"]


def _require_file(path: str) -> None:
    if reason := walk.fault(path):
        raise videos.DecodeError(path, reason)


def _nothing_found(root: pathlib.Path, kind: file_types.Kind, others: Sequence[str], setting: str) -> ConfigError:
    found = sorted({os.path.splitext(path)[1] or os.path.basename(path) for path in others})[:10]
    return ConfigError(
        f"{setting}.path: no {kind} in {root}: expected CLASS/file or file with one of the endings "
        f"{', '.join(file_types.suffixes(kind))}; found {', '.join(found) or 'nothing'}."
    )
