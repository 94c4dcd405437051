"""ImageNet-100: the 100 classes of ImageNet-1K of Tian et al. (arXiv:1906.05849), 126,689 + 5,000 images.

The classes are those of `imagenet100.txt` in this package, in its order. Supported layouts:

    RAW/train/WNID/*.JPEG, RAW/val/WNID/*.JPEG      ImageNet-1K sorted into folders, or a copy of the 100 classes
    RAW/ILSVRC/Data/CLS-LOC/{train/WNID,val}/*.JPEG with RAW/LOC_val_solution.csv       ImageNet-1K as Kaggle has it
    RAW/[data/]train-*.parquet, validation-*.parquet    a copy of the 100 classes, columns image and label

A copy with 100 class folders of other names is accepted as it is. `RAW/classes.txt`, with one folder name per line,
replaces the built-in list.
"""

import json
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from jepa_jax.data import skipped_files, sources
from jepa_jax.data.listing import layout
from jepa_jax.data.preparation import annotations
from jepa_jax.data.preparation.raw import Item, PrepareError, RawSet
from jepa_jax.files.remote.any_path import AnyPath

OFFICIAL = {"train": (126_689,), "test": (5_000,)}
CLASS_LIST = pathlib.Path(__file__).with_name("imagenet100.txt")
OWN_CLASS_LIST = "classes.txt"
# Results are reported on the validation set, since the test labels are not public.
NAMES = {"train": ("train",), "test": ("validation", "test")}


def open_raw(root: AnyPath) -> RawSet:
    """Opens the raw set below `root`.

    Raises:
        PrepareError: there are neither parquet files nor split folders, or classes are missing.
    """
    annotations.require_folder(root)
    for folder in (root / "data", root):
        if list(folder.glob("*.parquet")):
            notes = _unused(folder.glob("*.parquet"), _split_files(folder))
            classes, parts, skips = _from_parquet(folder)
            break
    else:
        skips = []
        classes, parts = _from_folders(root)
        notes = _unused_folders(root, classes)
    return RawSet(
        name="imagenet100",
        kind="images",
        classes=tuple(classes),
        parts=parts,
        splits={"train": [["train"]], "test": [["test"]]},
        official=OFFICIAL,
        notes=(*notes, *_empty_classes(classes, parts)),
        skips=skips,
    )


def _empty_classes(classes: Sequence[str], parts: Mapping[str, Sequence[Item]]) -> Iterator[str]:
    for split, items in parts.items():
        if empty := len(classes) - len({item.label for item in items}):
            yield f"{empty} of the {len(classes)} classes have no images in the split {split}."


def _from_folders(root: AnyPath) -> tuple[Sequence[str], dict[str, list[Item]]]:
    folders = _split_folders(root)
    classes = _classes(root, folders["train"])
    numbers = annotations.label_of_class(classes)
    parts = {split: _in_class_folders(folder, split, numbers) for split, folder in folders.items()}
    if not parts["test"]:
        parts["test"] = _in_one_folder(folders["test"], annotations.find(root, "LOC_val_solution.csv"), numbers)
    return classes, parts


def _split_folders(root: AnyPath) -> dict[str, AnyPath]:
    below = annotations.find(root, "ILSVRC/Data/CLS-LOC", ".")
    found = _by_split(path for path in below.iterdir() if path.is_dir())
    folders = {}
    for split, names in NAMES.items():
        first = next((found[name] for name in names if name in found), None)
        if first is None:
            raise PrepareError(f"{below} lacks {'train' if split == 'train' else 'val (or test)'}.")
        if len(first) > 1:
            raise PrepareError(f"{below} has {', '.join(path.name for path in first)} for the same split; keep one.")
        folders[split] = first[0]
    return folders


def _split_files(folder: AnyPath) -> dict[str, list[AnyPath]]:
    """Groups parquet files by the split at the start of their names: `train-00000-of-00017.parquet`."""
    found = _by_split(folder.glob("*.parquet"))
    return {split: next((found[name] for name in names if name in found), []) for split, names in NAMES.items()}


def _by_split(paths: Iterable[AnyPath]) -> dict[str, list[AnyPath]]:
    found: dict[str, list[AnyPath]] = {}
    for path in sorted(paths):
        if split := layout.split_of(path.name if path.is_dir() else re.split("[^A-Za-z]", path.name)[0]):
            found.setdefault(split, []).append(path)
    return found


def _unused(files: Iterable[AnyPath], used: Mapping[str, Sequence[AnyPath]]) -> tuple[str, ...]:
    names = sorted(
        {file.name for file in files}.difference(file.name for of_split in used.values() for file in of_split)
    )
    return (f"Parquet files left out: {', '.join(names[:5])}{', …' * (len(names) > 5)}.",) * bool(names)


def _unused_folders(root: AnyPath, classes: Sequence[str]) -> tuple[str, ...]:
    """Notes on class and split folders that are left out. Files are not counted: full ImageNet has too many."""
    folders = _split_folders(root)
    notes = []
    for folder in folders.values():
        others = {path.name for path in folder.iterdir() if path.is_dir() and path.name[0] != "."}.difference(classes)
        if others:
            notes.append(f"{len(others):,} class folders in {folder.name}/ are not among the classes and are left out.")
    splits = {path.name for path in folders["train"].parent.iterdir() if path.is_dir() and layout.split_of(path.name)}
    if others := sorted(splits.difference(folder.name for folder in folders.values())):
        notes.append(f"Left out: {', '.join(f'{name}/' for name in others)}, which is not the validation set.")
    return tuple(notes)


def _classes(root: AnyPath, train: AnyPath) -> list[str]:
    there = sorted(path.name for path in train.iterdir() if path.is_dir())
    own = root / OWN_CLASS_LIST
    file = own if own.is_file() else CLASS_LIST
    listed = [line for _, line in annotations.read_lines(file)]
    missing = [name for name in listed if name not in set(there)]
    if not missing:
        return listed
    if file is CLASS_LIST and len(there) == len(listed):
        return there
    raise PrepareError(
        f"{train} lacks {len(missing)} of the {len(listed)} classes of {file}, such as {missing[0]}; it has "
        f"{len(there)} folders. For other classes list their folders in {own}, one per line."
    )


def _in_class_folders(folder: AnyPath, split: str, numbers: Mapping[str, int]) -> list[Item]:
    items = []
    for name, label in numbers.items():
        files = sources.scan_folder(folder / name, "images")
        items += [Item(f"{split}/{name}/{path}", label, str(folder / name / path)) for path, _ in files]
    return items


def _in_one_folder(folder: AnyPath, solution: AnyPath, numbers: Mapping[str, int]) -> list[Item]:
    """Validation images in Kaggle's layout. `ILSVRC2012_val_00048981,n03995372 85 1 499 272`: image, class, box."""
    items = []
    for number, line in annotations.read_lines(solution)[1:]:
        id, _, boxes = line.partition(",")
        if not boxes:
            raise PrepareError(f"{solution}:{number}: {line!r}; expected an image, a comma and its class.")
        name = boxes.split()[0]
        if name in numbers:
            items.append(Item(f"test/{name}/{id}.JPEG", numbers[name], str(folder / f"{id}.JPEG")))
    return items


def _from_parquet(folder: AnyPath) -> tuple[Sequence[str], dict[str, list[Item]], list[skipped_files.Skip]]:
    """Returns classes, items by split, and the rows without a valid label."""
    classes: Sequence[str] = ()
    parts, skips = {}, []
    for split, files in _split_files(folder).items():
        if not files:
            raise PrepareError(f"{folder} lacks {NAMES[split][0]}-*.parquet.")
        parts[split], unusable = [], []
        for file in files:
            try:
                classes = classes or _named_classes(file)
                with file.open("rb") as opened:  # pyarrow rejects paths that are not UTF-8 or look like a URL
                    labels = pq.read_table(opened, columns=["label"]).column("label").to_pylist()
            except (OSError, KeyError, pa.ArrowException) as error:
                raise PrepareError(
                    f"{file} is not a parquet file with the columns image and label: {error}."
                ) from error
            for row, label in enumerate(labels):
                if isinstance(label, int) and 0 <= label < len(classes):
                    parts[split].append(Item(f"{file.stem}/{row}", label, str(file), row))
                    continue
                number = len(parts[split]) + len(unusable)
                wrong = "is null" if label is None else f"{label!r} is not among 0 to {len(classes) - 1}"
                unusable.append(skipped_files.Skip(split, number, str(file), f"row {row}: its label {wrong}"))
        if unusable and not parts[split]:
            raise PrepareError(f"{unusable[0].path}, {unusable[0].reason}, and no row of {split} has a usable label.")
        skips += unusable
    return classes, parts, skips


def _named_classes(file: AnyPath) -> list[str]:
    """The class names in the file's Hugging Face metadata, in label order.

    Raises:
        KeyError: the metadata is missing.
    """
    with file.open("rb") as opened:
        metadata = pq.read_schema(opened).metadata or {}
    described = json.loads(metadata.get(b"huggingface", b"{}"))
    return described["info"]["features"]["label"]["names"]
