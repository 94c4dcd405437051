"""Something-Something V2: 220,847 videos of 174 templates (Goyal et al., arXiv:1706.04261).

    RAW/20bn-something-something-v2/ID.webm
    RAW/labels/{labels,train,validation,test}.json, in RAW, or named something-something-v2-….json

labels.json maps templates without brackets to class numbers; the other lists have id and template. The test videos have
no labels and are left out. Results are reported on the validation set, so it is the split "test".
"""

from collections.abc import Mapping

from jepa_jax.data.preparation import annotations
from jepa_jax.data.preparation.raw import Item, PrepareError, RawSet
from jepa_jax.files.remote.any_path import AnyPath

OFFICIAL = {"train": (168_913,), "test": (24_777,)}
UNLABELLED = 27_157


def open_raw(root: AnyPath) -> RawSet:
    """Opens the raw set below `root`.

    Raises:
        PrepareError: an annotation file is missing or invalid.
    """
    files = {name: _find(root, name) for name in ("labels", "train", "validation")}
    classes = _classes(files["labels"])
    numbers = annotations.label_of_class(classes)
    videos = annotations.find(root, "20bn-something-something-v2", "videos")
    parts = {"train": _read(files["train"], videos, numbers), "test": _read(files["validation"], videos, numbers)}
    return RawSet(
        name="something_something_v2",
        kind="videos",
        classes=classes,
        parts=parts,
        splits={"train": [["train"]], "test": [["test"]]},
        official=OFFICIAL,
        notes=(
            f"The {UNLABELLED:,} videos of the official test set have no labels and are left out.",
            *annotations.unlisted(videos, (item for items in parts.values() for item in items)),
        ),
    )


def _find(root: AnyPath, name: str) -> AnyPath:
    names = (f"{name}.json", f"something-something-v2-{name}.json")
    return annotations.find(root, *(f"{folder}{name}" for name in names for folder in ("labels/", "", "annotations/")))


def _classes(file: AnyPath) -> tuple[str, ...]:
    listed = annotations.read_json(file, dict)
    try:
        by_number = {int(number): template for template, number in listed.items()}
    except (TypeError, ValueError, OverflowError) as error:
        raise PrepareError(f"{file}: expected template → number ({error}).") from error
    if sorted(by_number) != list(range(len(listed))):
        raise PrepareError(f"{file}: its {len(listed)} classes are not numbered 0 to {len(listed) - 1}.")
    return tuple(by_number[number] for number in range(len(listed)))


def _read(file: AnyPath, videos: AnyPath, numbers: Mapping[str, int]) -> list[Item]:
    items = []
    for number, entry in enumerate(annotations.read_json(file, list)):
        where = f"{file}, entry {number}"
        id, template = (str(annotations.field(entry, key, where)) for key in ("id", "template"))
        name = template.replace("[", "").replace("]", "")
        label = annotations.label(name, numbers, f"{where} (id {id})", "labels.json")
        items.append(Item(id, label, str(videos / f"{id}.webm")))
    return items
