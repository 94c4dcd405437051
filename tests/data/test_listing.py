"""Folders and CSV lists with unusual names, links and lines."""

import os
import pathlib
import time

import pytest

from jepa_jax import config
from jepa_jax.data import sources
from jepa_jax.data.listing import csv_list, walk
from jepa_jax.settings import ConfigError


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def videos(root):
    return sources.scan_folder(root, "videos")


@pytest.fixture
def tree(tmp_path):
    """Three videos in two classes."""
    root = tmp_path / "videos"
    touch(root / "a" / "0.mp4", root / "a" / "1.mp4", root / "b" / "deep" / "2.mp4")
    return root


THREE = [("a/0.mp4", "a"), ("a/1.mp4", "a"), ("b/deep/2.mp4", "b")]


@pytest.mark.parametrize(
    "links",
    [
        {"self": "."},
        {"a/self": "."},
        {"a/up": "..", "b/deep/top": "../.."},
        {"outside": ".."},
        {"0": "a", "a/z": "../b", "b/z": "../a"},
        {"loop": "pool", "pool": "loop"},
    ],
)
def test_links_inside_a_tree_do_not_list_files_twice(tree, links):
    for name, target in links.items():
        (tree / name).symlink_to(target)
    touch(tree.parent / "other" / "3.mp4")  # next to the folder, not in it
    found = [file for file in videos(tree) if file[0] not in ("loop", "pool")]
    assert found == THREE


def test_links_to_other_folders_are_followed_once(tree, tmp_path):
    pool = tmp_path / "pool"
    touch(pool / "walk" / "3.mp4", pool / "run" / "4.mp4")
    (pool / "walk" / "back").symlink_to(pool / "run")
    (pool / "run" / "back").symlink_to(pool / "walk")
    (tree / "walk").symlink_to(pool / "walk")
    (tree / "run").symlink_to(pool / "run")
    assert videos(tree) == [*THREE, ("run/4.mp4", "run"), ("walk/3.mp4", "walk")]
    (tmp_path / "link").symlink_to(tree)
    assert videos(tmp_path / "link") == videos(tree)


def test_linked_folder_is_listed_under_its_own_name(tree):
    (tree / "0").symlink_to("a")
    (tree / "a0").symlink_to("b/deep")
    assert videos(tree) == THREE


def test_order_does_not_depend_on_the_file_system(tree, monkeypatch):
    (tree / "c").symlink_to(tree.parent / "pool")
    (tree / "d").symlink_to(tree.parent / "pool")
    touch(tree.parent / "pool" / "3.mp4")
    wanted = videos(tree)
    assert wanted == [*THREE, ("c/3.mp4", "c")]
    scandir = os.scandir

    class Backwards:
        def __init__(self, path):
            self.entries = scandir(path)

        def __enter__(self):
            return reversed(list(self.entries))

        def __exit__(self, *_):
            self.entries.close()

    monkeypatch.setattr(os, "scandir", Backwards)
    assert videos(tree) == wanted


def test_unreadable_entries_are_listed_with_a_reason(tree, monkeypatch):
    (tree / "a" / "gone.mp4").symlink_to("nowhere")
    (tree / "a" / "round.mp4").symlink_to("round.mp4")
    (tree / "a" / "gone.txt").symlink_to("nowhere")
    (tree / "c").symlink_to("/no/such/class")
    touch(tree / "closed" / "5.mp4")
    os.mkfifo(tree / "a" / "pipe.mp4")
    scandir = os.scandir

    def refuse(path):
        if os.fspath(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = dict(videos(tree))
    broken = {"a/gone.mp4": "a", "a/pipe.mp4": "a", "a/round.mp4": "a", "c": "c", "closed": "closed"}
    assert found == dict(THREE) | broken
    reasons = {path: walk.fault(f"{tree}/{path}") for path in found}
    assert [path for path, reason in reasons.items() if reason is None] == [path for path, _ in THREE]
    assert reasons["a/gone.mp4"] == "a symbolic link to nowhere, which leads nowhere (No such file or directory)"
    assert "Too many levels of symbolic links" in str(reasons["a/round.mp4"])
    assert reasons["a/pipe.mp4"] == "not a regular file but a pipe, socket or device"
    assert reasons["closed"] == "a folder that cannot be listed (Permission denied)"
    assert walk.fault(f"{tree}/a") == "a folder, not a file"
    assert walk.fault(f"{tree}/x") == "listed, but the file is not there"
    for name in ("a\0b", "a\ud800b"):
        assert walk.fault(name) == "not a valid path"


def csv(folder, content, *files):
    touch(*(folder / file for file in files))
    file = folder / "list.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogateescape"))
    return file


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b"\xef\xbb\xbfv1.mp4 0\nv2.mp4 1\n", [("v1.mp4", "0"), ("v2.mp4", "1")]),
        ('v1.mp4 0\n"my clip.mp4" 1\n', [("v1.mp4", "0"), ("my clip.mp4", "1")]),
        ("my clip.mp4 1\r\nv1.mp4 0\r", [("my clip.mp4", "1"), ("v1.mp4", "0")]),
        ('"my clip.mp4"\t1\nmy clip.mp4\t1', [("my clip.mp4", "1")] * 2),
        ('"my clip.mp4",1\nmy clip.mp4,1\nv1.mp4, 7\n', [("my clip.mp4", "1"), ("my clip.mp4", "1"), ("v1.mp4", "7")]),
        (b"\xef\xbb\xbfmy clip.mp4;1\r\nv1.mp4;0\r\n", [("my clip.mp4", "1"), ("v1.mp4", "0")]),
        ('v1.mp4 "walk left"\n"my clip.mp4", "walk left"\n', [("v1.mp4", "walk left"), ("my clip.mp4", "walk left")]),
        ('"say ""hi"".mp4" 2\nsay "hi".mp4 2\n', [('say "hi".mp4', "2")] * 2),
        ('"two\nlines.mp4" 3\n"v1.mp4" 0\n', [("two\nlines.mp4", "3"), ("v1.mp4", "0")]),
        ("a\u2028b\x85c.mp4 4\nv1.mp4 0\n", [("a\u2028b\x85c.mp4", "4"), ("v1.mp4", "0")]),
        (b"caf\xe9.mp4 5\n\xff\xfe.mp4 6\n", [("caf\udce9.mp4", "5"), ("\udcff\udcfe.mp4", "6")]),
        (b"\xff\xfe.mp4 6\n", [("\udcff\udcfe.mp4", "6")]),
        ('" edge .mp4" 0\n', [(" edge .mp4", "0")]),
        (
            "20:57:00Z.mp4 1\na,b;c.mp4 2\na,b;c.mp4\n",
            [("20:57:00Z.mp4", "1"), ("a,b;c.mp4", "2"), ("a,b;c.mp4", None)],
        ),
        ("v1.mp4\nmy clip.mp4\n" + '"my clip.mp4"\n', [("v1.mp4", None), ("my clip.mp4", None), ("my clip.mp4", None)]),
        ("v1.mp4 007\nv2.mp4 7\nv1.mp4 -0\n", [("v1.mp4", "7"), ("v2.mp4", "7"), ("v1.mp4", "0")]),
        ("v1.mp4 clip.mp4\nv1.mp4 walk\n", [("v1.mp4 clip.mp4", None), ("v1.mp4", "walk")]),
        ("v1.mp4\u00a0x.mp4 1\n", [("v1.mp4\u00a0x.mp4", "1")]),
    ],
)
def test_csv_files_with_common_quoting_separators_and_encodings(tmp_path, content, wanted):
    assert csv_list.read_csv(csv(tmp_path, content, "v1.mp4", "v2.mp4", *(path for path, _ in wanted))) == wanted


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
def test_csv_file_in_utf16_or_utf32_raises(tmp_path, encoding):
    with pytest.raises(ConfigError, match=r"list.csv is not text: .* in UTF-8"):
        csv_list.read_csv(csv(tmp_path, "v1.mp4 0\n".encode(encoding), "v1.mp4"))


def test_latin_1_list_of_utf8_names_raises_with_the_cause(tmp_path):
    with pytest.raises(ConfigError, match=r"list.csv:1: .* does not exist.*The line is not UTF-8"):
        csv_list.read_csv(csv(tmp_path, "café.mp4 0".encode("latin-1"), "café.mp4"))


def test_unclosed_quote_raises_with_its_line(tmp_path):
    lines = 'v1.mp4 0\n"my clip.mp4 1\n' + "v1.mp4 0\n" * 100_000
    start = time.process_time()
    with pytest.raises(ConfigError, match=r"list.csv:2: '\"my clip.mp4 1' begins with a quote"):
        csv_list.read_csv(csv(tmp_path, lines, "v1.mp4", "my clip.mp4"))
    assert time.process_time() - start < 10  # not quadratic in the number of lines


def test_csv_list_is_read_if_the_folder_cannot_be_listed(tmp_path, monkeypatch):
    file = csv(tmp_path, "v1.mp4 0\n", "v1.mp4")

    def refuse(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "listdir", refuse)
    assert csv_list.read_csv(file) == [("v1.mp4", "0")]


@pytest.mark.parametrize(
    ("labels", "classes", "ids"),
    [
        (["20240131", "7"], ("7", "20240131"), [1, 0]),
        (["4294967296", "0", "10", "9"], ("0", "9", "10", "4294967296"), [3, 0, 2, 1]),
        (["9" * 30, "9"], ("9", "9" * 30), [1, 0]),
        (["-1", "1", "0"], ("-1", "0", "1"), [0, 2, 1]),
        (["3", "0"], ("0", "3"), [1, 0]),
        (["walk", "10", "9"], ("10", "9", "walk"), [2, 0, 1]),
    ],
)
def test_labels_are_names_and_ids_are_dense(tmp_path, labels, classes, ids):
    file = csv(tmp_path, "".join(f"v1.mp4 {label}\n" for label in labels), "v1.mp4")
    source = sources.open_source(config.SourceConfig(path=str(file)), "mine")
    assert source.classes == classes
    assert source.labels.tolist() == ids


def test_list_without_labels_is_a_valid_source(tmp_path):
    file = csv(tmp_path, "v1.mp4\nv2.mp4 1\n", "v1.mp4", "v2.mp4")
    source = sources.open_source(config.SourceConfig(path=str(file)), "mine")
    assert source.labels.tolist() == [sources.UNLABELLED, 0]
    assert [pathlib.Path(path).name for path in source.paths] == ["v1.mp4", "v2.mp4"]
