"""Selection of items by the `include` and `exclude` patterns of a source."""

import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64

from jepa_jax import config
from jepa_jax.settings import ConfigError


class NothingLeftError(ConfigError):
    """A pattern excludes all files.

    Attributes:
        key: the setting of the source, include or exclude.
        paths: the paths that the pattern was applied to.
    """

    def __init__(self, setting: str, key: str, pattern: str, paths: Sequence[str]):
        """`setting`: path of the pattern in the config."""
        super().__init__(f"{setting}: {pattern!r} leaves none of {len(paths)} files, such as {paths[0]!r}.")
        self.key, self.paths = key, paths


def chosen(paths: Sequence[str], settings: config.SourceConfig, setting: str) -> Int64[np.ndarray, "some"]:
    """Returns the indices of the paths that match `include` and do not match `exclude`.

    Raises:
        ConfigError: a pattern is not a valid regular expression.
        NothingLeftError: no path is left.
    """
    kept = list(range(len(paths)))
    for key, keep in (("include", True), ("exclude", False)):
        pattern = getattr(settings, key)
        if not pattern:
            continue
        try:
            expression = re.compile(pattern)
        except re.error as error:
            raise ConfigError(f"{setting}.{key}: {pattern!r} is not a valid regular expression: {error}.") from error
        left = [i for i in kept if bool(expression.search(paths[i])) is keep]
        if not left:
            raise NothingLeftError(f"{setting}.{key}", key, pattern, [paths[i] for i in kept])
        kept = left
    return np.array(kept, np.int64)
