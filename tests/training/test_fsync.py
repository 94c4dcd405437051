"""Disk errors while flushing raise. File systems that cannot flush folders are accepted."""

import errno
import os

import pytest

from jepa_jax.files import fsync


def failing(monkeypatch, code):
    def fsync(descriptor):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fsync)


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_disk_errors_raise(tmp_path, monkeypatch, code):
    (tmp_path / "file").write_text("content")
    failing(monkeypatch, code)
    with pytest.raises(OSError, match=os.strerror(code)):
        fsync.flush(tmp_path)
    with pytest.raises(OSError, match=os.strerror(code)):
        fsync.flush_names(tmp_path)


def test_file_system_that_cannot_flush_folders_is_accepted(tmp_path, monkeypatch):
    failing(monkeypatch, errno.EINVAL)
    fsync.flush_names(tmp_path)
    (tmp_path / "file").write_text("content")
    with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):  # but files must be flushed
        fsync.flush(tmp_path)
