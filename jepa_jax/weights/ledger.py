"""The ledger of a file: each tensor is used exactly once or ignored for a reason."""

import dataclasses
from collections.abc import Mapping, Sequence

from jepa_jax.weights.entries import Module
from jepa_jax.weights.tensors import DTYPES, Tensor, WeightsError


@dataclasses.dataclass(frozen=True)
class Account:
    """How the tensors of (a part of) a file compare with a module.

    Attributes:
        problems: one line for each missing, unexpected or misshapen tensor.
        ignored: the reason for each tensor that is not used.
    """

    problems: Sequence[str]
    ignored: Mapping[str, str]


def balance(tensors: Mapping[str, Tensor], modules: Sequence[Module]) -> Account:
    """Compares tensors with the entries of modules."""
    expected = {entry.key: entry for module in modules for entry in module.entries}
    may_ignore = {key: reason for module in modules for key, reason in module.ignored.items()}
    problems = [f"{key} {list(entry.shape)} is missing" for key, entry in expected.items() if key not in tensors]
    for key, tensor in tensors.items():
        entry, shape = expected.get(key), list(tensor.shape)
        if entry is None and key not in may_ignore:
            problems.append(f"{key} {shape} is unexpected")
        elif entry is not None and tensor.shape != entry.shape:
            problems.append(f"{key} is {shape}; expected {list(entry.shape)}")
        elif entry is not None and tensor.dtype not in DTYPES:
            problems.append(f"{key} is {tensor.dtype}; expected {', '.join(DTYPES)}")
    return Account(problems, {key: reason for key, reason in may_ignore.items() if key in tensors})


def require(problems: Sequence[str], source: str, what: str) -> None:
    """Raises a WeightsError that lists all problems, if there are any.

    Args:
        problems: of all parts of the file.
        source: the file.
        what: it should hold, with its size.
    """
    if problems:
        lines = "".join(f"\n  {problem}" for problem in problems)
        raise WeightsError(f"{source} does not hold {what}; {len(problems)} of its tensors do not fit:{lines}")
