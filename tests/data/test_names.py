import pathlib

import pytest

from jepa_jax.data.listing import names


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a/my clip.mp4", "a/my clip.mp4"),
        ("Übung/走.mp4", "Übung/走.mp4"),
        ("caf\udce9.mp4", r"caf\udce9.mp4"),
        ("a\nb\u2028c\x1b[0m", r"a\nb\u2028c\x1b[0m"),
        ("  walk ", r"\x20\x20walk\x20"),
        (" ", r"\x20"),
        (r"a\nb", r"a\\nb"),
    ],
)
def test_printable_escapes_names_to_one_line(name, shown):
    assert names.printable(name) == shown


def test_names_round_trip_as_bytes():
    for content in (b"a.mp4", "Übung".encode(), b"\xff\xfe caf\xe9", bytes(range(1, 256))):
        assert names.to_bytes(names.from_bytes(content)) == content
    assert names.is_utf8("Übung")
    assert not names.is_utf8(names.from_bytes(b"caf\xe9"))


def test_split_lines_splits_only_at_newlines():
    text = "a\u2028b\x0b\x0c\x1c\x85\u2029c\nd\r\ne\rf\n\ng"
    lines = names.split_lines(text)
    assert lines == ["a\u2028b\x0b\x0c\x1c\x85\u2029c\n", "d\r\n", "e\r", "f\n", "\n", "g"]
    assert names.split_lines("") == []


def test_read_text_accepts_a_byte_order_mark_and_rejects_other_encodings(tmp_path: pathlib.Path):
    file = tmp_path / "list.txt"
    for content, text in ((b"\xef\xbb\xbfa\r\n", "a\r\n"), (b"a", "a"), (b"\xff\xfe.mp4\n", "\udcff\udcfe.mp4\n")):
        file.write_bytes(content)
        assert names.read_text(file) == text
    for encoding in ("UTF-16", "UTF-32"):
        file.write_text("a.mp4 0\n", encoding=encoding)
        with pytest.raises(ValueError, match=f"it is {encoding}; save it as UTF-8"):
            names.read_text(file)
    file.write_bytes(b"a\0b")
    with pytest.raises(ValueError, match="NUL"):
        names.read_text(file)
