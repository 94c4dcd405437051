"""UCF-101: 13,320 videos of 101 actions, three official splits (Soomro et al., arXiv:1212.0402).

    RAW/UCF-101/CLASS/v_CLASS_g01_c01.avi
    RAW/ucfTrainTestlist/classInd.txt                    `1 ApplyEyeMakeup`
    RAW/ucfTrainTestlist/trainlist01.txt, … 03           `CLASS/v_CLASS_g08_c01.avi 1`
    RAW/ucfTrainTestlist/testlist01.txt, … 03            `CLASS/v_CLASS_g01_c01.avi`

Each video is stored once, in one part: the part `test1`, `test2` or `test3` if it is a test
clip of that split, else `always_train`; the training clips of split 1 are always_train + test2 + test3.
"""

import re
from collections.abc import Mapping

from jepa_jax.data.preparation import annotations
from jepa_jax.data.preparation.raw import Item, PrepareError, RawSet
from jepa_jax.files.remote.any_path import AnyPath

OFFICIAL = {"train": (9537, 9586, 9624), "test": (3783, 3734, 3696)}
FOLDS = (1, 2, 3)


def open_raw(root: AnyPath) -> RawSet:
    """Opens the raw set below `root`.

    Raises:
        PrepareError: an annotation file is missing or invalid.
    """
    lists = annotations.find(root, "ucfTrainTestlist", "UCF101TrainTestSplits-RecognitionTask/ucfTrainTestlist")
    videos = annotations.find(root, "UCF-101", "UCF101", "videos")
    classes = _classes(annotations.find(lists, "classInd.txt"))
    numbers = annotations.label_of_class(classes)
    train, test = (
        [_read(annotations.find(lists, f"{kind}list{fold:02d}.txt"), numbers) for fold in FOLDS]
        for kind in ("train", "test")
    )
    parts: dict[str, list[Item]] = {"always_train": [], **{f"test{fold}": [] for fold in FOLDS}}
    for id in dict.fromkeys(id for listed in (*train, *test) for id in listed):
        tested = [fold for fold in FOLDS if id in test[fold - 1]]
        trained = [fold for fold in FOLDS if id in train[fold - 1]]
        if sorted(trained + tested) != list(FOLDS) or len(tested) > 1:
            raise PrepareError(
                f"{lists}: {id} is in the training lists {trained} and in the test lists {tested}; expected it in one "
                "of the two in each of the splits 1 to 3, and in one test list at most."
            )
        name = f"test{tested[0]}" if tested else "always_train"
        parts[name].append(Item(id, numbers[id.split("/")[0]], str(videos / id)))
    others = {fold: [f"test{other}" for other in FOLDS if other != fold] for fold in FOLDS}
    return RawSet(
        name="ucf101",
        kind="videos",
        classes=classes,
        parts=parts,
        splits={
            "train": [["always_train", *others[fold]] for fold in FOLDS],
            "test": [[f"test{fold}"] for fold in FOLDS],
        },
        official=OFFICIAL,
        notes=annotations.unlisted(videos, (item for items in parts.values() for item in items)),
    )


def _classes(file: AnyPath) -> tuple[str, ...]:
    names = []
    for number, line in annotations.read_lines(file):
        index, _, name = line.partition(" ")
        if index != str(len(names) + 1) or not name:
            raise PrepareError(f"{file}:{number}: {line!r}; expected '{len(names) + 1} CLASS'.")
        names.append(name)
    return tuple(names)


def _read(file: AnyPath, numbers: Mapping[str, int]) -> dict[str, None]:
    """Reads the ids in order; checks that the class folder of each clip agrees with the class number, if given."""
    listed = {}
    for number, line in annotations.read_lines(file):
        where = f"{file}:{number}"
        id, *given = re.split("[ \t]+", line)
        label = annotations.label(id.split("/")[0], numbers, where, "classInd.txt")
        if given and given != [str(label + 1)]:
            raise PrepareError(f"{where}: {line!r} gives class {given[0]}; classInd.txt says {label + 1}.")
        if id in listed:
            raise PrepareError(f"{where}: the id {id!r} is listed twice.")
        listed[id] = None
    return listed
