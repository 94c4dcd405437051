"""One machine's share of the shards: part i of n, as in `--part=2/3`."""

import dataclasses
import re
from collections.abc import Sequence
from typing import TypeVar

from jepa_jax.data.preparation.raw import PrepareError

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Share:
    """Every `count`-th shard, from shard `number` on (counted from 1). Shares with the same `count` are disjoint."""

    number: int = 1
    count: int = 1

    @property
    def is_whole(self) -> bool:
        """Whether this share is the whole set."""
        return self.count == 1

    def select(self, shards: Sequence[T]) -> Sequence[T]:
        """Returns the shards of this share, given all shards."""
        return shards[self.number - 1 :: self.count]

    def siblings(self) -> list["Share"]:
        """Returns the shares that make up the set together with this one, and this one."""
        return [Share(number, self.count) for number in range(1, self.count + 1)]

    @property
    def title(self) -> str:
        """The name of this share, to begin a sentence."""
        return "The whole" if self.is_whole else f"Part {self.number}/{self.count}"

    def __str__(self) -> str:
        return self.title.lower()


WHOLE = Share()


def parse(text: str) -> Share:
    """Parses `i/n`.

    Raises:
        PrepareError: not two numbers, or i is not one of 1 to n.
    """
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise PrepareError(f"--part is {text!r}; expected i/n with i from 1 to n, such as 1/4, 2/4, 3/4 and 4/4.")
    return Share(int(found[1]), int(found[2]))
