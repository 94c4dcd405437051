"""A parser of compiled HLO text: instructions, and how often each runs.

XLA's own cost analysis counts the body of a loop once. Here the count of a computation includes the trip counts of the
loops around it, read from the compiler's annotation (CPU) or from the loop condition (TPU).
"""

import dataclasses
import functools
import math
import re

BITS = {"pred": 8, "token": 0, "f16": 16, "bf16": 16, "f32": 32, "f64": 64, "c64": 64, "c128": 128}
BITS |= {f"{sign}{bits}": bits for sign in "su" for bits in (2, 4, 8, 16, 32, 64)}

_ARRAY = re.compile(r"\b([a-z]+[0-9]*\w*)\[([\d,]*)\](\{[^}]*\})?")
_HEADER = re.compile(r"^(ENTRY\s+)?%?([^\s(]+)\s+\(.*\)\s*->\s.*\{$")
_LINE = re.compile(r"^\s+(ROOT\s+)?%?([^\s=]+)\s=\s(.*)$")
_CALLED = re.compile(
    r"\b(calls|body|condition|branch_computations|true_computation|false_computation)=(\{[^}]*\}|[^\s,)]+)"
)
_LITERAL = ("parameter", "constant", "iota")  # their parentheses do not hold instructions
_COMMENT = re.compile(r"/\*.*?\*/")


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation.

    Attributes:
        name: unique in its computation.
        type: type of the result in XLA's notation, with layout.
        opcode: the operation.
        operands: names of instructions in the same computation.
        literal: instead of operands, the number of a parameter or the value of a constant.
        attributes: the text after the operands.
        root: whether it is the computation's result.
    """

    name: str
    type: str
    opcode: str
    operands: tuple[str, ...]
    literal: str
    attributes: str
    root: bool

    @functools.cached_property
    def called(self) -> dict[str, list[str]]:
        """Computations that it calls, by role (calls, body, …), without scalar reducers and comparators."""
        by_role: dict[str, list[str]] = {}
        for role, names in _CALLED.findall(self.attributes):
            by_role.setdefault(role, []).extend(re.findall(r"[^\s,{}%]+", names))
        return by_role


@dataclasses.dataclass(frozen=True)
class Program:
    """Computations by name, each a mapping of its instructions by name, and the name of the entry computation."""

    computations: dict[str, dict[str, Instruction]]
    entry: str

    def runs(self, *, into_fusions: bool) -> dict[str, int]:
        """Returns how often each computation runs per execution of the program.

        Loops with an unknown trip count are counted once; all branches of a conditional are counted.

        Args:
            into_fusions: whether to include the computations inside fusions and asynchronous operations.
        """
        times: dict[str, int] = {}

        def visit(name: str, count: int) -> None:
            times[name] = times.get(name, 0) + count
            for instruction in self.computations[name].values():
                for role, names in instruction.called.items():
                    if role == "calls" and not into_fusions:
                        continue
                    for called in names:
                        visit(called, count * ((self.trips(instruction) or 1) if role == "body" else 1))

        visit(self.entry, 1)
        return times

    def trips(self, loop: Instruction) -> int | None:
        """Returns the trip count of a loop, or None if it is unknown.

        Without the compiler's annotation, the loop is assumed to count from 0 in steps of 1 to the constant in its
        condition, as loops from `jax.lax.scan` do.
        """
        if match := re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes):
            return int(match.group(1))
        condition = self.computations[loop.called["condition"][0]]
        (root,) = (instruction for instruction in condition.values() if instruction.root)
        bounds = [condition[name] for name in root.operands if condition[name].opcode == "constant"]
        if root.opcode != "compare" or "direction=LT" not in root.attributes or len(bounds) != 1:
            return None
        return int(bounds[0].literal)

    @functools.cached_property
    def unknown_loops(self) -> int:
        """Number of loops with an unknown trip count; their bodies are counted once."""
        return sum(
            instruction.opcode == "while" and self.trips(instruction) is None
            for name in self.runs(into_fusions=False)
            for instruction in self.computations[name].values()
        )


def size(type_text: str, *, in_memory: bool = False) -> int:
    """Returns the bytes of a type, summed over tuples; with `in_memory` only of arrays in memory space 0."""
    total = 0.0
    for kind, dimensions, layout in _ARRAY.findall(type_text):
        if in_memory and re.search(r"S\([1-9]", layout):
            continue
        total += math.prod(int(d) for d in dimensions.split(",") if d) * _bits(kind) / 8
    return math.ceil(total)


def elements(type_text: str) -> list[str]:
    """Returns the element types of a tuple type; of any other type, a list with that type."""
    return [part.strip() for part in _split(type_text[1:-1])] if type_text.startswith("(") else [type_text]


def parse(text: str) -> Program:
    """Parses the text from `Compiled.as_text()`.

    Raises:
        ValueError: the text has no entry computation.
    """
    computations: dict[str, dict[str, Instruction]] = {}
    entry, current = None, None
    for line in _COMMENT.sub("", text).splitlines():
        if header := _HEADER.match(line):
            current = computations.setdefault(header.group(2), {})
            entry = header.group(2) if header.group(1) else entry
        elif line.rstrip() == "}":  # kernel attributes span several lines, one of which begins with a brace
            current = None
        elif current is not None and (match := _LINE.match(line)):
            instruction = _instruction(match.group(2), match.group(3), bool(match.group(1)))
            current[instruction.name] = instruction
    if entry is None:
        raise ValueError("no ENTRY computation; expected the text of a compiled HLO module")
    return Program(computations, entry)


def _bits(kind: str) -> int:
    return 8 if kind.startswith("f8") else BITS[kind]


def _instruction(name: str, rest: str, root: bool) -> Instruction:
    end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
    start = rest.index("(", end)
    stop = _closing(rest, start)
    opcode = rest[end:start].strip()
    inside, operands = rest[start + 1 : stop], ()
    if opcode not in _LITERAL:
        inside, operands = "", tuple(part.split()[-1].lstrip("%") for part in _split(inside))
    return Instruction(name, rest[:end].strip(), opcode, operands, inside, rest[stop + 1 :], root)


def _closing(text: str, start: int) -> int:
    """Returns the position of the parenthesis that closes the one at `start`."""
    depth = 0
    for position in range(start, len(text)):
        depth += (text[position] == "(") - (text[position] == ")")
        if depth == 0:
            return position
    raise ValueError(f"unbalanced parentheses in {text[:80]!r}")


def _split(text: str) -> list[str]:
    """Splits at commas outside brackets."""
    parts, depth, start = [], 0, 0
    for position, letter in enumerate(text):
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            parts.append(text[start:position])
            start = position + 1
    return [part for part in (*parts, text[start:]) if part.strip()]
