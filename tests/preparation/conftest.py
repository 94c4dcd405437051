"""Tiny raw datasets in each official layout."""

import json
import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

CLASSES = ("ApplyEyeMakeup", "ApplyLipstick", "Archery")
TEMPLATES = {"Pushing something": "1", "Dropping something onto something": "0", "Folding something": "2"}


def _write(file, content):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content))


@pytest.fixture
def raw_ucf101(tmp_path, write_video):
    """Three classes with four clips each, one per group; the clip of group k tests split k, and group 4 tests none."""
    root = tmp_path / "ucf"
    ids = {}
    for label, name in enumerate(CLASSES):
        for group in range(1, 5):
            id = ids[label, group] = f"{name}/v_{name}_g{group:02d}_c01.avi"
            write_video(root / "UCF-101" / id, frames=20 + group)
    lists = root / "ucfTrainTestlist"
    _write(lists / "classInd.txt", "".join(f"{i} {name}\r\n" for i, name in enumerate(CLASSES, start=1)))
    for fold in (1, 2, 3):
        train = [f"{id} {label + 1}\n" for (label, group), id in ids.items() if group != fold]
        _write(lists / f"trainlist{fold:02d}.txt", "".join(train))
        _write(lists / f"testlist{fold:02d}.txt", "".join(f"{ids[label, fold]}\n" for label in range(3)))
    return root


@pytest.fixture
def raw_something_something_v2(tmp_path, write_video):
    """Three templates; training videos 10 to 14, validation videos 20 and 21, and video 30 without a label."""
    root = tmp_path / "ssv2"
    for id in (*range(10, 15), 20, 21, 30):
        write_video(root / "20bn-something-something-v2" / f"{id}.webm", frames=8 + id % 10)
    templates = ["Pushing [something]", "Dropping [something] onto [something]", "Folding [something]"]

    def entries(ids):
        return [{"id": str(id), "label": "with words", "template": templates[id % 3], "placeholders": []} for id in ids]

    _write(root / "labels" / "labels.json", TEMPLATES)
    _write(root / "labels" / "train.json", entries(range(10, 15)))
    _write(root / "labels" / "validation.json", entries((20, 21)))
    _write(root / "labels" / "test.json", [{"id": "30"}])
    return root


@pytest.fixture
def raw_diving48(tmp_path, write_video):
    """Three dive classes; four training clips and two test clips."""
    root = tmp_path / "diving"
    _write(
        root / "Diving48_vocab.json",
        [
            ["Back", "15som", "05Twis", "FREE"],
            ["Back", "15som", "15Twis", "FREE"],
            ["Inward", "Dive", "NoTwis", "PIKE"],
        ],
    )
    for part, names in {"train": ("a_0", "a_1", "b_0", "b_1"), "test": ("c_0", "c_1")}.items():
        entries = [{"vid_name": n, "label": i % 3, "start_frame": 0, "end_frame": 24} for i, n in enumerate(names)]
        _write(root / f"Diving48_V2_{part}.json", entries)
        for name in names:
            write_video(root / "rgb" / f"{name}.mp4")
    return root


def picture(label, number, height=40, width=56):
    rng = np.random.default_rng((label, number))
    noise = rng.integers(-20, 20, (height, width, 3))
    return Image.fromarray(np.uint8(60 + 40 * label + noise))


@pytest.fixture
def raw_imagenet(tmp_path):
    """Four ImageNet classes in folders, two of them in classes.txt; three training images and one test image each."""
    root = tmp_path / "imagenet"
    for label, name in enumerate(("n01440764", "n01443537", "n01484850", "n01491361")):
        for split, count in {"train": 3, "val": 1}.items():
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                picture(label, number).save(root / split / name / f"{name}_{number}.JPEG", quality=95)
    _write(root / "classes.txt", "n01491361\nn01443537\n")
    return root


@pytest.fixture
def raw_parquet(tmp_path):
    """Two classes in Hugging Face parquet files with row groups of two."""
    folder = tmp_path / "parquet" / "data"
    folder.mkdir(parents=True)
    features = {"label": {"names": ["bonnet", "green mamba"], "_type": "ClassLabel"}}
    metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    for name, labels in {
        "train-00000-of-00002": (0, 1, 1),
        "train-00001-of-00002": (1, 0),
        "validation-00000-of-00001": (1, 0),
    }.items():
        rows = []
        for number, label in enumerate(labels):
            file = pathlib.Path(tmp_path / "picture.jpg")
            picture(label, number).save(file, quality=95)
            rows.append({"bytes": file.read_bytes(), "path": None})
        table = pa.table({"image": rows, "label": list(labels)}).replace_schema_metadata(metadata)
        pq.write_table(table, folder / f"{name}.parquet", row_group_size=2)
    return folder.parent
