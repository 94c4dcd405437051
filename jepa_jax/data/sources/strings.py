"""A compact sequence of strings, for the names of the items of a prepared set."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8

from jepa_jax.data.listing import names


class Strings(Sequence[str]):
    """Strings stored in three arrays, which is compact for hundreds of thousands of names."""

    def __init__(
        self,
        text: UInt8[np.ndarray, "bytes"],
        starts: Int64[np.ndarray, "items"],
        ends: Int64[np.ndarray, "items"],
        prefix: str = "",
    ):
        """String i is `prefix` followed by the bytes of `text` from `starts[i]` to `ends[i]`."""
        self.text = text
        self.starts = starts
        self.ends = ends
        self.prefix = prefix

    @classmethod
    def of(cls, strings: Sequence[str]) -> "Strings":
        """Stores the given strings."""
        encoded = [names.to_bytes(string) for string in strings]
        ends = np.cumsum([len(string) for string in encoded], dtype=np.int64)
        starts = ends - np.array([len(string) for string in encoded], np.int64)
        return cls(np.frombuffer(b"".join(encoded), np.uint8), starts, ends)

    @classmethod
    def concatenate(cls, several: Sequence["Strings"]) -> "Strings":
        """Concatenates several; their prefixes are dropped."""
        offsets = np.cumsum([0, *(len(strings.text) for strings in several)])
        return cls(
            np.concatenate([strings.text for strings in several]),
            np.concatenate([strings.starts + offset for strings, offset in zip(several, offsets[:-1], strict=True)]),
            np.concatenate([strings.ends + offset for strings, offset in zip(several, offsets[:-1], strict=True)]),
        )

    def select(self, items: Int64[np.ndarray, "some"]) -> "Strings":
        """Returns a subset of the strings."""
        return Strings(self.text, self.starts[items], self.ends[items], self.prefix)

    def with_prefix(self, prefix: str) -> "Strings":
        """Returns the same strings with another prefix."""
        return Strings(self.text, self.starts, self.ends, prefix)

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, item: Any) -> Any:
        if isinstance(item, slice):
            return [self[i] for i in range(*item.indices(len(self)))]
        return self.prefix + names.from_bytes(self.text[self.starts[item] : self.ends[item]].tobytes())
