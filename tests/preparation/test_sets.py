"""Official dataset layouts: items, labels, splits, and errors for invalid layouts."""

import json
import pathlib
import shutil

import pytest
from PIL import Image

from jepa_jax.data.preparation import build, frames, plan, sets
from jepa_jax.data.preparation.frames import JpegSettings
from jepa_jax.data.preparation.raw import PrepareError
from jepa_jax.data.preparation.sets import imagenet100


def listed(raw, split, fold=1):
    return {item.id: item.label for part in raw.splits[split][fold - 1] for item in raw.parts[part]}


def test_ucf101_classes_and_splits(raw_ucf101):
    raw = sets.OPEN["ucf101"](raw_ucf101)
    assert raw.classes == ("ApplyEyeMakeup", "ApplyLipstick", "Archery")
    for fold in (1, 2, 3):
        test = listed(raw, "test", fold)
        assert test == {f"{name}/v_{name}_g{fold:02d}_c01.avi": label for label, name in enumerate(raw.classes)}
        train = listed(raw, "train", fold)
        assert len(train) == 9
        assert not train.keys() & test.keys()
    assert len({item.id for items in raw.parts.values() for item in items}) == 12
    assert sum(map(len, raw.parts.values())) == 12  # each video is listed once although it is in three splits
    assert all(pathlib.Path(item.path).is_file() for items in raw.parts.values() for item in items)


def test_something_something_v2_classes_and_splits(raw_something_something_v2):
    raw = sets.OPEN["something_something_v2"](raw_something_something_v2)
    assert raw.classes == ("Dropping something onto something", "Pushing something", "Folding something")
    assert listed(raw, "train") == {"10": 0, "11": 2, "12": 1, "13": 0, "14": 2}
    assert listed(raw, "test") == {"20": 2, "21": 1}
    assert "27,157" in raw.notes[0]


def test_something_something_v2_with_its_original_file_names(raw_something_something_v2):
    for file in (raw_something_something_v2 / "labels").iterdir():
        file.rename(raw_something_something_v2 / f"something-something-v2-{file.name}")
    assert len(sets.OPEN["something_something_v2"](raw_something_something_v2).parts["train"]) == 5


def test_diving48_classes_and_splits(raw_diving48):
    raw = sets.OPEN["diving48"](raw_diving48)
    assert raw.classes[0] == "Back 15som 05Twis FREE"
    assert listed(raw, "train") == {"a_0": 0, "a_1": 1, "b_0": 2, "b_1": 0}
    assert listed(raw, "test") == {"c_0": 0, "c_1": 1}


def test_imagenet_folders_with_a_class_list(raw_imagenet):
    raw = sets.OPEN["imagenet100"](raw_imagenet)
    assert raw.classes == ("n01491361", "n01443537")
    assert listed(raw, "train") == {
        f"train/{name}/{name}_{number}.JPEG": label for label, name in enumerate(raw.classes) for number in range(3)
    }
    assert listed(raw, "test") == {f"test/{name}/{name}_0.JPEG": label for label, name in enumerate(raw.classes)}


def test_imagenet_in_the_kaggle_layout(raw_imagenet):
    below = raw_imagenet / "ILSVRC" / "Data" / "CLS-LOC"
    (below / "val").mkdir(parents=True)
    shutil.move(raw_imagenet / "train", below / "train")
    lines = ["ImageId,PredictionString"]
    for number, folder in enumerate(sorted((raw_imagenet / "val").iterdir())):
        shutil.move(next(folder.iterdir()), below / "val" / f"ILSVRC2012_val_{number:08d}.JPEG")
        lines.append(f"ILSVRC2012_val_{number:08d},{folder.name} 1 2 3 4 {folder.name} 5 6 7 8 ")
    shutil.rmtree(raw_imagenet / "val")
    (raw_imagenet / "LOC_val_solution.csv").write_text("\n".join(lines) + "\n")
    raw = sets.OPEN["imagenet100"](raw_imagenet)
    assert listed(raw, "test") == {
        "test/n01443537/ILSVRC2012_val_00000001.JPEG": 1,
        "test/n01491361/ILSVRC2012_val_00000003.JPEG": 0,
    }
    assert all(pathlib.Path(item.path).is_file() for item in raw.parts["test"])


def test_imagenet_in_parquet_files(raw_parquet):
    raw = sets.OPEN["imagenet100"](raw_parquet)
    assert raw.classes == ("bonnet", "green mamba")
    assert [item.label for item in raw.parts["train"]] == [0, 1, 1, 1, 0]
    assert [item.row for item in raw.parts["train"]] == [0, 1, 2, 0, 1]
    assert [item.label for item in raw.parts["test"]] == [1, 0]


def test_bundled_class_list_has_100_valid_ids():
    names = imagenet100.CLASS_LIST.read_text().split()
    assert len(names) == len(set(names)) == 100
    assert all(name[0] == "n" and name[1:].isdigit() and len(name) == 9 for name in names)


def test_folder_with_class_subfolders(tmp_path):
    for name in ("kick/2.avi", "hug/1.avi", "hug/deep/3.webm", "loose.mp4", "notes.txt", ".cache/4.avi"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    raw = sets.OPEN["folder"](tmp_path)
    assert (raw.kind, raw.classes) == ("videos", ("hug", "kick"))
    assert listed(raw, "train") == {"hug/1.avi": 0, "hug/deep/3.webm": 0, "kick/2.avi": 1, "loose.mp4": -1}
    assert list(raw.splits) == ["train"]
    (tmp_path / "hug" / "picture.jpg").touch()
    with pytest.raises(PrepareError, match="move them to separate folders"):
        sets.OPEN["folder"](tmp_path)


def test_folder_with_train_and_test_splits(tmp_path):
    for name in ("train/a/1.jpg", "train/b/2.png", "val/b/1.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    raw = sets.OPEN["folder"](tmp_path)
    assert (raw.kind, raw.classes) == ("images", ("a", "b"))
    assert listed(raw, "train") == {"train/a/1.jpg": 0, "train/b/2.png": 1}
    assert listed(raw, "test") == {"val/b/1.jpg": 1}


@pytest.mark.parametrize(
    ("name", "lost"),
    [
        ("ucf101", "ucfTrainTestlist/classInd.txt"),
        ("ucf101", "ucfTrainTestlist/trainlist02.txt"),
        ("ucf101", "UCF-101"),
        ("something_something_v2", "labels/labels.json"),
        ("something_something_v2", "labels/validation.json"),
        ("diving48", "Diving48_vocab.json"),
        ("diving48", "Diving48_V2_test.json"),
    ],
)
def test_missing_list_raises_with_its_name(request, name, lost):
    root = request.getfixturevalue(f"raw_{name}")
    (root / lost).rename(root / "aside")
    with pytest.raises(PrepareError, match=f"lacks {lost.split('/')[-1]}|lacks {lost}"):
        sets.OPEN[name](root)


@pytest.mark.parametrize("name", sets.OPEN)
def test_missing_folder_raises_with_its_name(name, tmp_path):
    with pytest.raises(PrepareError, match=r"nowhere is not a folder"):
        sets.OPEN[name](tmp_path / "nowhere")


def edit(file, change):
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def test_unknown_class_raises(raw_something_something_v2, raw_diving48, raw_ucf101):
    train = raw_something_something_v2 / "labels" / "train.json"
    edit(train, lambda entries: entries[3].update(template="Foldin [something]"))
    with pytest.raises(PrepareError) as caught:
        sets.OPEN["something_something_v2"](raw_something_something_v2)
    for part in (f"{train}, entry 3 (id 13)", "'Foldin something'", "3 of labels.json", "'Folding something'"):
        assert part in str(caught.value)

    test = raw_diving48 / "Diving48_V2_test.json"
    edit(test, lambda entries: entries[1].update(label=48))
    with pytest.raises(PrepareError, match=r"Diving48_V2_test.json, entry 1 \(c_1\): label 48 is not among 0 to 2"):
        sets.OPEN["diving48"](raw_diving48)

    lists = raw_ucf101 / "ucfTrainTestlist"
    (lists / "testlist03.txt").write_text("ApplyEyeMakeup/x.avi\n\nAplyLipstick/y.avi\n")
    with pytest.raises(PrepareError, match=r"testlist03.txt:3: class 'AplyLipstick' .* Did you mean 'ApplyLipstick'"):
        sets.OPEN["ucf101"](raw_ucf101)


def test_contradictory_ucf101_lists_raise(raw_ucf101):
    lists = raw_ucf101 / "ucfTrainTestlist"
    train = (lists / "trainlist01.txt").read_text()
    (lists / "trainlist01.txt").write_text(train.replace("_g02_c01.avi 1", "_g02_c01.avi 2"))
    with pytest.raises(PrepareError, match=r"trainlist01.txt:1: .* gives class 2; classInd.txt says 1"):
        sets.OPEN["ucf101"](raw_ucf101)
    (lists / "trainlist01.txt").write_text(train + train.splitlines()[0])
    with pytest.raises(PrepareError, match=r"trainlist01.txt:10: the id 'ApplyEyeMakeup/.*' is listed twice"):
        sets.OPEN["ucf101"](raw_ucf101)
    (lists / "trainlist01.txt").write_text("\n".join(train.splitlines()[1:]))
    with pytest.raises(PrepareError, match=r"g02_c01.avi is in the training lists \[3\] and in the test lists \[2\]"):
        sets.OPEN["ucf101"](raw_ucf101)


def test_malformed_list_raises(raw_diving48):
    (raw_diving48 / "Diving48_V2_train.json").write_text('{"a": 1}')
    with pytest.raises(PrepareError, match=r"Diving48_V2_train.json holds a dict; expected a list"):
        sets.OPEN["diving48"](raw_diving48)
    (raw_diving48 / "Diving48_V2_train.json").write_text("[")
    with pytest.raises(PrepareError, match=r"Diving48_V2_train.json is not JSON"):
        sets.OPEN["diving48"](raw_diving48)
    (raw_diving48 / "Diving48_V2_train.json").write_text('[{"label": 1}]')
    with pytest.raises(PrepareError, match=r"entry 0: .* has no 'vid_name'"):
        sets.OPEN["diving48"](raw_diving48)


def test_id_in_two_splits_raises(raw_diving48, tmp_path):
    edit(raw_diving48 / "Diving48_V2_test.json", lambda entries: entries[0].update(vid_name="b_0"))
    raw = sets.OPEN["diving48"](raw_diving48)
    with pytest.raises(PrepareError, match=r"id 'b_0' is listed twice: in train \(label 2, .*in test \(label 0"):
        plan.make(raw, tmp_path / "out", JpegSettings())


def test_imagenet_without_the_expected_classes_raises(raw_imagenet):
    (raw_imagenet / "classes.txt").unlink()
    with pytest.raises(PrepareError, match=r"lacks 100 of the 100 classes .* has 4 folders"):
        sets.OPEN["imagenet100"](raw_imagenet)


def test_imagenet_copy_with_100_other_class_names(tmp_path):
    for split in ("train", "val"):
        for k in range(100):
            (tmp_path / split / f"c{k:03d}").mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(tmp_path / split / f"c{k:03d}" / "0.jpg")
    raw = sets.OPEN["imagenet100"](tmp_path)
    assert raw.classes[:2] == ("c000", "c001")
    assert [item.label for item in raw.parts["test"]] == list(range(100))


def test_lists_may_have_a_byte_order_mark(raw_ucf101, raw_diving48):
    for root, pattern in ((raw_ucf101, "ucfTrainTestlist/*.txt"), (raw_diving48, "*.json")):
        for file in root.glob(pattern):
            file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert sets.OPEN["ucf101"](raw_ucf101).classes == ("ApplyEyeMakeup", "ApplyLipstick", "Archery")
    assert len(sets.OPEN["diving48"](raw_diving48).parts["train"]) == 4
    classes = raw_ucf101 / "ucfTrainTestlist" / "classInd.txt"
    classes.write_text("1 ApplyEyeMakeup\n", encoding="utf-16")
    with pytest.raises(PrepareError, match=r"classInd.txt cannot be read: it is UTF-16; save it as UTF-8"):
        sets.OPEN["ucf101"](raw_ucf101)


def test_class_folders_may_have_any_name(raw_imagenet):
    odd = ("n\u2028\x85", "n caf\udce9")
    for split in ("train", "val"):
        for name, other in zip(("n01491361", "n01443537"), odd, strict=True):
            (raw_imagenet / split / name).rename(raw_imagenet / split / other)
    (raw_imagenet / "classes.txt").write_bytes("\r\n".join(odd).encode("utf-8", "surrogateescape"))
    (raw_imagenet / "train" / odd[0] / "self").symlink_to(".")
    raw = sets.OPEN["imagenet100"](raw_imagenet)
    assert raw.classes == odd
    assert {split: len(items) for split, items in raw.parts.items()} == {"train": 6, "test": 2}


def test_parquet_files_may_be_in_a_folder_of_any_name(raw_parquet, tmp_path):
    moved = raw_parquet.rename(tmp_path / "s3:x \udcff")
    raw = sets.OPEN["imagenet100"](moved)
    assert sum(map(len, raw.parts.values())) > 0
    for items in raw.parts.values():
        assert all(frames.of_item(item, "images", JpegSettings()).frames for item in items)


@pytest.mark.parametrize("label", [True, 4294967296, -1, "1", 1.0, None])
def test_invalid_label_raises(raw_diving48, label):
    edit(raw_diving48 / "Diving48_V2_test.json", lambda entries: entries[0].update(label=label))
    with pytest.raises(PrepareError, match=r"entry 0 \(c_0\): label .* is not among 0 to 2"):
        sets.OPEN["diving48"](raw_diving48)


@pytest.mark.parametrize("number", ["4294967296", "Infinity", "[]", "-1"])
def test_invalid_template_number_raises(raw_something_something_v2, number):
    labels = raw_something_something_v2 / "labels" / "labels.json"
    labels.write_text(labels.read_text().replace('"2"', number))
    with pytest.raises(PrepareError, match=r"labels.json: "):
        sets.OPEN["something_something_v2"](raw_something_something_v2)


def test_duplicate_class_raises(raw_diving48, tmp_path):
    edit(raw_diving48 / "Diving48_vocab.json", lambda classes: classes.__setitem__(1, classes[0]))
    raw = sets.OPEN["diving48"](raw_diving48)
    with pytest.raises(PrepareError, match=r"the class 'Back 15som 05Twis FREE' is listed twice"):
        plan.make(raw, tmp_path / "out", JpegSettings())


def test_unlisted_videos_are_counted(raw_ucf101, raw_diving48, raw_something_something_v2):
    (raw_ucf101 / "UCF-101" / "Archery" / "v_new.avi").touch()
    (raw_ucf101 / "UCF-101" / "Archery" / "notes.txt").touch()
    assert sets.OPEN["ucf101"](raw_ucf101).notes == (
        "In UCF-101/, outside the lists: 2 files are left out: 1 .avi in Archery/; 1 .txt in Archery/.",
    )
    (raw_diving48 / "rgb" / "new.mp4").touch()
    assert "1 file is left out: 1 .mp4 in ./." in sets.OPEN["diving48"](raw_diving48).notes[0]
    assert "1 .webm in ./." in sets.OPEN["something_something_v2"](raw_something_something_v2).notes[1]


def test_skipped_imagenet_class_folders_and_splits_are_counted(raw_imagenet):
    (raw_imagenet / "test").mkdir()
    shutil.rmtree(raw_imagenet / "val" / "n01491361")
    (raw_imagenet / "val").rename(raw_imagenet / "Validation")
    (raw_imagenet / "train").rename(raw_imagenet / "Train")
    raw = sets.OPEN["imagenet100"](raw_imagenet)
    assert listed(raw, "test") == {"test/n01443537/n01443537_0.JPEG": 1}
    assert raw.notes == (
        "2 class folders in Train/ are not among the classes and are left out.",
        "2 class folders in Validation/ are not among the classes and are left out.",
        "Left out: test/, which is not the validation set.",
        "1 of the 2 classes have no images in the split test.",
    )
    shutil.copytree(raw_imagenet / "Validation", raw_imagenet / "val")
    with pytest.raises(PrepareError, match=r"has Validation, val for the same split"):
        sets.OPEN["imagenet100"](raw_imagenet)


def test_imagenet_parquet_test_files_are_not_used_for_validation(raw_parquet):
    data = raw_parquet / "data"
    shutil.copy(data / "validation-00000-of-00001.parquet", data / "test-00000-of-00001.parquet")
    raw = sets.OPEN["imagenet100"](raw_parquet)
    assert [item.id.split("/")[0] for item in raw.parts["test"]] == ["validation-00000-of-00001"] * 2
    assert raw.notes == ("Parquet files left out: test-00000-of-00001.parquet.",)
    for name in ("test", "train"):
        for file in list(data.glob(f"{name}*")):
            file.unlink()
    with pytest.raises(PrepareError, match=r"lacks train-\*\.parquet"):
        sets.OPEN["imagenet100"](raw_parquet)


def test_skipped_files_are_in_the_summary_and_the_description(tmp_path):
    for name in ("raw/train/a/1.png", "raw/valid/b/2.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    (tmp_path / "raw" / "train" / "b.heic").touch()

    def prepare():
        return build.prepare(sets.OPEN["folder"](tmp_path / "raw"), tmp_path / "out", JpegSettings(), 0)

    wanted = "1 file is left out: 1 .heic (convert them to JPEG: Pillow cannot read them) in train/."
    assert wanted in prepare()
    (tmp_path / "raw" / "README").touch()  # also detected when preparing again
    assert "1 without an ending in ./" in prepare()
    description = json.loads((tmp_path / "out" / "prepared.json").read_text())
    assert description["splits"] == {"train": [["train"]], "test": [["test"]]}
    assert any("without an ending" in note for note in description["notes"])
