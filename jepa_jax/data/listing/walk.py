"""Recursive listing of a folder, without opening files."""

import os
import stat
from typing import Literal, NamedTuple

from absl import logging

from jepa_jax.data.listing import names
from jepa_jax.files.remote.remote_path import RemotePath


class Tree(NamedTuple):
    """The content of a folder, as sorted relative paths."""

    files: list[str]  # everything but folders, including broken links, pipes and sockets
    unreadable: list[str]  # folders that cannot be listed ("." is the root), and links that may be to such


def walk(root: str | os.PathLike[str] | RemotePath) -> Tree:
    """Lists the files below a folder. Skips hidden files and follows symbolic links to folders.

    Each folder is listed once, under its path with the fewest links, or the first of those in sorted order. A link to a
    folder that contains the link is not followed.
    """
    if isinstance(root, RemotePath):
        return Tree(root.files_below(), [])
    root = os.fspath(root)
    tree = Tree([], [])
    listed: dict[tuple[int, int], str] = {}  # device and inode of a folder → its path
    links = [""]
    while links:  # in round n, paths contain n links
        further: list[str] = []
        for link in sorted(links):
            _list_real(root, link, listed, tree, further)
        links = further
    tree.files.sort()
    tree.unreadable.sort()
    return tree


def _list_real(root: str, start: str, listed: dict[tuple[int, int], str], tree: Tree, links: list[str]) -> None:
    """Lists a folder recursively; appends links to folders to `links`."""
    folders = [start]
    while folders:
        inside = folders.pop()
        path = os.path.join(root, inside)
        try:
            status = os.stat(path)
            known = listed.setdefault((status.st_dev, status.st_ino), inside)
            if known != inside:
                logging.warning("%s is not listed: it is the same folder as %s.", path, os.path.join(root, known))
                continue
            with os.scandir(path) as entries:
                found = sorted(entries, key=lambda entry: entry.name, reverse=True)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            tree.unreadable.append(inside or ".")
            continue
        for entry in found:
            if entry.name.startswith("."):
                continue
            inner = f"{inside}/{entry.name}" if inside else entry.name
            match _kind(entry):
                case "file":
                    tree.files.append(inner)
                case "folder":
                    folders.append(inner)
                case "link" if not _contains_itself(entry.path):
                    links.append(inner)
                case "broken":  # without a suffix it may have been a folder
                    (tree.files if os.path.splitext(entry.name)[1] else tree.unreadable).append(inner)


def _kind(entry: os.DirEntry[str]) -> Literal["file", "folder", "link", "broken"]:
    """Classifies a folder entry. A "link" points to a folder; a "broken" one cannot be followed."""
    try:
        if entry.is_symlink():
            entry.stat()
        return "file" if not entry.is_dir() else "link" if entry.is_symlink() else "folder"
    except OSError:
        return "broken"


def _contains_itself(link: str) -> bool:
    """Whether a link points to a folder that contains it."""
    target, folder = os.path.realpath(link), os.path.realpath(os.path.dirname(link))
    return os.path.commonpath([target, folder]) == target


def fault(path: str) -> str | None:
    """The reason why a listed path cannot be opened as a file; None for a regular file. Opening a pipe would block."""
    try:
        mode = os.stat(path).st_mode
    except ValueError:  # a NUL, or a surrogate that does not encode a byte
        return "not a valid path"
    except OSError as error:
        if os.path.islink(path):
            return f"a symbolic link to {names.printable(os.readlink(path))}, which leads nowhere ({error.strerror})"
        return "listed, but the file is not there" if isinstance(error, FileNotFoundError) else error.strerror
    if stat.S_ISREG(mode):
        return None
    if not stat.S_ISDIR(mode):
        return "not a regular file but a pipe, socket or device"
    try:
        os.scandir(path).close()
    except OSError as error:
        return f"a folder that cannot be listed ({error.strerror})"
    return "a folder, not a file"
