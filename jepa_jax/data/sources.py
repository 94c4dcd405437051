"""Sources of clips: what a folder, a CSV file or a prepared set holds, and its classes. Opening reads names only."""

import dataclasses
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Int32, Int64, Shaped, UInt8

from jepa_jax import config
from jepa_jax.data import decode, prepared, stages, worker_process

VIDEO_SUFFIXES = tuple(
    f".{name}"
    for name in (
        *("3gp", "asf", "avi", "flv", "gif", "m2ts", "m4v", "mkv", "mov"),
        *("mp4", "mpeg", "mpg", "mts", "ogv", "ts", "vob", "webm", "wmv"),
    )
)
IMAGE_SUFFIXES = tuple(f".{name}" for name in ("bmp", "gif", "jpeg", "jpg", "png", "ppm", "tif", "tiff", "webp"))
UNLABELLED = -1


@dataclasses.dataclass(frozen=True)
class Source:
    """A set of clips. Items are numbered 0 … size − 1; the order does not depend on the machine."""

    name: str
    kind: Literal["sprites", "videos", "images"]
    settings: config.SourceConfig
    size: int
    paths: Sequence[str] = ()  # none for sprites; of a prepared set the folder's and the item's id
    labels: Int32[np.ndarray, "I"] = dataclasses.field(default_factory=lambda: np.zeros(0, np.int32))
    """Indices into `classes`, or UNLABELLED; none for sprites."""
    classes: tuple[str, ...] = ()
    prepared_set: prepared.PreparedSet | None = None  # where the items lie, if not in files of their own

    def read_clip(
        self,
        item: int,
        choose: decode.Choose,
        transform: decode.Transform = decode.whole,
        switch: stages.Switch = stages.unwatched,
        out: np.ndarray | None = None,
    ) -> Shaped[np.ndarray, "F _ _ 3"]:
        """The frames of a video that `choose(frame count, fps)` asks for, each put through `transform`.

        `switch` is told which stage begins, reading or decoding; `out` is filled and returned, if given.

        Raises:
            DecodeError: the item cannot be decoded.
        """
        with worker_process.at_work_on(path := self.paths[item]):
            if self.prepared_set is None:
                return decode.read_clip(path, choose, transform, switch, out)
            return self.prepared_set.read_clip(item, choose, transform, switch, out)

    def read_image(self, item: int) -> UInt8[np.ndarray, "Y X 3"]:
        """A still image.

        Raises:
            DecodeError: the item cannot be decoded.
        """
        with worker_process.at_work_on(path := self.paths[item]):
            return decode.read_image(path) if self.prepared_set is None else self.prepared_set.read_image(item)


def open_source(settings: config.SourceConfig, name: str, setting: str | None = None) -> Source:
    """The items of a source.

    Args:
        settings: which set; only its names are read.
        name: how the source is called in errors and in skipped.jsonl.
        setting: where the settings stand in the config, for errors; `config.data.sources.NAME` if left out.

    Raises:
        ConfigError: a missing path, a folder or CSV file with nothing in it, a line that is not `path label`, a file
            listed but not there, a pattern that is no regular expression or leaves nothing.
    """
    setting = setting or f"config.data.sources.{name}"
    if settings.kind == "sprites":
        return Source(name, "sprites", settings, settings.clips)
    if not settings.path:
        raise config.ConfigError(f"{setting}.path is empty; expected a folder or a CSV file of `path label` lines.")
    root = pathlib.Path(settings.path)
    if prepared.is_prepared(root):
        return _open_prepared(root, settings, name, setting)
    if root.is_dir():
        files = scan_folder(root, settings.kind)
        if not files:
            raise _nothing_found(root, settings.kind, setting)
    elif root.is_file():
        files = _read_csv(root)
    else:
        made_by = f" It is made by: {prepared.command(root.name, str(root))}" if root.name in prepared.SETS else ""
        raise config.ConfigError(f"{setting}.path: there is no {root} (looked from {os.getcwd()}).{made_by}")
    files = _filter(files, settings, setting)
    names = {label for _, label in files if label is not None}
    # Labels of a CSV file are numbers already, and gaps between them are kept.
    classes = sorted(names, key=str) if root.is_dir() else [str(i) for i in range(max(map(int, names), default=-1) + 1)]
    number = {label: i for i, label in enumerate(classes)}
    return Source(
        name=name,
        kind=settings.kind,
        settings=settings,
        size=len(files),
        paths=tuple(str(root / path if root.is_dir() else root.parent / path) for path, _ in files),
        labels=np.array([UNLABELLED if label is None else number[label] for _, label in files], np.int32),
        classes=tuple(classes),
    )


def open_sources(settings: config.DataConfig) -> list[Source | None]:
    """The sources of a run in the order of the config; None for one that is left out (weight 0).

    Raises:
        ConfigError: as `open_source`; nothing to draw from.
    """
    if not any(source.weight > 0 for source in settings.sources.values()):
        raise config.ConfigError("config.data.sources has no source with a weight above 0; nothing to train on.")
    return [open_source(source, name) if source.weight else None for name, source in settings.sources.items()]


def describe(opened: Sequence[Source | None]) -> str:
    """What a run draws from, in words: `videos (96 videos, weight 0.8), images (5,000 images, weight 0.2)`."""
    used = [source for source in opened if source is not None]
    return ", ".join(f"{s.name} ({s.size:,} {s.kind}, weight {s.settings.weight:g})" for s in used)


_Files = Sequence[tuple[str, str | None]]  # (path as given, class name or None)


def scan_folder(root: pathlib.Path, kind: Literal["videos", "images"]) -> _Files:
    """Files below `root` by suffix, in order; the class is the first folder on the way to them."""
    suffixes = VIDEO_SUFFIXES if kind == "videos" else IMAGE_SUFFIXES
    files = []
    for folder, folders, names in os.walk(root, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inside = pathlib.Path(folder).relative_to(root)
        for name in names:
            if os.path.splitext(name)[1].lower() in suffixes and not name.startswith("."):
                files.append(((inside / name).as_posix(), inside.parts[0] if inside.parts else None))
    return sorted(files)


def _nothing_found(root: pathlib.Path, kind: Literal["videos", "images"], setting: str) -> config.ConfigError:
    suffixes = VIDEO_SUFFIXES if kind == "videos" else IMAGE_SUFFIXES
    found = sorted({os.path.splitext(n)[1] or n for _, _, names in os.walk(root) for n in names})[:10]
    return config.ConfigError(
        f"{setting}.path: no {kind} in {root}: expected CLASS/file or file with one of the endings "
        f"{', '.join(suffixes)}; found {', '.join(found) or 'nothing'}."
    )


def _read_csv(file: pathlib.Path) -> _Files:
    """`path label` lines: the label, a number, comes after the last space; paths start from the file's folder."""
    files, listings = [], {}
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise config.ConfigError(f"{file} is not text: expected lines of `path label`, in UTF-8 ({error}).") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        path, label = line.rsplit(maxsplit=1) if len(line.split()) > 1 else (line, "")
        if not (label.isascii() and label.isdigit()):
            raise config.ConfigError(
                f"{file}:{number}: {line!r} is not `path label`: expected a path, a space and a class number (0, 1, …)."
            )
        path = path.lstrip()
        if not _exists(file.parent / path, listings):
            raise config.ConfigError(f"{file}:{number}: there is no file {file.parent / path}.")
        files.append((path, str(int(label))))
    if not files:
        raise config.ConfigError(f"{file} has no line in it; expected lines of `path label`.")
    return files


def _exists(path: pathlib.Path, listings: dict[pathlib.Path, frozenset[str]]) -> bool:
    """Whether a file is there; a folder is listed once, for hundreds of thousands of files of one on a slow disk."""
    if path.parent not in listings:
        listings[path.parent] = frozenset(os.listdir(path.parent)) if path.parent.is_dir() else frozenset()
    return path.name in listings[path.parent]


def _open_prepared(root: pathlib.Path, settings: config.SourceConfig, name: str, setting: str) -> Source:
    try:
        found = prepared.open_set(str(root), settings.split, settings.fold)
    except prepared.NotPreparedError as error:
        raise config.ConfigError(f"{setting}: {error}") from error
    if found.kind != settings.kind:
        raise config.ConfigError(f"{setting}.kind is {settings.kind!r}; {root} is a prepared set of {found.kind}.")
    if not len(found.index.ids):
        raise config.ConfigError(f"{setting}.path: {root} has no {found.kind} in its split {settings.split!r}.")
    if settings.include or settings.exclude:
        found = found.select(_chosen(found.index.ids, settings, setting))
    return Source(
        name=name,
        kind=settings.kind,
        settings=settings,
        size=len(found.index.ids),
        paths=found.index.ids.below(f"{root}/"),
        labels=found.index.label_I,
        classes=found.classes,
        prepared_set=found,
    )


def _filter(files: _Files, settings: config.SourceConfig, setting: str) -> _Files:
    """Files whose paths, as seen from the folder or CSV file, have `include` in them and not `exclude`."""
    return [files[i] for i in _chosen([path for path, _ in files], settings, setting)]


def _chosen(paths: Sequence[str], settings: config.SourceConfig, setting: str) -> Int64[np.ndarray, "some"]:
    """Which of the paths have `include` in them and not `exclude`."""
    chosen = list(range(len(paths)))
    for key, keep in (("include", True), ("exclude", False)):
        pattern = getattr(settings, key)
        if not pattern:
            continue
        try:
            expression = re.compile(pattern)
        except re.error as error:
            raise config.ConfigError(f"{setting}.{key}: {pattern!r} is no regular expression: {error}.") from error
        kept = [i for i in chosen if bool(expression.search(paths[i])) is keep]
        if not kept:
            raise config.ConfigError(
                f"{setting}.{key}: {pattern!r} leaves none of {len(chosen)} files, such as {paths[chosen[0]]!r}."
            )
        chosen = kept
    return np.array(chosen, np.int64)
