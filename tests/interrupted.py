"""Interrupts the preparation of a dataset."""

import contextlib

import pytest

from jepa_jax.data.preparation import shard_writer
from jepa_jax.data.sources import array_record


@contextlib.contextmanager
def before_description(monkeypatch):
    """Raises KeyboardInterrupt after all records are written, before the file that marks the dataset as complete."""
    write_text = shard_writer.write_text

    def interrupt(file, text, *token):
        if file.name == array_record.DESCRIPTION_FILE:
            raise KeyboardInterrupt
        write_text(file, text, *token)

    with monkeypatch.context() as patched:
        patched.setattr(shard_writer, "write_text", interrupt)
        with pytest.raises(KeyboardInterrupt):
            yield
