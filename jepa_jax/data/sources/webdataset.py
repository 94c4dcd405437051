"""Tar shards of video clips, as WebDataset writes them.

`path` is a .tar file, a folder of them, or a pattern with braces or wildcards: `shard-{000..012}.tar`. Members whose
names agree up to the first dot of the basename form one sample. Its video (.mp4, .webm, …) is the item; its label is
in its .cls file, its .txt file or under "label" in its .json file.

Members are read by their offsets in the tar, without extracting it, so tars must not be compressed.
"""

import dataclasses
import functools
import glob
import json
import os
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, NamedTuple

import numpy as np
from absl import logging
from jaxtyping import Int32, Int64, Shaped

from jepa_jax import config
from jepa_jax.data import faults
from jepa_jax.data.decode import byte_range, videos
from jepa_jax.data.listing import csv_list, file_types, walk
from jepa_jax.data.sources import fingerprints, interface, patterns
from jepa_jax.data.workers import timing
from jepa_jax.files.paths import require_local
from jepa_jax.settings import ConfigError

LABELS = (".cls", ".txt", ".json")  # suffixes of members that hold a label, in order of precedence
_LARGEST_LABEL = 2**20  # bytes
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_BLOCK = 512  # bytes, of the tar format
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_SHOWN = 3


class Member(NamedTuple):
    """A video in a tar; `fault` is the reason if it cannot be read, else empty."""

    name: str
    start: int
    size: int
    label: str | None
    fault: str = ""


@dataclasses.dataclass(frozen=True)
class WebDataset(interface.Source):
    """Videos in tar shards."""

    tars: tuple[str, ...] = ()
    modified: tuple[int, ...] = ()  # modification time of each tar (ns) when it was indexed
    tar_I: Int32[np.ndarray, "I"] = dataclasses.field(default_factory=lambda: np.zeros(0, np.int32))
    start_I: Int64[np.ndarray, "I"] = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))
    size_I: Int64[np.ndarray, "I"] = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))
    reasons: Mapping[int, str] = dataclasses.field(default_factory=dict)  # item → why it cannot be read

    @classmethod
    def open(cls, settings: config.SourceConfig, name: str, setting: str) -> interface.Source:
        """Lists the videos of all shards, in the order of shards and members.

        Raises:
            ConfigError: a shard is missing or compressed, or there are no videos; also as `patterns.chosen`.
        """
        tars = _shards(settings.path, f"{setting}.path")
        root = _root(settings.path)
        members = [(t, member) for t, tar in enumerate(tars) for member in _index(tar, f"{setting}.path")]
        if not any(not member.fault for _, member in members):
            first = "".join(f" {tars[t]}: {member.fault}." for t, member in members[:1])
            raise ConfigError(
                f"{setting}.path: no videos in {len(tars)} tar files such as {tars[0]}; expected members such as "
                f"SAMPLE.mp4 and SAMPLE.cls.{first}"
            )
        paths = [f"{tars[t]}/{member.name}" if member.name else tars[t] for t, member in members]
        relative = [os.path.relpath(path, root) for path in paths]
        chosen = patterns.chosen(relative, settings, setting).tolist()
        members, paths = [members[i] for i in chosen], [paths[i] for i in chosen]
        classes = csv_list.sort_classes(member.label for _, member in members if member.label is not None)
        number = {label: i for i, label in enumerate(classes)}
        labels = [interface.UNLABELLED if m.label is None else number[m.label] for _, m in members]
        return cls(
            name=name,
            settings=settings,
            size=len(members),
            paths=tuple(paths),
            labels=np.array(labels, np.int32),
            classes=tuple(classes),
            tars=tuple(tars),
            modified=tuple(os.stat(tar).st_mtime_ns for tar in tars),
            tar_I=np.array([t for t, _ in members], np.int32),
            start_I=np.array([member.start for _, member in members], np.int64),
            size_I=np.array([member.size for _, member in members], np.int64),
            reasons={i: member.fault for i, (_, member) in enumerate(members) if member.fault},
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
        member = self._member(item)
        with faults.as_decode_error(member.name):
            if reason := self.reasons.get(item):
                raise videos.DecodeError(member.name, reason)
            if os.stat(member.container).st_mtime_ns != self.modified[self.tar_I[item]]:
                raise ValueError(f"{member.container} changed after it was opened; restart this job")
            return videos.read_clip(member, select_frames, transform, on_stage, out)

    def _member(self, item: int) -> byte_range.ByteRange:
        return byte_range.ByteRange(
            self.paths[item], self.tars[self.tar_I[item]], int(self.start_I[item]), int(self.size_I[item])
        )

    @property
    def root(self) -> str:
        """The folder of the shards."""
        return _root(self.settings.path)

    def fingerprint(self) -> fingerprints.Fingerprint:
        """Covers the names of all members, and sizes and excerpts of some."""
        return fingerprints.of_files(self.item_names(0), [self._member(item) for item in range(self.size)])

    def stored_files(self) -> Sequence[str]:
        """The shards."""
        return self.tars


def _root(path: str) -> str:
    """The folder at the start of a path or pattern."""
    if os.path.isdir(path):
        return path
    fixed = path if os.path.exists(path) else re.split(r"[{*?\[]", path)[0]
    return os.path.dirname(fixed) or "."


def _shards(path: str, setting: str) -> list[str]:
    """Expands a source's path to paths of tar files, in order."""
    if not path:
        raise ConfigError(f"{setting} is empty; expected a .tar file, a folder of them, or shard-{{000..012}}.tar.")
    require_local(path, setting)
    if os.path.isdir(path):
        found = [f"{path.rstrip('/')}/{name}" for name in walk.walk(path).files if re.search(r"\.(tar|tgz)\b", name)]
    elif os.path.exists(path):
        found = [path]
    else:
        found = []
        for expanded in expand_braces(path):
            found += sorted(glob.glob(expanded)) if glob.has_magic(expanded) else [expanded]
    if missing := [tar for tar in found if not os.path.isfile(tar)]:
        raise ConfigError(
            f"{setting} is {path!r}: {len(missing)} of {len(found)} tar files do not exist: "
            f"{', '.join(missing[:_SHOWN])}{', …' * (len(missing) > _SHOWN)} (relative to {os.getcwd()})."
        )
    if not found:
        raise ConfigError(f"{setting} is {path!r}, which matches no .tar file (relative to {os.getcwd()}).")
    return found


def expand_braces(pattern: str) -> Iterator[str]:
    """`a{00..02}.tar` → `a00.tar`, `a01.tar`, `a02.tar`; `{x,y}.tar` → `x.tar`, `y.tar`. As in a shell."""
    match = next((match for match in _BRACES.finditer(pattern) if "," in match[1] or _RANGE.fullmatch(match[1])), None)
    if match is None:
        yield pattern
        return
    if numbers := _RANGE.fullmatch(match[1]):
        first, last = int(numbers[1]), int(numbers[2])
        padded = any(len(text) > 1 and text.startswith("0") for text in numbers.groups())
        width = max(map(len, numbers.groups())) if padded else 1
        step = 1 if first <= last else -1
        choices = [f"{number:0{width}}" for number in range(first, last + step, step)]
    else:
        choices = match[1].split(",")
    for choice in choices:
        yield from expand_braces(f"{pattern[: match.start()]}{choice}{pattern[match.end() :]}")


def _index(tar: str, setting: str) -> tuple[Member, ...]:
    """Lists the videos of a tar.

    Unreadable parts are listed too, with their fault, so that they count as undecodable: a truncated member, or a
    damaged tar, under an empty name.

    Raises:
        ConfigError: the tar is compressed.
    """
    try:
        with open(tar, "rb") as file:
            start = file.read(8)
        status = os.stat(tar)
    except OSError as error:
        return (Member("", 0, 0, None, error.strerror or str(error)),)
    for magic, method in _COMPRESSED.items():
        if start.startswith(magic):
            raise ConfigError(
                f"{setting}: {tar} is compressed ({method}), and members of a compressed tar cannot be read by "
                "offset. Decompress it; videos are compressed already."
            )
    return _index_version(tar, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=4096)
def _index_version(tar: str, size: int, modified: int) -> tuple[Member, ...]:
    """`_index` of a tar, cached by size and modification time."""
    del modified
    fault, found = "", []
    try:
        with tarfile.open(tar, "r:", encoding="utf-8", errors="surrogateescape") as archive, open(tar, "rb") as file:
            try:
                for member in archive:
                    found.append(member)
            except (tarfile.TarError, OSError, ValueError) as error:
                fault = f"damaged after its member {found[-1].name if found else ''!r}: {error}"
            else:
                file.seek(archive.offset)
                if not fault and file.read(_BLOCK).strip(b"\0"):
                    fault = f"damaged: no member begins at byte {archive.offset:,}; the rest is lost"
            members = list(_videos(tar, found, size, file))
    except (tarfile.TarError, OSError, ValueError) as error:
        return (Member("", 0, 0, None, f"not a readable tar file: {error}"),)
    return (*members, Member("", 0, 0, None, fault)) if fault else tuple(members)


def _videos(tar: str, members: Sequence[tarfile.TarInfo], tar_size: int, file: IO[bytes]) -> Iterator[Member]:
    """The videos among the members, with their labels."""
    latest = {
        m.name: m for m in members if m.isreg()
    }  # the last of several members with the same name takes precedence
    labels: dict[str, dict[str, tarfile.TarInfo]] = {}
    for name, member in latest.items():
        if (ending := file_types.suffix(name)) in LABELS:
            labels.setdefault(_sample(name), {}).setdefault(ending, member)
    for name, member in latest.items():
        if file_types.suffix(name) not in file_types.VIDEO_SUFFIXES or os.path.basename(name).startswith("."):
            continue
        reason = ""
        if member.issparse():
            reason = "stored as a sparse file, which cannot be read in place; make the tar without --sparse"
        elif not member.size:
            reason = "the member is empty"
        elif member.offset_data + member.size > tar_size:
            reason = f"truncated: {tar} ends within it"
        yield Member(name, member.offset_data, member.size, _label(tar, labels.get(_sample(name), {}), file), reason)


def _sample(name: str) -> str:
    """The sample of a member: its name up to the first dot of the basename."""
    folder, base = os.path.split(name)
    return os.path.join(folder, base.partition(".")[0])


def _label(tar: str, members: Mapping[str, tarfile.TarInfo], file: IO[bytes]) -> str | None:
    """The label of a sample from its label files; None if none is readable."""
    for ending in LABELS:
        if (member := members.get(ending)) is None:
            continue
        file.seek(member.offset_data)
        content = file.read(min(member.size, _LARGEST_LABEL))
        try:
            text = content.decode()
            if ending == ".json":
                found = json.loads(text)
                text = "" if not isinstance(found, dict) else str(found.get("label", ""))
        except ValueError as error:
            logging.warning("%s/%s has no readable label: %s", tar, member.name, error)
            continue
        if text := text.strip():
            return csv_list.class_name(text)
    return None
