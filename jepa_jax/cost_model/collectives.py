"""Communication between chips in a compiled step: number and size of its collectives, by kind."""

import dataclasses
import math
import re
from collections.abc import Iterable

from jepa_jax.cost_model import hlo

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "ragged-all-to-all")


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective of the program.

    Attributes:
        kind: one of `KINDS`.
        group: number of chips that take part.
        operand: bytes that each chip contributes.
        runs: number of executions per step.
        source: the model operation it implements, from XLA's metadata.
    """

    kind: str
    group: int
    operand: int
    runs: int
    source: str

    @property
    def payload(self) -> int:
        """Bytes of the full array that is gathered, reduced or exchanged."""
        return self.operand * (self.group if self.kind == "all-gather" else 1)

    @property
    def sent(self) -> float:
        """Bytes that each chip sends: (n−1)/n of the array on a ring of n chips, twice that for all-reduce."""
        if self.kind == "collective-permute":
            return float(self.operand)
        share = (self.group - 1) / self.group
        return self.payload * share * (2 if self.kind == "all-reduce" else 1)


def find(program: hlo.Program, devices: int) -> list[Collective]:
    """Returns the collectives of a program compiled for `devices` chips; groups of one chip are left out."""
    outside, collectives, in_fusions = program.runs(into_fusions=False), [], {}
    for name, runs in program.runs(into_fusions=True).items():
        computation = program.computations[name]
        for instruction in computation.values():
            kind = instruction.opcode.removesuffix("-start")
            if kind not in KINDS:
                continue
            # The TPU compiler emits reduce-scatter as a fusion of an all-reduce with a slice.
            if kind == "all-reduce" and "all-reduce-scatter" in name:
                kind = "reduce-scatter"
            group = devices if kind == "collective-permute" else _group(instruction.attributes, devices)
            operand = sum(hlo.size(computation[operand].type) for operand in instruction.operands)
            source = re.search(r'op_name="([^"]*)"', instruction.attributes)
            collective = Collective(kind, group, operand, runs, source.group(1) if source else "")
            channel = re.search(r"channel_id=(\d+)", instruction.attributes)
            if group == 1:
                continue
            if name in outside or not channel:
                collectives.append(collective)
            else:
                # The TPU compiler can split a collective over several fusions, each of which then contains it.
                same = in_fusions.setdefault((kind, channel.group(1)), collective)
                in_fusions[kind, channel.group(1)] = min(same, collective, key=lambda c: c.runs)
    return [*collectives, *in_fusions.values()]


@dataclasses.dataclass(frozen=True)
class Total:
    """Sums over all collectives of one kind in a step."""

    count: int
    payload: int
    sent: float


def by_kind(collectives: Iterable[Collective]) -> dict[str, Total]:
    """Returns the totals of each kind, largest `sent` first."""
    totals: dict[str, Total] = {}
    for c in collectives:
        old = totals.get(c.kind, Total(0, 0, 0.0))
        totals[c.kind] = Total(old.count + c.runs, old.payload + c.runs * c.payload, old.sent + c.runs * c.sent)
    return dict(sorted(totals.items(), key=lambda item: -item[1].sent))


def _group(attributes: str, devices: int) -> int:
    """Chips per group, in any of XLA's notations: {{0,1},{2,3}}, [2,2]<=[4], mesh['a'=2,'b'=2] {'b'}, or {} for all."""
    if match := re.search(r"replica_groups=\[\d+,(\d+)\]", attributes):
        return int(match.group(1))
    if match := re.search(r"replica_groups=\{\{([\d,]*)\}", attributes):
        return match.group(1).count(",") + 1
    if match := re.search(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}", attributes):
        sides = dict(re.findall(r"'(\w+)'=(\d+)", match.group(1)))
        axes = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", match.group(2))  # 'a':(2)4 is a sub-axis of size 4
        return math.prod(int(part or sides[axis]) for axis, part in axes)
    return devices
