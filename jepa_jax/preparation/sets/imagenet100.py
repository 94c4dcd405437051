"""ImageNet-100: the 100 classes of ImageNet-1K of Tian et al. (arXiv:1906.05849), 126,689 + 5,000 images.

Any of these, the classes being those of `imagenet100.txt` beside this file, in its order:

    RAW/train/WNID/*.JPEG, RAW/val/WNID/*.JPEG      ImageNet-1K sorted into folders, or a copy of the 100 classes
    RAW/ILSVRC/Data/CLS-LOC/{train/WNID,val}/*.JPEG with RAW/LOC_val_solution.csv       ImageNet-1K as Kaggle has it
    RAW/[data/]train-*.parquet, validation-*.parquet    a copy of the 100 classes, columns image and label

A copy in class folders of other names is taken as it is if it has 100 of them. `RAW/classes.txt`, one folder name a
line, takes the place of our list.
"""

import json
import pathlib
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from jepa_jax.data import sources
from jepa_jax.preparation import annotations
from jepa_jax.preparation.raw import Item, PrepareError, RawSet

OFFICIAL = {"train": (126_689,), "test": (5_000,)}
CLASS_LIST = pathlib.Path(__file__).with_name("imagenet100.txt")
OWN_CLASS_LIST = "classes.txt"
NAMES = {"train": ("train",), "test": ("val", "validation", "test")}


def open_raw(root: pathlib.Path) -> RawSet:
    """The raw set below `root`.

    Raises:
        PrepareError: neither parquet files nor folders; classes missing.
    """
    if not root.is_dir():
        raise PrepareError(f"--source: there is no folder {root}.")
    for folder in (root / "data", root):
        if list(folder.glob("*.parquet")):
            classes, parts = _from_parquet(folder)
            break
    else:
        classes, parts = _from_folders(root)
    return RawSet(
        name="imagenet100",
        kind="images",
        classes=tuple(classes),
        parts=parts,
        splits={"train": [["train"]], "test": [["test"]]},
        official=OFFICIAL,
    )


def _from_folders(root: pathlib.Path) -> tuple[Sequence[str], dict[str, list[Item]]]:
    below = annotations.find(root, "ILSVRC/Data/CLS-LOC", ".")
    folders = {split: annotations.find(below, *names) for split, names in NAMES.items()}
    classes = _classes(root, folders["train"])
    numbers = annotations.number_of(classes)
    parts = {split: _in_class_folders(folder, split, numbers) for split, folder in folders.items()}
    if not parts["test"]:
        parts["test"] = _in_one_folder(folders["test"], annotations.find(root, "LOC_val_solution.csv"), numbers)
    return classes, parts


def _classes(root: pathlib.Path, train: pathlib.Path) -> list[str]:
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
        f"{len(there)} folders. For other classes list their folders in {own}, one a line."
    )


def _in_class_folders(folder: pathlib.Path, split: str, numbers: Mapping[str, int]) -> list[Item]:
    items = []
    for name, label in numbers.items():
        files = sources.scan_folder(folder / name, "images")
        items += [Item(f"{split}/{name}/{path}", label, str(folder / name / path)) for path, _ in files]
    return items


def _in_one_folder(folder: pathlib.Path, solution: pathlib.Path, numbers: Mapping[str, int]) -> list[Item]:
    """Validation images as Kaggle has them: `ILSVRC2012_val_00048981,n03995372 85 1 499 272` names class and box."""
    items = []
    for number, line in annotations.read_lines(solution)[1:]:
        id, _, boxes = line.partition(",")
        if not boxes:
            raise PrepareError(f"{solution}:{number}: {line!r}; expected an image, a comma and its class.")
        name = boxes.split()[0]
        if name in numbers:
            items.append(Item(f"test/{name}/{id}.JPEG", numbers[name], str(folder / f"{id}.JPEG")))
    return items


def _from_parquet(folder: pathlib.Path) -> tuple[Sequence[str], dict[str, list[Item]]]:
    classes: Sequence[str] = ()
    parts = {}
    for split, names in NAMES.items():
        files = sorted({file for name in names for file in folder.glob(f"{name}*.parquet")})
        if not files:
            raise PrepareError(f"{folder} lacks {names[0]}-*.parquet.")
        parts[split] = []
        for file in files:
            try:
                classes = classes or _named_classes(file)
                labels = pq.read_table(file, columns=["label"]).column("label").to_pylist()
            except (OSError, KeyError, pa.ArrowException) as error:
                raise PrepareError(f"{file} is no parquet file with the columns image and label: {error}.") from error
            for row, label in enumerate(labels):
                if not 0 <= label < len(classes):
                    raise PrepareError(f"{file}, row {row}: label {label} is not among 0 to {len(classes) - 1}.")
                parts[split].append(Item(f"{file.stem}/{row}", label, str(file), row))
    return classes, parts


def _named_classes(file: pathlib.Path) -> list[str]:
    """The names in the file's own description (Hugging Face's), in the order of the labels.

    Raises:
        KeyError: there are none.
    """
    metadata = pq.read_schema(file).metadata or {}
    described = json.loads(metadata.get(b"huggingface", b"{}"))
    return described["info"]["features"]["label"]["names"]
