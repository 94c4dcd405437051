"""Location-independent fingerprints of sources: names, sizes and excerpts of their content."""

import concurrent.futures
import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Mapping, Sequence

import numpy as np

from jepa_jax.data.decode import byte_range
from jepa_jax.data.decode.byte_range import File

SIZES, EXCERPTS, EXCERPT_BYTES = 4096, 64, 4096


@dataclasses.dataclass(frozen=True)
class Fingerprint:
    """The content of a source, independent of its location.

    Attributes:
        names: names of all items, in order.
        sizes: sizes of a sample of items, by name: bytes of files, frames of prepared videos.
        content: digests of another sample, or of the files that hold all items, by name.
    """

    names: tuple[str, ...]
    sizes: Mapping[str, int]
    content: Mapping[str, str]

    @functools.cached_property
    def digest(self) -> str:
        """A single hash of the fingerprint."""
        return hashlib.sha256(json.dumps(dataclasses.asdict(self)).encode()).hexdigest()


def of_files(names: Sequence[str], files: Sequence[File]) -> Fingerprint:
    """Fingerprints files: the sizes of up to SIZES of them and digests of excerpts of up to EXCERPTS."""
    sized, excerpted = (spread(len(names), count) for count in (SIZES, EXCERPTS))
    with concurrent.futures.ThreadPoolExecutor(16) as threads:  # a network disk answers many in parallel
        sizes = threads.map(lambda i: size_of(files[i]), sized)
        content = threads.map(lambda i: excerpt(files[i]), excerpted)
        return Fingerprint(
            tuple(names),
            dict(zip((names[i] for i in sized), sizes, strict=True)),
            dict(zip((names[i] for i in excerpted), content, strict=True)),
        )


def relative_names(path: str, files: Sequence[str]) -> tuple[str, ...]:
    """Location-independent names of the files of a source at `path`, a folder or a CSV file.

    They are relative to the folder or to that of the CSV file; if it lists files elsewhere, to their common folder.
    """
    folder = path if os.path.isdir(path) else os.path.dirname(path)
    paths = [os.path.abspath(file) for file in files]
    prefix = os.path.join(os.path.abspath(folder), "")
    if not all(file.startswith(prefix) for file in paths):
        prefix = os.path.join(os.path.commonpath({os.path.dirname(file) for file in paths}), "")
    return tuple(file.removeprefix(prefix) for file in paths)


def spread(size: int, count: int) -> list[int]:
    """Up to `count` evenly spaced indices into `size` items."""
    return np.unique(np.linspace(0, size - 1, min(size, count)).round().astype(int)).tolist()


def size_of(file: File) -> int:
    """The size in bytes; −1 if the file cannot be read (decoding reports that)."""
    try:
        return byte_range.locate(file).size
    except OSError:
        return -1


def excerpt(file: File) -> str:
    """A digest of a file's first, middle and last bytes; empty if the file cannot be read."""
    digest = hashlib.sha256()
    try:
        where = byte_range.locate(file)
        with open(where.container, "rb") as opened:
            for start in (0, where.size // 2, max(0, where.size - EXCERPT_BYTES)):
                opened.seek(where.start + start)
                digest.update(opened.read(min(EXCERPT_BYTES, where.size - start)))
    except OSError:
        return ""
    return digest.hexdigest()
