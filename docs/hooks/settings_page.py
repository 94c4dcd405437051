"""The reference of settings, made from the dataclasses that define them."""

import ast
import dataclasses
import inspect
import re
import textwrap
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from jepa_jax import config
from jepa_jax.evaluation import eval_config
from jepa_jax.finetune import finetune_config
from jepa_jax.study import study_config

INTRODUCTION = """# Settings

Every setting is a flag of its command: `--config.optim.peak_lr=1e-3`. A config file starts from the defaults below and
changes what it needs. `--config NAME:help` lists the recipes of a config.
"""
JOBS = {
    "Training": (config.Config, "`python -m jepa_jax.train`"),
    "Fine-tuning": (finetune_config.FinetuneConfig, "`python -m jepa_jax.finetune`"),
    "Evaluation": (eval_config.EvalConfig, "`python -m jepa_jax.evaluate`"),
    "Studies": (study_config.StudyConfig, "`python -m jepa_jax.study`"),
}
REGISTRIES = {
    "Objectives": (config.OBJECTIVES, "config.objectives.{name}"),
    "Masks": (config.MASKS, 'config.masks.NAME, kind="{name}"'),
}


@dataclasses.dataclass(frozen=True)
class Setting:
    """One field of a dataclass of settings."""

    name: str
    type: str
    default: str
    range: str
    text: str
    group: type | None  # the dataclass of a nested group


def page() -> str:
    """The page in Markdown."""
    parts, shown = [INTRODUCTION], set()
    for title, (cls, command) in JOBS.items():
        parts.append(f"## {title}\n\n{command}\n")
        parts += [section(path, group) for path, group in groups(cls, "config") if not shown.intersection([group])]
        shown |= {group for _, group in groups(cls, "config")}
    for title, (registry, path) in REGISTRIES.items():
        parts.append(f"## {title}\n")
        parts += [section(path.format(name=name), cls) for name, cls in registry.classes.items()]
    return "\n".join(parts)


def groups(cls: type, path: str) -> Iterator[tuple[str, type]]:
    """The dataclass and those nested in it, each with its path; every dataclass once."""
    yield path, cls
    for setting in settings(cls):
        if setting.group is not None:
            yield from groups(setting.group, f"{path}.{setting.name}")


def section(path: str, cls: type) -> str:
    """The heading, the docstring and the table of one dataclass."""
    lines = [
        f"### `{path}` {{ #{path.replace('=', '-').replace(' ', '')} }}\n",
        inspect.cleandoc(cls.__doc__ or ""),
        "",
    ]
    rows = [s for s in settings(cls) if s.group is None]
    if rows:
        lines += ["| setting | type | default | range | |", "|---|---|---|---|---|"]
        lines += [f"| `{s.name}` | {s.type} | {s.default} | {s.range} | {s.text} |" for s in rows]
    return "\n".join([*lines, ""])


def settings(cls: type) -> list[Setting]:
    """The settings of a dataclass in their order."""
    hints, comments, ranges = typing.get_type_hints(cls), all_comments(cls), all_ranges(cls)
    found = []
    for field in dataclasses.fields(cls):
        hint = hints[field.name]
        found.append(
            Setting(
                field.name,
                _code(_type(hint)),
                _code(_default(field)),
                ranges.get(field.name, ""),
                comments.get(field.name, "").replace("|", "\\|"),
                _group(hint),
            )
        )
    return found


def all_comments(cls: type) -> dict[str, str]:
    """The comment of each field, on its line or on the lines above it; those of parent classes included."""
    found: dict[str, str] = {}
    for parent in reversed(cls.__mro__):
        if not dataclasses.is_dataclass(parent):
            continue
        above: list[str] = []
        for line in textwrap.dedent(inspect.getsource(parent)).splitlines():
            if match := re.fullmatch(r"    # (.*)", line):
                above.append(match[1])
            elif match := re.match(r"    (\w+): .*?(?:  # (.*))?$", line):
                found[match[1]] = " ".join([*above, match[2] or ""]).strip() or found.get(match[1], "")
                above = []
            else:
                above = []
    return found


def all_ranges(cls: type) -> dict[str, str]:
    """The ranges that `at_least` and `share` check."""
    found: dict[str, str] = {}
    for parent in cls.__mro__:
        if not dataclasses.is_dataclass(parent):
            continue
        for call in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(parent)))):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute | ast.Name):
                function = call.func.attr if isinstance(call.func, ast.Attribute) else call.func.id
                values = [argument.value for argument in call.args if isinstance(argument, ast.Constant)]
                if function == "at_least":
                    found |= {str(name): f"≥ {values[0]}" for name in values[1:]}
                elif function == "share":
                    found |= {str(name): "0 to 1" for name in values}
    return found


def _group(hint: Any) -> type | None:
    return hint if dataclasses.is_dataclass(hint) and isinstance(hint, type) else _group_of_mapping(hint)


def _group_of_mapping(hint: Any) -> type | None:
    """The dataclass of the values, for settings such as sources by name."""
    if typing.get_origin(hint) is Mapping:
        (_, value) = typing.get_args(hint)
        return value if dataclasses.is_dataclass(value) and isinstance(value, type) else None
    return None


def _type(hint: Any) -> str:
    if typing.get_origin(hint) is typing.Literal:
        return " or ".join(map(str, typing.get_args(hint)))
    text = hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)
    return re.sub(r"(typing|collections\.abc)\.", "", text)


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is not dataclasses.MISSING:
        return repr(field.default)
    assert field.default_factory is not dataclasses.MISSING
    value = field.default_factory()
    return ", ".join(value) if isinstance(value, Mapping) and value else repr(value)


def _code(text: str) -> str:
    return "`" + text.replace("|", "\\|") + "`" if text else ""
