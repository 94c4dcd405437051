"""Memory traffic of a chip in one step, computed from the compiled program."""

from jepa_jax.cost_model import hlo

# Instructions without traffic: aliases, containers (their contents are counted), and ends of asynchronous operations.
_FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "call", "after-all",
    "partition-id", "replica-id", "add-dependency", "opt-barrier", "domain",
}  # fmt: skip
_FREE_CALLS = ("ConcatBitcast", "AssumeGatherIndicesInBound", "AsyncCollectiveDone")
_SLICES = {"dynamic-slice", "slice", "gather"}  # read as many bytes of their first operand as they return

Computation = dict[str, hlo.Instruction]


def traffic(program: hlo.Program) -> int:
    """Returns the bytes read from and written to main memory.

    Sums the operands and results of every executed instruction, with a fusion as one instruction. Slices and in-place
    updates count only the bytes they touch; arrays that the compiler keeps in on-chip memory count nothing.
    """
    return sum(
        runs * _moved(program, program.computations[name], instruction)
        for name, runs in program.runs(into_fusions=False).items()
        for instruction in program.computations[name].values()
    )


def _moved(program: hlo.Program, computation: Computation, instruction: hlo.Instruction) -> int:
    opcode = instruction.opcode
    if (
        opcode in _FREE
        or opcode.endswith(("-done", "-update"))
        or any(call in instruction.attributes for call in _FREE_CALLS)
    ):
        return 0
    operands = [hlo.size(computation[name].type, in_memory=True) for name in instruction.operands]
    result = hlo.size(instruction.type, in_memory=True)
    if opcode in _SLICES:
        return result + min(hlo.size(instruction.type), operands[0]) + sum(operands[1:])
    if opcode == "dynamic-update-slice":
        return operands[1] + min(hlo.size(computation[instruction.operands[1]].type), result)
    if opcode in ("copy-start", "slice-start"):  # (target, source, context) and ((source), target, context)
        target = hlo.elements(instruction.type)[0 if opcode == "copy-start" else 1]
        return hlo.size(target, in_memory=True) + min(hlo.size(target), operands[0])
    if opcode == "fusion":
        body = program.computations[instruction.called["calls"][0]]
        read = sum(min(whole, _read(program, body, number)) for number, whole in enumerate(operands) if whole)
        return read + _written(program, body, instruction.type)
    if opcode.endswith("-start"):
        return 2 * sum(operands)
    return result + sum(operands)


def _read(program: hlo.Program, body: Computation, number: int) -> int:
    """Returns the bytes that a fusion reads of operand `number`: all of it, or only the slices it takes."""
    (parameter,) = (i for i in body.values() if i.opcode == "parameter" and int(i.literal) == number)
    total = 0
    for user in body.values():
        for position, name in enumerate(user.operands):
            if name == parameter.name:
                total += _read_by(program, user, position, hlo.size(parameter.type))
    return total


def _read_by(program: hlo.Program, user: hlo.Instruction, position: int, whole: int) -> int:
    if user.opcode in _SLICES and position == 0:
        return hlo.size(user.type)
    if user.opcode == "dynamic-update-slice" and position == 0:  # updated in place
        return 0
    if user.opcode == "tuple":  # passed through
        return 0
    if user.opcode == "fusion":
        return _read(program, program.computations[user.called["calls"][0]], position)
    return whole


def _written(program: hlo.Program, body: Computation, types: str) -> int:
    """Returns the bytes that a fusion writes: full results, only the updated part, or nothing if passed through."""
    (root,) = (instruction for instruction in body.values() if instruction.root)
    parts = [body[name] for name in root.operands] if root.opcode == "tuple" else [root]
    pairs = zip(parts, hlo.elements(types) if root.opcode == "tuple" else [types], strict=True)
    return sum(min(_updated(program, body, part), hlo.size(kind, in_memory=True)) for part, kind in pairs)


def _updated(program: hlo.Program, body: Computation, result: hlo.Instruction) -> int:
    while result.opcode in ("bitcast", "copy") and result.operands:
        result = body[result.operands[0]]
    if result.opcode == "parameter":
        return 0
    if result.opcode == "dynamic-update-slice":
        return hlo.size(body[result.operands[1]].type)
    if result.opcode == "fusion":
        return _written(program, program.computations[result.called["calls"][0]], result.type)
    return hlo.size(result.type)
