"""Files and splits of a folder, which are the same for preparation, training and evaluation."""

import shutil

import pytest

from jepa_jax import config, data
from jepa_jax.data import sources
from jepa_jax.data.listing import file_types, layout
from jepa_jax.data.preparation import build, frames, sets
from jepa_jax.data.preparation.raw import PrepareError
from jepa_jax.settings import ConfigError


@pytest.fixture
def tree(tmp_path):
    """tree("a/1.mp4 b/2.mp4") returns a folder with these files, all empty."""

    def make(names):
        for name in names.split():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        return tmp_path

    return make


def prepared_splits(root):
    raw = sets.OPEN["folder"](root)
    assert all(list(map(list, folds)) == [[split]] for split, folds in raw.splits.items())
    return {split: [item.id for item in items] for split, items in raw.parts.items()}


def source(root, kind="videos", **settings):
    return sources.open_source(config.SourceConfig(path=str(root), kind=kind, **settings), "mine")


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train", "valid"),
        ("Train", "Test"),
        ("TRAINING", "Testing"),
        ("training_set", "test_set"),
        ("trainset", "Validation Set"),
        ("train-split", "dev"),
        ("train", "eval"),
        ("train data", "Val"),
    ],
)
def test_common_split_names_are_recognised(tmp_path, train, test):
    for folder, name in ((train, "a/1.mp4"), (train, "b/2.mp4"), (test, "b/3.mp4")):
        (tmp_path / folder / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / name).touch()
    wanted = {"train": [f"{train}/a/1.mp4", f"{train}/b/2.mp4"], "test": [f"{test}/b/3.mp4"]}
    assert prepared_splits(tmp_path) == wanted
    assert sets.OPEN["folder"](tmp_path).classes == ("a", "b")
    for split, paths in wanted.items():
        opened = source(tmp_path, split=split)
        assert list(opened.paths) == [f"{tmp_path}/{path}" for path in paths]
        assert opened.classes == tuple(sorted({path.split("/")[1] for path in paths}))


def test_third_split_is_kept_and_can_be_selected(tree):
    root = tree("train/a/1.mp4 val/a/2.mp4 test/a/3.mp4")
    assert prepared_splits(root) == {
        "train": ["train/a/1.mp4"],
        "validation": ["val/a/2.mp4"],
        "test": ["test/a/3.mp4"],
    }
    (path,) = source(root, split="validation").paths
    assert path == f"{root}/val/a/2.mp4"


def test_prepared_set_has_a_validation_split(pictures, tmp_path):
    for split in ("train", "val", "test"):
        shutil.copytree(pictures, tmp_path / "raw" / split)
    (tmp_path / "raw" / "val" / "x" / "0.png").unlink()
    summary = build.prepare(sets.OPEN["folder"](tmp_path / "raw"), tmp_path / "out", frames.JpegSettings(), 0)
    assert "  validation: 5\n" in summary
    settings = config.SourceConfig(kind="images", path=str(tmp_path / "out"), split="validation")
    assert sources.open_source(settings, "mine").size == 5
    (batch,) = data.EvaluationSet(settings, clip=config.ClipConfig(frames=2, size=8)).batches(5)
    assert batch["labels"]["class"].tolist() == [0, 0, 1, 1, 1]


def test_validation_split_of_sprites_raises():
    with pytest.raises(ValueError, match="split is 'validation', which sprites do not have"):
        config.SourceConfig(kind="sprites", split="validation")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("train/1.mp4 bus/2.mp4", r"train/ has the name of a split, beside bus/, which would be classes"),
        ("train/a/1.mp4 test/a/2.mp4 extra/3.mp4", r"test/, train/ has the name of a split, beside extra/"),
        ("Train/a/1.mp4 train/a/2.mp4", r"Train/, train/ are all called the split 'train'"),
        ("train/a/1.mp4 val/a/2.mp4 dev/a/3.mp4 test/a/4.mp4", r"dev/, val/ are all called the split 'validation'"),
        ("clips/train/a/1.mp4 clips/test/a/2.mp4", r"further down: clips/test/, clips/train/\. .* such as clips\."),
        ("x/train/1.mp4 x/test/2.mp4 y/train/1.mp4 y/test/3.mp4", r"x/test/, x/train/ \(1 other folders too\)"),
    ],
)
def test_ambiguous_folders_raise(tree, names, message):
    root = tree(names)
    with pytest.raises(PrepareError, match=message):
        sets.OPEN["folder"](root)
    with pytest.raises(ConfigError, match=message):
        source(root)


def test_patterns_resolve_ambiguous_folders(tree):
    root = tree("train/a/1.mp4 test/a/2.mp4 extra/3.mp4")
    assert source(root, exclude="^extra/").size == 1
    assert source(root, include="^extra/").classes == ("extra",)


def test_nested_folders_with_split_names_are_classes(tree):
    """Subfolders of a class and classes of a split may have any name."""
    root = tree("walk/dev/1.mp4 walk/2.mp4 run/3.mp4")
    assert source(root).classes == ("run", "walk")
    root = tree("out/train/train/1.mp4 out/train/test/2.mp4 out/test/test/3.mp4") / "out"
    assert source(root).classes == ("test", "train")


def test_missing_split_raises(tree):
    root = tree("train/a/1.mp4 val/a/2.mp4")
    with pytest.raises(ConfigError, match=r"split is 'validation'; .* 'train' \(train/\), 'test' \(val/\)"):
        source(root, split="validation")


def test_folder_without_splits_is_used_as_a_whole(tree):
    root = tree("a/1.mp4 b/2.mp4")
    assert source(root, split="test").size == 2


def test_skipped_files_are_counted(tree, caplog):
    root = tree("train/a/1.mp4 train/a/notes.txt train/a/list.TXT train/a/none test/b/2.webm test/b/3.heic 4.mp4")
    tree(".hidden.mp4 .git/5.mp4")
    wanted = (
        "5 files are left out: 2 .txt in train/a/; 1 without an ending in train/a/; "
        "1 .heic (convert them to JPEG: Pillow cannot read them) in test/b/; 1 .mp4 in ./."
    )
    notes = sets.OPEN["folder"](root).notes
    assert notes[:2] == ("The split train is the folder train/.", "The split test is the folder test/.")
    assert notes[2] == wanted
    source(root)
    assert wanted in caplog.text


def test_long_lists_of_skipped_files_are_shortened():
    text = layout.left_over(f"{folder}/x.{'abcdefg'[number]}" for number in range(7) for folder in range(7 - number))
    assert text.startswith("28 files are left out: 7 .a in 0/, 1/, 2/, 3/, 4/ and 2 more; ")
    assert text.endswith("; 3 with 2 other endings.")
    assert layout.left_over([]) == ""


@pytest.mark.parametrize(
    ("names", "kind", "read"),
    [
        ("a/1.gif b/2.GIF", "videos", 2),
        ("a/1.gif b/2.mp4", "videos", 2),
        ("a/1.gif b/2.png", "images", 2),
        ("a/1.mxf b/2.y4m c/3.m2v", "videos", 3),
        ("a/1.avif b/2.jp2 c/3.tga", "images", 3),
    ],
)
def test_kind_of_a_folder_is_detected(tree, names, kind, read):
    raw = sets.OPEN["folder"](tree(names))
    assert raw.kind == kind
    assert len(raw.parts["train"]) == read


def test_given_kind_is_not_overridden(tree):
    root = tree("a/1.gif b/2.png")
    assert source(root, "images").size == 2
    assert source(root, "videos").size == 1


def test_folder_without_readable_files_raises_and_lists_the_others(tree):
    root = tree("a/1.heic a/2.ts")
    with pytest.raises(PrepareError, match=r"no videos or images.*2 files are left out: 1 \.heic .*1 \.ts"):
        sets.OPEN["folder"](root)


TEXTS = {
    "code.ts": "export const a: number = 1;\n" * 60,
    "Game.ts": "G" * 2,
    "module.mts": "import { G } from './G';\n" * 300,
    "words.ts": '<?xml version="1.0"?><TS version="2.1"></TS>',
    "lists.tp": "GET /\n" * 400,
    "empty.m2t": "",
}


@pytest.mark.parametrize("name", TEXTS)
def test_text_files_are_not_videos(tmp_path, name):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / name).write_text(TEXTS[name])
    (tmp_path / "a" / "1.mp4").touch()
    raw = sets.OPEN["folder"](tmp_path)
    assert [item.id for item in raw.parts["train"]] == ["a/1.mp4"]
    assert "not an MPEG transport stream" in raw.notes[0]
    assert source(tmp_path).size == 1


def packets(size, lead=0):
    """Returns transport packets of 188 bytes, or with the extra bytes of broadcasts (204) or camcorders (192)."""
    before, after = (4, 0) if size == 192 else (0, size - 188)
    return b"\x01" * lead + (bytes(before) + b"\x47" + bytes(187) + bytes(after)) * 12


@pytest.mark.parametrize("content", [packets(188), packets(192), packets(204), packets(188, lead=100)])
def test_transport_streams_are_videos(tmp_path, content):
    (tmp_path / "1.ts").write_bytes(content)
    assert file_types.is_of_kind(tmp_path, "1.ts", "videos")
    (tmp_path / "1.ts").write_bytes(content.replace(b"\x47", b"G ", 1)[:2000].replace(b"\x47", b" "))
    assert not file_types.is_of_kind(tmp_path, "1.ts", "videos")


def test_evaluation_reads_the_splits_of_a_folder(pictures, tmp_path):
    for split in ("Train", "Valid", "Test"):
        shutil.copytree(pictures, tmp_path / split)
    (tmp_path / "Test" / "x" / "0.png").unlink()
    clip = config.ClipConfig(frames=2, size=8)
    train, test = (
        data.EvaluationSet(config.SourceConfig(kind="images", path=str(tmp_path), split=split), clip=clip)
        for split in ("train", "test")
    )
    assert (train.size, test.size) == (6, 5)
    assert train.classes == test.classes == {"class": ("x", "y")}
    assert test.names[0] == "Test/x/2.png"
    assert train.shared_with(test) == []
