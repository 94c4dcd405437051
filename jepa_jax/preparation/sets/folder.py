"""Any folder of classes: RAW/CLASS/file, or RAW/train/CLASS/file and RAW/test/CLASS/file; videos or images.

Without split folders everything is in the split "train", and an evaluation's `holdout` chooses its test clips. Files
that lie in no class folder have the label −1. Classes are numbered in the order of their names.
"""

import os
import pathlib
from typing import Literal

from jepa_jax.data import sources
from jepa_jax.preparation import annotations
from jepa_jax.preparation.raw import Item, PrepareError, RawSet

SPLIT_FOLDERS = {"train": ("train", "training"), "test": ("test", "testing", "val", "validation")}


def open_raw(root: pathlib.Path) -> RawSet:
    """The raw set below `root`.

    Raises:
        PrepareError: no folder, nothing in it, or videos and images both.
    """
    if not root.is_dir():
        raise PrepareError(f"--source: there is no folder {root}.")
    kind = _kind(root)
    listed = {split: _scan(root, folder, kind) for split, folder in _split_folders(root).items()}
    classes = sorted({name for files in listed.values() for _, name in files if name is not None})
    numbers = annotations.number_of(classes)
    return RawSet(
        name="folder",
        kind=kind,
        classes=tuple(classes),
        parts={
            split: [
                Item(path, sources.UNLABELLED if name is None else numbers[name], str(root / path))
                for path, name in files
            ]
            for split, files in listed.items()
        },
        splits={split: [[split]] for split in listed},
    )


def _split_folders(root: pathlib.Path) -> dict[str, pathlib.Path]:
    there = {split: [root / name for name in names if (root / name).is_dir()] for split, names in SPLIT_FOLDERS.items()}
    if all(there.values()):
        return {split: folders[0] for split, folders in there.items()}
    return {"train": root}


def _scan(root: pathlib.Path, folder: pathlib.Path, kind: Literal["videos", "images"]) -> list[tuple[str, str | None]]:
    """(path below `root`, class) of the files of a split."""
    return [((folder / path).relative_to(root).as_posix(), name) for path, name in sources.scan_folder(folder, kind)]


def _kind(root: pathlib.Path) -> Literal["videos", "images"]:
    found: dict[Literal["videos", "images"], str] = {}
    for folder, folders, names in os.walk(root, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            suffix = os.path.splitext(name)[1].lower()
            if suffix in sources.VIDEO_SUFFIXES and suffix not in sources.IMAGE_SUFFIXES:
                found.setdefault("videos", os.path.join(folder, name))
            elif suffix in sources.IMAGE_SUFFIXES and suffix not in sources.VIDEO_SUFFIXES:
                found.setdefault("images", os.path.join(folder, name))
    if len(found) == 2:
        raise PrepareError(
            f"{root} holds videos ({found['videos']}) and images ({found['images']}); give each a folder of its own."
        )
    if not found:
        raise PrepareError(f"{root} holds no videos or images: expected CLASS/file.")
    return next(iter(found))
