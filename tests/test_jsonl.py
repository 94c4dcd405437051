"""JSON lines with an incomplete last line, and aligned memory."""

import numpy as np
import pytest

from jepa_jax.files import jsonl
from jepa_jax.files.aligned import aligned_empty


@pytest.mark.parametrize(
    ("content", "lines"),
    [(b"", []), (b'{"a": 1}\n{"a": 2}\n', [b'{"a": 1}', b'{"a": 2}']), (b'{"a": 1}\n{"a"', [b'{"a": 1}']), (b"{", [])],
)
def test_incomplete_last_line_is_removed(tmp_path, content, lines):
    file = tmp_path / "lines.jsonl"
    file.write_bytes(content)
    assert jsonl.whole_lines(file) == lines
    assert file.read_bytes() == b"".join(line + b"\n" for line in lines)


def test_missing_file_has_no_lines(tmp_path):
    assert jsonl.whole_lines(tmp_path / "none.jsonl") == []
    assert not list(tmp_path.iterdir())


def test_appended_lines_are_read_back(tmp_path):
    file = tmp_path / "lines.jsonl"
    for line in ("1", "2"):
        jsonl.append(file, line)
    assert jsonl.whole_lines(file) == [b"1", b"2"]


@pytest.mark.parametrize("shape", [(), (7,), (3, 5)])
def test_aligned_empty_returns_aligned_memory(shape):
    array = aligned_empty(shape, np.float16)
    assert (array.shape, array.dtype) == (shape, np.float16)
    assert array.ctypes.data % 64 == 0
