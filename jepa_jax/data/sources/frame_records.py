"""Records of a prepared set: consecutive JPEG frames of an item, with its metadata."""

from collections.abc import Iterator, Mapping
from typing import Any


class FrameRecord(Mapping[str, Any]):
    """The record as TFDS reads it: id, label, fps, count, first (number of its first frame) and frames.

    TFDS copies all frames of a record into arrays; here a frame is copied when it is accessed.
    """

    def __init__(self, serialized: bytes):
        """Parses a serialized `tf.train.Example`."""
        from tensorflow_datasets.proto import tf_example_pb2  # slow to import, and not needed for raw files

        protos: Any = tf_example_pb2
        self._features = protos.Example.FromString(serialized).features.feature

    def __getitem__(self, name: str) -> Any:
        if name not in self._features:  # a protobuf map would add it
            raise KeyError(name)
        feature = self._features[name]
        values = getattr(feature, feature.WhichOneof("kind")).value
        return values if name == "frames" else values[0]

    def __iter__(self) -> Iterator[str]:
        return iter(self._features)

    def __len__(self) -> int:
        return len(self._features)


class FrameRecords:
    """The records of a part of a prepared set."""

    def __init__(self, folder: str, part: str):
        """Opens the part; reads no record."""
        import tensorflow_datasets as tfds
        from tensorflow_datasets.core import decode

        builder: Any = tfds.builder_from_directory(folder)
        self._serialized = builder.as_data_source(split=part, deserialize_method=decode.DeserializeMethod.RAW_BYTES)

    def __len__(self) -> int:
        return len(self._serialized)

    def __getitem__(self, number: int) -> FrameRecord:
        return FrameRecord(self._serialized[number])

    def __iter__(self) -> Iterator[FrameRecord]:
        return (self[number] for number in range(len(self)))
