"""Command-line flags that choose the class of an item: `--config.objectives.mine.class=my_pkg.norm:Norm`."""

from collections.abc import Iterator, Mapping
from typing import Any

import ml_collections

from jepa_jax.settings import ConfigError, Registry, registries, to_config_dict

Keys = tuple[str, ...]


def find_registry(schema: type, keys: Keys) -> Registry | None:
    """Returns the registry of the item at `keys`; None if they are not the keys of an item."""
    return next((registry for pattern, registry in registries(schema).items() if _matches(pattern, keys)), None)


def chosen_item(schema: type, setting: str) -> Keys | None:
    """Returns the keys of the item whose class `setting` chooses; None for any other setting.

    Args:
        schema: the schema of the settings.
        setting: its keys joined with dots, such as `objectives.mine.class`.
    """
    *keys, last = setting.split(".")
    registry = find_registry(schema, tuple(keys))
    return tuple(keys) if registry is not None and registry.key == last else None


def missing_class(schema: type, config: ml_collections.ConfigDict, keys: Keys) -> str:
    """Returns a hint if `keys` belong to an item that does not exist; empty otherwise."""
    for end in range(1, len(keys) + 1):
        registry = find_registry(schema, keys[:end])
        if registry is not None and not any(keys[:end] == item for item in _expand(config, keys[:end])):
            name = ".".join(("config", *keys[:end], registry.key))
            return f" To add it, choose its class with --{name}=…"
    return ""


def complete(schema: type, config: ml_collections.ConfigDict, chosen: Mapping[Keys, str]) -> None:
    """Adds the defaults of their classes to all items of registries, in place, so that flags can override them.

    Args:
        schema: the schema of `config`.
        config: settings from a config file.
        chosen: classes of items, by the items' keys. Missing items are added. An item of another class is reset to the
            defaults of the chosen class.

    Raises:
        ConfigError: a class does not exist or cannot be used.
    """
    for pattern, registry in registries(schema).items():
        added = [keys for keys in chosen if _matches(pattern, keys)]
        if added and pattern[0] not in config:
            config[pattern[0]] = to_config_dict(schema())[pattern[0]]
        for keys in dict.fromkeys([*_expand(config, pattern), *added]):
            _complete_item(registry, config, keys, chosen.get(keys))


def _complete_item(registry: Registry, config: ml_collections.ConfigDict, keys: Keys, chosen: str | None) -> None:
    path = ".".join(("config", *keys))
    group: Any = config  # pyright does not know the types of a ConfigDict's values
    *outer, name = keys
    for key in outer:
        group = group.get(key) if isinstance(group, ml_collections.ConfigDict) else None
    if not isinstance(group, ml_collections.ConfigDict):
        raise ConfigError(f"{path} cannot be added: {path.rpartition('.')[0]} is not a group of settings.")
    item: Any = group.get(name, ml_collections.ConfigDict())
    if not isinstance(item, ml_collections.ConfigDict):
        return  # parsing reports this error
    cls = registry.find(chosen, f"{path}.{registry.key}") if chosen else registry.class_of(name, item, path)
    if chosen:
        if name not in group or registry.class_of(name, item, path) is not cls:
            group[name] = item = ml_collections.ConfigDict()
        item[registry.key] = chosen
    _fill(item, to_config_dict(cls()))


def _fill(config: Any, defaults: Any) -> None:
    for key, value in defaults.items():
        if key not in config:
            config[key] = value
        elif isinstance(value, ml_collections.ConfigDict) and isinstance(config[key], ml_collections.ConfigDict):
            _fill(config[key], value)


def _matches(pattern: Keys, keys: Keys) -> bool:
    return len(pattern) == len(keys) and all(part in ("*", key) for part, key in zip(pattern, keys, strict=True))


def _expand(config: Any, pattern: Keys, keys: Keys = ()) -> Iterator[Keys]:
    """Yields the keys that match a pattern."""
    if not pattern:
        yield keys
        return
    if isinstance(config, ml_collections.ConfigDict):
        for key in list(config) if pattern[0] == "*" else [pattern[0]]:
            if key in config:
                yield from _expand(config[key], pattern[1:], (*keys, key))
