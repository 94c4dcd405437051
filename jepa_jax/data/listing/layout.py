"""Folder layouts, shared by preparation, training and evaluation: CLASS/file, or SPLIT/CLASS/file.

Split folders are recognized by name, ignoring case: train, training; test, testing; val, valid, validation, dev, eval;
each also followed by `set`, `split` or `data`, as in `training_set`. The split `validation` is called `test` if the
folder has no other test split. Without split folders everything is in the split `train`. Ambiguous layouts are errors.
"""

import collections
import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from jepa_jax.data.listing import file_types, walk
from jepa_jax.files.remote.remote_path import RemotePath

SPLITS = ("train", "validation", "test")
_SPLIT_NAMES = {"train": ("train", "training"), "test": ("test", "testing")} | {
    "validation": ("val", "valid", "validation", "dev", "eval")
}
_SPLIT_OF = {name: split for split, names in _SPLIT_NAMES.items() for name in names}
_AFTER = re.compile(r"[ _-]?(?:set|split|data)$")
_SHOWN = 5
_REASONS = {
    **dict.fromkeys(file_types.TRANSPORT_STREAM_SUFFIXES, "not an MPEG transport stream"),
    **dict.fromkeys((".heic", ".heif"), "convert them to JPEG: Pillow cannot read them"),
}


class LayoutError(ValueError):
    """The layout of a folder is ambiguous."""


class Files(NamedTuple):
    """The files below a folder, as sorted relative paths."""

    kind: file_types.Kind
    paths: list[str]  # files of the kind and unreadable folders
    unreadable: frozenset[str]  # those folders
    others: list[str]


class Layout(NamedTuple):
    """Files by split."""

    splits: dict[str, list[tuple[str, str | None]]]  # split → (path, class name or None), sorted
    folders: dict[str, str]  # split → its folder; none if there are no split folders
    outside: list[str]  # files next to split folders


def split_of(name: str) -> str | None:
    """The split indicated by the name of a folder or file, or None."""
    return _SPLIT_OF.get(_AFTER.sub("", name.casefold()))


def find_files(root: str | os.PathLike[str] | RemotePath, kind: file_types.Kind | None = None) -> Files:
    """Finds the videos or images below a folder; `kind` None detects which.

    Raises:
        LayoutError: `kind` is None, and there are both or neither.
    """
    tree = walk.walk(root)
    if kind is None:
        found = file_types.examples(root, tree.files)
        if len(found) == 2:
            raise LayoutError(
                f"it holds videos ({found['videos']}) and images ({found['images']}); move them to separate folders."
            )
        if not found:
            raise LayoutError(f"it holds no videos or images; expected CLASS/file. {left_over(tree.files)}".strip())
        kind = next(iter(found))
    chosen = [path for path in tree.files if file_types.is_of_kind(root, path, kind)]
    others = sorted(set(tree.files).difference(chosen))
    return Files(kind, sorted([*chosen, *tree.unreadable]), frozenset(tree.unreadable), others)


def arrange(paths: Sequence[str], unreadable: Collection[str] = ()) -> Layout:
    """Groups files by split and class, based on their paths only.

    Args:
        paths: relative paths of files and unreadable folders.
        unreadable: the unreadable folders among `paths`.

    Raises:
        LayoutError: split folders are mixed with class folders, a split has two folders, or split folders are nested
            below other folders.
    """
    parents = {path: _parents(path, path in unreadable) for path in paths}
    tops = sorted({folders[0] for folders in parents.values() if folders})
    found = {folder: split for folder in tops if (split := split_of(folder))}
    if not found:
        _refuse_deeper(parents.values())
        return Layout({"train": [(path, (*folders, None)[0]) for path, folders in parents.items()]}, {}, [])
    if len(found) < len(tops):
        named = _list([f"{folder}/" for folder in found])
        others = _list([f"{folder}/" for folder in tops if folder not in found])
        raise LayoutError(
            f"{named} has the name of a split, beside {others}, which would be classes. If all of them are classes, "
            f"move them into one folder train/; else move {others} away or into a split."
        )
    by_split: dict[str, list[str]] = collections.defaultdict(list)
    for folder, split in found.items():
        by_split[split].append(folder)
    for split, folders in by_split.items():
        if len(folders) > 1:
            raise LayoutError(
                f"{_list([f'{f}/' for f in folders])} are all called the split {split!r}; keep one of them."
            )
    if "validation" in by_split and "test" not in by_split:
        by_split["test"] = by_split.pop("validation")
    folders = {split: by_split[split][0] for split in SPLITS if split in by_split}
    splits = {
        split: [(path, (*inside[1:], None)[0]) for path, inside in parents.items() if inside and inside[0] == folder]
        for split, folder in folders.items()
    }
    return Layout(splits, folders, [path for path, inside in parents.items() if not inside])


def left_over(paths: Iterable[str]) -> str:
    """Summarizes left-out files in one sentence: their number, suffixes and folders; '' if there are none."""
    by_ending: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for path in paths:
        by_ending[file_types.suffix(path)][f"{os.path.dirname(path) or '.'}/"] += 1
    total = sum(folders.total() for folders in by_ending.values())
    if not total:
        return ""
    kinds = sorted(by_ending.items(), key=lambda item: (-item[1].total(), item[0]))
    shown = [_describe(ending, folders) for ending, folders in kinds[:_SHOWN]]
    if len(kinds) > _SHOWN:
        more = sum(folders.total() for _, folders in kinds[_SHOWN:])
        shown.append(f"{more:,} with {len(kinds) - _SHOWN} other endings")
    return f"{total:,} file{'s are' if total > 1 else ' is'} left out: {'; '.join(shown)}."


def _describe(ending: str, folders: Mapping[str, int]) -> str:
    reason = f" ({_REASONS[ending]})" if ending in _REASONS else ""
    return f"{sum(folders.values()):,} {ending or 'without an ending'}{reason} in {_list(sorted(folders))}"


def _parents(path: str, is_folder: bool) -> tuple[str, ...]:
    """The parent folders of a file; for a folder, including itself."""
    if path == ".":
        return ()
    parts = tuple(path.split("/"))
    return parts if is_folder else parts[:-1]


def _refuse_deeper(parents: Iterable[tuple[str, ...]]) -> None:
    """Rejects class folders that contain split folders, since a class would mix the splits."""
    splits: dict[str, set[str]] = collections.defaultdict(set)
    for folders in set(parents):
        for depth in range(1, len(folders)):
            if split_of(folders[depth]):
                splits["/".join(folders[:depth])].add(folders[depth])
    mixed = [folder for folder in sorted(splits) if len({split_of(name) for name in splits[folder]}) > 1]
    if mixed:
        inside = _list([f"{mixed[0]}/{name}/" for name in sorted(splits[mixed[0]])])
        more = f" ({len(mixed) - 1:,} other folders too)" if len(mixed) > 1 else ""
        raise LayoutError(
            f"it has split folders further down: {inside}{more}. Expected SPLIT/CLASS/file; give the folder that the "
            f"split folders are in, such as {mixed[0]}."
        )


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
