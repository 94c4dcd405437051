"""Records are parsed to the same values as TFDS gives."""

import pathlib

import pytest
import tensorflow_datasets as tfds

from jepa_jax.data.preparation import build, frames, sets
from jepa_jax.data.sources import frame_records


@pytest.fixture(scope="module")
def prepared(clips, tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared") / "clips"
    build.prepare(sets.OPEN["folder"](pathlib.Path(clips)), folder, frames.JpegSettings(), 0)
    return str(folder)


def test_values_equal_those_of_tfds(prepared):
    ours = frame_records.FrameRecords(prepared, "train")
    theirs = tfds.builder_from_directory(prepared).as_data_source(split="train")
    assert len(ours) == len(theirs) == 8
    for number, record in enumerate(ours):
        wanted = theirs[number]
        assert record.keys() == wanted.keys()
        assert {name: record[name] for name in record if name != "frames"} == {
            name: wanted[name] for name in wanted if name != "frames"
        }
        assert list(record["frames"]) == list(wanted["frames"])


def test_missing_feature_raises_and_is_not_added(prepared):
    record = frame_records.FrameRecords(prepared, "train")[0]
    with pytest.raises(KeyError, match="nothing"):
        record["nothing"]
    assert "nothing" not in record
    assert len(record) == 6
