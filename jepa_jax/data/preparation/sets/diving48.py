"""Diving-48 with its cleaned labels V2: 16,997 videos of 48 dives (Li, Li and Vasconcelos, ECCV 2018).

    RAW/rgb/VID_NAME.mp4
    RAW/Diving48_V2_train.json, RAW/Diving48_V2_test.json    [{"vid_name": …, "label": 0 … 47, …}, …]
    RAW/Diving48_vocab.json                                  the 48 classes in order, each a list of four words

Each video is trimmed to one dive and used in full.
"""

from jepa_jax.data.preparation import annotations
from jepa_jax.data.preparation.raw import Item, PrepareError, RawSet
from jepa_jax.files.remote.any_path import AnyPath

OFFICIAL = {"train": (15_027,), "test": (1_970,)}


def open_raw(root: AnyPath) -> RawSet:
    """Opens the raw set below `root`.

    Raises:
        PrepareError: an annotation file is missing or invalid.
    """
    vocabulary = annotations.read_json(_find(root, "Diving48_vocab.json"), list)
    classes = tuple(" ".join(words) if isinstance(words, list) else str(words) for words in vocabulary)
    videos = annotations.find(root, "rgb", "videos")
    parts = {part: _read(_find(root, f"Diving48_V2_{part}.json"), videos, len(classes)) for part in ("train", "test")}
    return RawSet(
        name="diving48",
        kind="videos",
        classes=classes,
        parts=parts,
        splits={"train": [["train"]], "test": [["test"]]},
        official=OFFICIAL,
        notes=annotations.unlisted(videos, (item for items in parts.values() for item in items)),
    )


def _find(root: AnyPath, name: str) -> AnyPath:
    return annotations.find(root, name, f"annotations/{name}")


def _read(file: AnyPath, videos: AnyPath, classes: int) -> list[Item]:
    items = []
    for number, entry in enumerate(annotations.read_json(file, list)):
        where = f"{file}, entry {number}"
        id, label = str(annotations.field(entry, "vid_name", where)), annotations.field(entry, "label", where)
        if type(label) is not int or not 0 <= label < classes:
            raise PrepareError(
                f"{where} ({id}): label {label!r} is not among 0 to {classes - 1} of Diving48_vocab.json."
            )
        items.append(Item(id, label, str(videos / f"{id}.mp4")))
    return items
