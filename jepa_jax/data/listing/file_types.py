"""Classifies files as videos or images by their suffix. GIF files are both."""

import os
from collections.abc import Iterable
from typing import Literal

from jepa_jax.files.remote.remote_path import RemotePath

Kind = Literal["videos", "images"]

VIDEO_SUFFIXES = tuple(
    f".{name}"
    for name in (
        *("264", "265", "3g2", "3gp", "asf", "avi", "divx", "dv", "f4v", "flv", "gif", "h264", "h265", "hevc", "ivf"),
        *("m1v", "m2t", "m2ts", "m2v", "m4v", "mj2", "mjpeg", "mjpg", "mk3d", "mkv", "mov", "mp4", "mpe", "mpeg"),
        *("mpg", "mts", "mxf", "nut", "obu", "ogm", "ogv", "qt", "rm", "rmvb", "tp", "trp", "ts", "vob", "webm"),
        *("wmv", "wtv", "xvid", "y4m"),
    )
)
IMAGE_SUFFIXES = tuple(
    f".{name}"
    for name in (
        *("apng", "avif", "avifs", "bmp", "dib", "gif", "j2c", "j2k", "jfif", "jp2", "jpc", "jpe", "jpeg", "jpf"),
        *("jpg", "jpx", "mpo", "pbm", "pcx", "pgm", "png", "pnm", "ppm", "qoi", "sgi", "tga", "tif", "tiff", "webp"),
    )
)
# Also suffixes of TypeScript sources, among others.
TRANSPORT_STREAM_SUFFIXES = (".m2t", ".m2ts", ".mts", ".tp", ".trp", ".ts")
_PACKET_BYTES = (188, 192, 204)
_MIN_PACKETS, _MAX_PACKETS = 3, 8  # to inspect


def suffixes(kind: Kind) -> tuple[str, ...]:
    """The suffixes of a kind."""
    return VIDEO_SUFFIXES if kind == "videos" else IMAGE_SUFFIXES


def suffix(path: str) -> str:
    """The suffix of a name in lower case; '' if there is none."""
    return os.path.splitext(path)[1].lower()


def is_of_kind(root: str | os.PathLike[str] | RemotePath, path: str, kind: Kind) -> bool:
    """Whether a file is of the given kind; `path` is relative to `root`. Opens only `.ts` and similar files."""
    ending = suffix(path)
    if ending not in suffixes(kind):
        return False
    return ending not in TRANSPORT_STREAM_SUFFIXES or _may_be_transport_stream(root, path)


def examples(root: str | os.PathLike[str] | RemotePath, paths: Iterable[str]) -> dict[Kind, str]:
    """Returns the first video and the first image among files.

    A GIF file counts as an image if there are other images, otherwise as a video.
    """
    found: dict[Kind, str] = {}
    animation = None
    for path in paths:
        kinds: list[Kind] = [kind for kind in ("videos", "images") if is_of_kind(root, path, kind)]
        if len(kinds) == 1:
            found.setdefault(kinds[0], path)
        elif kinds:
            animation = animation or path
    return found or ({"videos": animation} if animation else {})


def _may_be_transport_stream(root: str | os.PathLike[str] | RemotePath, path: str) -> bool:
    """Whether a file consists of packets with MPEG's sync byte. True if it cannot be opened: decoding reports that."""
    size = max(_PACKET_BYTES) * _MAX_PACKETS
    try:
        if isinstance(root, RemotePath):
            content = (root / path).read_bytes(size)
        else:
            with open(os.path.join(root, path), "rb") as file:
                content = file.read(size)
    except OSError:
        return True
    return (
        0 in content
        and any(  # text has no zero bytes
            len(syncs := content[start::packet]) >= _MIN_PACKETS and syncs.count(0x47) == len(syncs)
            for packet in _PACKET_BYTES
            for start in range(packet)
        )
    )
