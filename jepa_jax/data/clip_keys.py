"""What rendered sets of clips share: disjoint splits, a random key for each clip, square frames."""

import jax
from jaxtyping import Array

from jepa_jax.config import ClipConfig
from jepa_jax.settings import ConfigError

SPLITS = ("train", "test")


def clip_key(name: str, seed: int | Array, split: str, item: int | Array) -> Array:
    """The key of one clip, a pure function of seed, split and item.

    Args:
        name: of the set, for the error.
        seed: seed of the set.
        split: one of SPLITS, disjoint random streams.
        item: index of the clip in the split, a scalar.

    Raises:
        ConfigError: the split does not exist.
    """
    if split not in SPLITS:
        raise ConfigError(f"{name}: split is {split!r}; expected one of {', '.join(map(repr, SPLITS))}.")
    # The generator is explicit: with another default (rbg), clips would depend on their batch.
    key = jax.random.key(seed, impl="threefry2x32")
    return jax.random.fold_in(jax.random.fold_in(key, SPLITS.index(split)), item)


def square_side(name: str, what: str, clip: ClipConfig) -> int:
    """The side of square frames in pixels.

    Args:
        name: of the set, for the error.
        what: what is square, for the error.
        clip: shape of the clips.

    Raises:
        ConfigError: the frames are not square.
    """
    if not isinstance(clip.size, int):
        raise ConfigError(
            f"{name}: size is {clip.size}, but {what} are square; use one number, such as size={clip.height}."
        )
    return clip.size
