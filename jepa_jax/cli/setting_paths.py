"""Looks up settings by path, and suggests similar ones for an unknown path."""

import difflib
from collections.abc import Iterator, Sequence

import ml_collections

_ABBREVIATIONS = {"lr": "learning rate", "wd": "weight decay", "bs": "batch size"}
_NEAR = 0.6  # minimum similarity of a suggestion


def unknown(config: ml_collections.ConfigDict, path: Sequence[str | int]) -> str | None:
    """Returns an error message if `path` is not a setting of `config`; None if it is."""
    group = config
    for depth, key in enumerate(path):
        if not isinstance(group, ml_collections.ConfigDict):
            # ml_collections handles list indices.
            within = dotted(path[:depth])
            return None if isinstance(key, int) else f"{within} is a single setting; it has no {key!r}. Set {within}."
        if not isinstance(key, str) or key not in group:
            return _message(config, group, path, depth)
        group = group[key]
    return None


def dotted(path: Sequence[str | int]) -> str:
    """Joins keys to a path such as `config.optim.peak_lr`."""
    return ".".join(["config", *map(str, path)])


def paths(config: ml_collections.ConfigDict, prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yields the keys of each setting, excluding groups."""
    for key in sorted(config):
        value = config[key]
        if isinstance(value, ml_collections.ConfigDict):
            yield from paths(value, (*prefix, key))
        else:
            yield (*prefix, key)


def elsewhere(config: ml_collections.ConfigDict, typed: Sequence[str]) -> list[str]:
    """Returns the settings most similar to `typed`, comparing the ends of paths: `lr` matches optim.peak_lr."""
    scores = {}
    for path in paths(config):
        ends = (path[start:] for start in range(len(path)))
        scores[path] = max(_similarity(typed, end) for end in ends)
    best = max(scores.values(), default=0.0)
    return [dotted(path) for path, score in scores.items() if best >= _NEAR and score == best]


def _message(
    config: ml_collections.ConfigDict, group: ml_collections.ConfigDict, path: Sequence[str | int], depth: int
) -> str:
    key, siblings = str(path[depth]), sorted(group)
    near = max(siblings, key=lambda name: _similarity([key], [name]), default="")
    # Inside a group, the keys after an unknown key belong to it, so only the key itself is compared.
    typed = [str(part) for part in path] if depth == 0 else [key]
    others = elsewhere(config, typed) if depth in (0, len(path) - 1) else []
    if near and _similarity([key], [near]) >= _NEAR:
        hint = f' Did you mean "{near}"?'
    elif others:
        hint = f" Did you mean {' or '.join(f'--{name}' for name in others[:3])}?"
    else:
        hint = ""
    return (
        f"{dotted(path[: depth + 1])} is not a setting.{hint} Known in {dotted(path[:depth])}: {', '.join(siblings)}."
    )


def _similarity(typed: Sequence[str], known: Sequence[str]) -> float:
    return difflib.SequenceMatcher(None, _words(typed), _words(known)).ratio()


def _words(path: Sequence[str]) -> str:
    words = " ".join(path).lower().replace("_", " ").replace("-", " ").split()
    return " ".join(_ABBREVIATIONS.get(word, word) for word in words)
