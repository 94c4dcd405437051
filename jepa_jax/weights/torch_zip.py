"""The zip archive that `torch.save` writes: data.pkl and data/0, data/1, …, all uncompressed.

Nothing is extracted. A member is a range of the file's bytes.
"""

import os
import pathlib
import struct
import zipfile
from typing import NamedTuple

from jepa_jax.weights.tensors import WeightsError

LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, length of the name, length of the extra field


class Member(NamedTuple):
    """A file in the archive, as a range of the archive's bytes."""

    offset: int
    size: int


def members(path: str | os.PathLike[str]) -> dict[str, Member]:
    """Returns the members of an archive by their names below its top folder: data.pkl, data/0, ….

    Raises:
        WeightsError: not an archive of `torch.save`; a truncated archive; compressed, encrypted or overlapping members;
            paths that leave the archive.
    """
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        if file.read(2) != b"PK":
            raise WeightsError(
                f"{path} is not a zip archive, as torch.save writes since PyTorch 1.6. Load and save it again with a "
                "newer PyTorch, or choose another file."
            )
        try:
            with zipfile.ZipFile(file) as archive:
                infos = [info for info in archive.infolist() if not info.is_dir()]
        except (zipfile.BadZipFile, zipfile.LargeZipFile, ValueError, NotImplementedError, struct.error) as error:
            raise WeightsError(f"{path} is truncated or damaged: {error}. Download it again.") from error
        found = {}
        for info in infos:
            _check(path, info)
            if info.filename in found:
                raise WeightsError(f"{path} has two members {info.filename}.")
            found[info.filename] = _locate(path, file, info, size)
    if sum(member.size for member in found.values()) > size:
        raise WeightsError(f"{path} has overlapping members: together they are larger than the file.")
    tops = [name.removesuffix("data.pkl") for name in found if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(tops) != 1:
        raise WeightsError(f"{path} is a zip archive without FOLDER/data.pkl, so torch.save did not write it.")
    below = {name.removeprefix(tops[0]): member for name, member in found.items() if name.startswith(tops[0])}
    if "byteorder" in below and (order := read(path, below["byteorder"])) != b"little":
        raise WeightsError(f"{path} has the byte order {order[:20]!r}; expected little.")
    return below


def read(path: str | os.PathLike[str], member: Member) -> bytes:
    """Returns the bytes of a member."""
    with open(path, "rb") as file:
        file.seek(member.offset)
        return file.read(member.size)


def _check(path: str | os.PathLike[str], info: zipfile.ZipInfo) -> None:
    name = info.orig_filename
    inside = pathlib.PurePosixPath(name)
    if inside.is_absolute() or ".." in inside.parts or "\\" in name or ":" in name or name != info.filename:
        raise WeightsError(f"{path} has a member with the path {name!r}, which is not inside the archive.")
    if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
        raise WeightsError(
            f"{path} is not a file of torch.save: {name} is compressed, from {info.file_size:,} bytes to "
            f"{info.compress_size:,}."
        )
    if info.flag_bits & 1:
        raise WeightsError(f"{path} is not a file of torch.save: {name} is encrypted.")


def _locate(path: str | os.PathLike[str], file, info: zipfile.ZipInfo, size: int) -> Member:
    file.seek(max(info.header_offset, 0))  # zipfile computes a negative one for some damaged files
    header = file.read(LOCAL_HEADER.size)
    if len(header) == LOCAL_HEADER.size:
        signature, name_length, extra_length = LOCAL_HEADER.unpack(header)
        name = file.read(name_length)
        offset = info.header_offset + LOCAL_HEADER.size + name_length + extra_length
        if signature == b"PK\3\4" and name == info.orig_filename.encode() and offset + info.file_size <= size:
            return Member(offset, info.file_size)
    raise WeightsError(f"{path} is truncated or damaged: {info.filename} is not where the directory of the zip has it.")
