"""Sources of clips: folders and CSV files of videos or images, prepared sets, tar shards, sprites, moving discs.

A new kind of source is one module with a subclass of `Source`, and one line in `CLASSES`. A class outside the package
is given by its import path: `kind=my_package.sources:MySource`.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jepa_jax import config
from jepa_jax.data.sources.interface import UNLABELLED, Render, Source
from jepa_jax.data.sources.media_files import Images, Videos, scan_folder
from jepa_jax.data.sources.patterns import NothingLeftError
from jepa_jax.data.sources.procedural import Directions, MovingDiscs, Procedural, Sprites, WrappedDirections
from jepa_jax.data.sources.webdataset import WebDataset
from jepa_jax.settings import ConfigError

__all__ = [
    "CLASSES",
    "UNLABELLED",
    "NothingLeftError",
    "Render",
    "Source",
    "describe",
    "explain_path",
    "kind_of",
    "open_source",
    "open_sources",
    "rendered_versions",
    "scan_folder",
]

CLASSES: Mapping[str, type[Source]] = {
    "sprites": Sprites,
    "directions": Directions,
    "directions_wrapped": WrappedDirections,
    "moving_discs": MovingDiscs,
    "videos": Videos,
    "images": Images,
    "webdataset": WebDataset,
}
"""The values of `SourceConfig.kind`."""


def rendered_versions() -> dict[str, Any]:
    """The version of each rendered set, by its name, as JSON."""
    return {kind.set_name: kind.version() for kind in CLASSES.values() if issubclass(kind, Procedural)}


def kind_of(settings: config.SourceConfig) -> type[Source]:
    """The class of a source, by its `kind`.

    Raises:
        ConfigError: there is no such kind.
    """
    return config.SOURCES.find(settings.kind, "kind")


def open_source(settings: config.SourceConfig, name: str, setting: str | None = None) -> Source:
    """Opens a source: lists its items, decodes none.

    Args:
        settings: the settings of the source.
        name: the source's name in errors and in skipped.jsonl.
        setting: the path of `settings` in the config, for errors; default `config.data.sources.NAME`.

    Raises:
        ConfigError: as `Source.open` of its kind.
    """
    return kind_of(settings).open(settings, name, setting or f"config.data.sources.{name}")


def open_sources(settings: config.DataConfig) -> list[Source | None]:
    """The sources of a run in the order of the config; None for one that is left out (weight 0).

    Raises:
        ConfigError: as `open_source`, or all weights are 0.
    """
    if not any(source.weight > 0 for source in settings.sources.values()):
        raise ConfigError("config.data.sources has no source with a weight above 0; nothing to train on.")
    opened = []
    for name, source in settings.sources.items():
        with explain_path(f"config.data.sources.{name}.path", source.path, settings.root, settings.path):
            opened.append(open_source(source, name) if source.weight else None)
    return opened


@contextlib.contextmanager
def explain_path(setting: str, path: str, root: str, whole: str | None = None) -> Iterator[None]:
    """Adds to an error about a source's path the setting from which a config file derived it, if any.

    Args:
        setting: path of the source's `path` setting in the config.
        path: the value of that setting.
        root: the value of config.data.root, which may be a prefix of `path`.
        whole: the value of config.data.path, which may equal `path`.
    """
    origin = (
        "config.data.path" if path == whole else "config.data.root" if root and path.startswith(f"{root}/") else None
    )
    try:
        yield
    except ConfigError as error:
        if origin is None or not str(error).startswith(setting):
            raise
        raise ConfigError(f"{error} The path comes from --{origin}.") from error


def describe(opened: Sequence[Source | None]) -> str:
    """Describes the sources of a run: `videos (96 videos, weight 0.8), images (5,000 images, weight 0.2)`."""
    used = [source for source in opened if source is not None]
    return ", ".join(f"{s.name} ({s.size:,} {s.noun}, weight {s.settings.weight:g})" for s in used)
