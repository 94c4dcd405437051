"""Settings as frozen dataclasses: parsed from configs and JSON, compared, and named in errors as users type them.

A schema is a frozen dataclass. Its fields may be schemas. A field annotated with a `Registry` has items of different
classes; the settings of a field annotated with `Inline` belong to the group that contains it.
"""

import contextlib
import dataclasses
import difflib
import functools
import importlib
import itertools
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal

import ml_collections

T = typing.TypeVar("T")


class ConfigError(ValueError):
    """An invalid setting. The message names the setting, the problem and what is expected."""


@contextlib.contextmanager
def error_prefix(path: str) -> Iterator[None]:
    """Turns a ValueError raised inside into a ConfigError that names the setting `path`."""
    try:
        yield
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error


def _require(settings: Any, names: Iterable[str], holds: Callable[[Any], bool], expected: str) -> None:
    for name in names:
        if not holds(value := getattr(settings, name)):
            raise ValueError(f"{name} is {value}; expected {expected}")


def at_least(settings: Any, least: int, *names: str) -> None:
    """Raises ValueError unless each of these fields is at least `least`."""
    _require(settings, names, lambda value: value >= least, f"at least {least}")


def share(settings: Any, *names: str) -> None:
    """Raises ValueError unless each of these fields is in [0, 1]."""
    _require(settings, names, lambda value: 0 <= value <= 1, "a share in [0, 1]")


class Inline:
    """Annotates a field that is a schema. Its settings are given without the name of the field."""


@dataclasses.dataclass(frozen=True)
class Registry:
    """Annotates a field with items of different classes: those of a table, or any class by its import path.

    `Annotated[Mapping[str, Any], registry]` has items by name, `Annotated[Any, registry]` a single item. The table is
    imported on first use, so a schema does not import what it configures.

    Attributes:
        table: `module:NAME` of a dict from names to frozen dataclasses.
        key: the setting that names an item's class, such as `class` in `{"class": "my_package.norm:Norm"}`.
        base: `module:NAME` of the class that every item must inherit from; if empty, any dataclass is accepted.
        default: the class of an item without that setting; if empty, the class with the item's own name.
    """

    table: str
    key: str
    base: str = ""
    default: str = ""

    @property
    def classes(self) -> Mapping[str, type]:
        """The classes of the table, by name."""
        return _imported(self.table)

    def find(self, name: str, path: str) -> type:
        """Returns the class of the table with this name, or the class at this import path.

        Raises:
            ConfigError: it does not exist or cannot be an item; `path` is the setting that names it.
        """
        if ":" in name:
            return _outside_class(name, self.base, path)
        if name not in self.classes:
            raise ConfigError(
                f"{path}: there is no {name!r}.{nearest(name, self.classes)} "
                f"To use a class of your own, name its import path: {self.key}=my_package.my_module:MyClass."
            )
        return self.classes[name]

    def parse(self, name: str, item: Any, path: str) -> Any:
        """Returns the item as an instance of its class."""
        if not isinstance(item, Mapping | ml_collections.ConfigDict):
            raise ConfigError(f"{path} is {item!r}; expected a group of settings.")
        return parse(self.class_of(name, item, path), {key: item[key] for key in item if key != self.key}, path)

    def to_dict(self, name: str, item: Any) -> dict[str, Any]:
        """Returns the item's settings, and its class unless it is the default."""
        cls = type(item)
        names = (known for known, other in self.classes.items() if other is cls)
        kind = next(names, f"{cls.__module__}:{cls.__qualname__}")
        return ({} if kind == (self.default or name) else {self.key: kind}) | to_dict(item)

    def class_of(self, name: str, item: Any, path: str) -> type:
        """Returns the class of an item by its settings."""
        given, missing = item.get(self.key), dataclasses.MISSING
        path = f"{path}.{self.key}" if given else path
        cls = self.find(str(given or self.default or name), path)
        if bare := [f.name for f in dataclasses.fields(cls) if f.init and f.default is f.default_factory is missing]:
            problem = f"has no default for its setting {bare[0]}. Give every field a default."
            raise ConfigError(f"{path} is {given!r}, which {problem}")
        return cls


def registries(cls: type, keys: tuple[str, ...] = ()) -> dict[tuple[str, ...], Registry]:
    """Returns the registries of a schema by the keys of their items, with "*" for the name of an item."""
    found = {}
    for name, hint in _hints(cls).items():
        path = (*keys, name)
        if (registry := _note(hint, Registry)) is not None:
            found[(*path, "*") if _has_names(hint) else path] = registry
        elif dataclasses.is_dataclass(hint):
            found |= registries(typing.cast(type, hint), path)
        elif typing.get_origin(hint) is Mapping and dataclasses.is_dataclass(inner := typing.get_args(hint)[1]):
            found |= registries(typing.cast(type, inner), (*path, "*"))
    return found


def to_dict(settings: Any) -> Any:
    """Returns dataclasses and mappings as plain nested dicts; tuples stay tuples."""
    if isinstance(settings, Mapping):
        return {key: to_dict(value) for key, value in settings.items()}
    if not dataclasses.is_dataclass(settings) or isinstance(settings, type):
        return settings
    found = {}
    for name, hint in _hints(type(settings)).items():
        value, registry = getattr(settings, name), _note(hint, Registry)
        if registry is not None and _has_names(hint):
            found[name] = {item: registry.to_dict(item, inner) for item, inner in value.items()}
        elif registry is not None:
            found[name] = registry.to_dict(name, value)
        else:
            found |= to_dict(value) if _note(hint, Inline) else {name: to_dict(value)}
    return found


def to_config_dict(settings: Any) -> Any:
    """Returns a dataclass as a ConfigDict that flags can override (typed Any: its keys are set like attributes)."""
    config: Any = ml_collections.ConfigDict(to_dict(settings), convert_dict=True)
    _accept_unions(config, settings)
    return config


def _accept_unions(config: Any, settings: Any) -> None:
    """Lets settings with a union type change their type, which a ConfigDict otherwise takes from the default."""
    if isinstance(settings, Mapping):
        for name in settings:
            _accept_unions(config[name], settings[name])
    elif dataclasses.is_dataclass(settings):
        for name, hint in _hints(type(settings)).items():
            value = getattr(settings, name)
            if isinstance(hint, types.UnionType):
                del config[name]
                config[name] = ml_collections.FieldReference(value, field_type=object)
            else:
                _accept_unions(config if _note(hint, Inline) else config[name], value)


def parse(cls: type[T], config: Any, path: str = "config") -> T:
    """Returns the dataclass `cls` filled from `config`; keys left out keep their defaults.

    Raises:
        ConfigError: a key is unknown (the nearest is named), or a value has the wrong type or is not allowed.
    """
    keys = _keys(cls)
    if not isinstance(config, Mapping | ml_collections.ConfigDict):
        raise ConfigError(f"{path} is {config!r}; expected a group of settings ({', '.join(keys)}).")
    for key in config:
        if key not in keys:
            raise ConfigError(f"{path}.{key} is not a setting.{nearest(key, keys)}")
    values = {}
    for name, hint in _hints(cls).items():
        if _note(hint, Inline):
            inner = typing.get_args(hint)[0]
            values[name] = parse(inner, {key: config[key] for key in _keys(inner) if key in config}, path)
        elif name in config:
            values[name] = _value(hint, config[name], f"{path}.{name}")
    with error_prefix(path):
        return cls(**values)


def nearest(word: str, known: Iterable[str]) -> str:
    """Returns " Did you mean …?" if a known word is similar, followed by the list of all known words."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"{hint} Known here: {', '.join(known)}."


def difference(old: Any, new: Any, path: str = "config") -> list[str]:
    """Returns a line `config.key: old → new` for each setting that differs."""
    old, new = to_dict(old), to_dict(new)
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = [*old, *(key for key in new if key not in old)]
        parts = (difference(old.get(key, "absent"), new.get(key, "absent"), f"{path}.{key}") for key in keys)
        return list(itertools.chain.from_iterable(parts))
    old, new = (list(x) if isinstance(x, tuple) else x for x in (old, new))
    return [] if old == new else [f"{path}: {old!r} → {new!r}"]


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    """The annotations of a schema's fields."""
    hints = typing.get_type_hints(cls, include_extras=True)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls) if f.init}  # pyright: ignore[reportArgumentType]


def _keys(cls: type) -> list[str]:
    """The settings of a group, including those of inline fields."""
    parts = (_keys(typing.get_args(hint)[0]) if _note(hint, Inline) else [name] for name, hint in _hints(cls).items())
    return list(itertools.chain.from_iterable(parts))


def _note(hint: Any, kind: type) -> Any:
    """The metadata of an `Annotated` hint that is the class `kind` or an instance of it; None if there is none."""
    notes = hint.__metadata__ if typing.get_origin(hint) is Annotated else ()
    return next((note for note in notes if note is kind or isinstance(note, kind)), None)


def _has_names(hint: Any) -> bool:
    """Whether an annotation with a registry is a mapping of items by name."""
    return typing.get_origin(typing.get_args(hint)[0]) is Mapping


def _value(hint: Any, value: Any, path: str) -> Any:
    """Checks `value` against the annotation `hint` and returns it, converted if the conversion is lossless."""
    if (registry := _note(hint, Registry)) is not None:
        if not _has_names(hint):
            return registry.parse(path.rpartition(".")[2], value, path)
        return {name: registry.parse(name, item, f"{path}.{name}") for name, item in value.items()}
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return parse(typing.cast(type, hint), value, path)
    if origin is Literal:
        if value not in arguments:
            raise ConfigError(f"{path} is {value!r}; expected one of {', '.join(map(repr, arguments))}.")
        return value
    if isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, Mapping | ml_collections.ConfigDict):
            raise ConfigError(f"{path} is {value!r}; expected a group of settings.")
        return {name: _value(arguments[1], item, f"{path}.{name}") for name, item in value.items()}
    if origin is tuple:
        values = value if isinstance(value, list | tuple) else [value]  # a single value is a tuple of one
        if arguments[-1] is Ellipsis:
            arguments = (arguments[0],) * len(values)
        if len(values) != len(arguments):
            raise ConfigError(f"{path} is {value!r}; expected {len(arguments)} values.")
        return tuple(_value(a, v, f"{path}[{i}]") for i, (a, v) in enumerate(zip(arguments, values, strict=True)))
    if origin in (types.UnionType, typing.Union):
        for alternative in arguments:
            with contextlib.suppress(ConfigError):
                return _value(alternative, value, path)
        raise ConfigError(f"{path} is {value!r}; expected {' or '.join(map(_expected, arguments))}.")
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise ConfigError(f"{path} is {value!r}; expected {getattr(hint, '__name__', hint)}.")
    return value


def _expected(hint: Any) -> str:
    """A type as shown in errors: int, or (int, int)."""
    return f"({', '.join(map(_expected, typing.get_args(hint)))})" if typing.get_args(hint) else hint.__name__


def _imported(reference: str) -> Any:
    module, name = reference.split(":")
    return functools.reduce(getattr, name.split("."), importlib.import_module(module))


def _outside_class(reference: str, base: str, path: str) -> type:
    """Returns the class at an import path; raises ConfigError if it cannot be an item of a registry."""
    which = f"{path} is {reference!r}, which"
    try:
        found = _imported(reference)
    except Exception as error:  # a module may raise anything while it is imported
        advice = "Install its package, or add the folder that holds it to PYTHONPATH."
        raise ConfigError(f"{which} cannot be imported ({type(error).__name__}: {error}). {advice}") from error
    if not isinstance(found, type) or "__dataclass_params__" not in vars(found):
        advice = "Decorate it with @dataclasses.dataclass(frozen=True, kw_only=True)."
        raise ConfigError(f"{which} is not a dataclass. {advice}")
    if base and not issubclass(found, _imported(base)):
        raise ConfigError(f"{which} does not inherit from {base.replace(':', '.')}. Make that its base class.")
    return found
