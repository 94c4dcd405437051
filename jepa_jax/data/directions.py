"""Moving discs: the synthetic motion of arXiv:2605.17165, whose label is one of eight directions.

A plain disc moves at constant velocity over a plain background with grey noise. Each clip is a function of (spec, seed,
split, item) in integer arithmetic, so it has the same bits on every device. The motions:

    clamped   the evaluation clips of the study: a disc in one of eight directions, whose centre stops at the border
    wrapped   the same on a torus: the disc leaves on one side and re-enters on the other
    random    the training clips of the study: integer velocities from −4 to 4 along each axis; stops at the border

In `clamped` the position gives the direction away: a disc that has reached a border rests there. In `wrapped` the
position at any one time is uniform and independent of the direction. An unordered set of frames still shows the line
on which the disc moves, and diagonal speeds are 3·√2 ≈ 4.2 instead of 4 pixels a frame.

Differences from the study: clips are not encoded as H.264, which smooths the noise, softens the edges of discs and
halves the resolution of colour. Radii scale with the size of the frame and equal the study's, 10 to 39 pixels, at
160×160; speeds are in pixels at every size. The study does not describe the blobs that it trained on beyond their
velocity; here they are the discs of the evaluation.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, UInt8

from jepa_jax.config import ClipConfig
from jepa_jax.data import clip_keys
from jepa_jax.settings import ConfigError

VERSION = 1
"""Version of the dataset, increased whenever pixels or labels change. Results of different versions are not comparable.
"""

MOTIONS = ("clamped", "wrapped", "random")
DIRECTIONS = ("N", "NE", "E", "SE", "S", "SW", "W", "NW")
VELOCITIES = ((0, -4), (3, -3), (4, 0), (3, 3), (0, 4), (-3, 3), (-4, 0), (-3, -3))
"""Pixels a frame along x (right) and y (down) in each of DIRECTIONS."""
MAX_SPEED = 4  # of `random` motion along each axis, in pixels a frame

_BACKGROUND = 80  # background colours are 0 … 79 in each channel
_NOISE = 30  # plus 0 … 29, the same in all channels
_DISC = (120, 256)  # colours of discs in each channel
_RADIUS = (16, 4)  # radii are at least 1/16 and less than 1/4 of the frame side
_MIN_SIZE = 16
_GREY = 0x010101  # one in each channel of a packed colour


@dataclasses.dataclass(frozen=True)
class DiscSpec:
    """Frames, side in pixels and motion of a set of moving discs.

    Raises:
        ConfigError: a size below 16 pixels, or a motion that does not exist.
    """

    frames: int = 8
    size: int = 160
    motion: str = "clamped"

    def __post_init__(self) -> None:
        if self.size < _MIN_SIZE:
            raise ConfigError(f"directions: size is {self.size} pixels; expected at least {_MIN_SIZE}.")
        if self.motion not in MOTIONS:
            raise ConfigError(f"directions: motion is {self.motion!r}; expected one of {', '.join(MOTIONS)}.")


class Disc(NamedTuple):
    """What determines the pixels of a clip except for its noise, and its labels. Lengths are in pixels."""

    x: Int[Array, "*F"]  # of the centre, rightwards
    y: Int[Array, "*F"]  # of the centre, downwards
    radius: Int[Array, "*B"]
    colour: Int[Array, "*B"]  # packed: red + 256·green + 65536·blue
    background: Int[Array, "*B"]  # packed
    noise_key: Any  # PRNG key; each frame folds in its number
    labels: dict[str, Int[Array, "*B"]]  # by the keys of `classes(spec.motion)`


def classes(motion: str) -> dict[str, tuple[str, ...]]:
    """Returns the names of the classes of each task; a label is an index into them."""
    if motion == "random":
        speeds = tuple(f"{speed:+d}" for speed in range(-MAX_SPEED, MAX_SPEED + 1))
        return {"velocity_x": speeds, "velocity_y": speeds}
    return {"direction": DIRECTIONS}


def spec_of(clip: ClipConfig, motion: str) -> DiscSpec:
    """Returns the spec for a clip config.

    Raises:
        ConfigError: the clip is not square, or too small.
    """
    return DiscSpec(clip.frames, clip_keys.square_side("directions", "clips", clip), motion)


@functools.partial(jax.jit, static_argnames=("spec", "split"))
def render(
    spec: DiscSpec, seed: int | Int[Array, ""], split: str, item: Int[Array | np.ndarray, "B"]
) -> tuple[UInt8[Array, "B F Y X C"], dict[str, Int[Array, "B"]]]:
    """Renders clips and their labels.

    Args:
        spec: frames, size and motion; static.
        seed: seed of the set; may be traced.
        split: "train" or "test", disjoint random streams; static.
        item: indices of clips in the split, from 0; the split is unlimited, all int32 are valid.

    Returns:
        The video in 0 … 255, and int32 labels by the keys of `classes(spec.motion)`, as indices into its names.

    Raises:
        ConfigError: the split does not exist.
    """
    discs = jax.vmap(lambda one: disc(spec, seed, split, one))(jnp.asarray(item))

    def step(_: None, now: tuple[Array, Array, Array]) -> tuple[None, Array]:
        return None, jax.vmap(functools.partial(_draw_frame, spec), (0, 0, 0, None))(discs, *now)

    # A scan over time, so that working memory is one frame per clip.
    by_time = (discs.x.T, discs.y.T, jnp.arange(spec.frames))
    _, video_FxBxYxXxC = jax.lax.scan(step, None, by_time)
    return jnp.moveaxis(video_FxBxYxXxC, 0, 1), discs.labels


def disc(spec: DiscSpec, seed: int | Array, split: str, item: int | Array) -> Disc:
    """The ground-truth state of one clip, a pure function of its arguments.

    The direction of clip i is i mod 8. Everything else is drawn uniformly: radius, colours, and the centre in the first
    frame, where the whole disc is visible (in `wrapped`, anywhere).

    Args:
        spec: frames, size and motion.
        seed: seed of the set.
        split: "train" or "test", disjoint random streams.
        item: index of the clip in the split, a scalar.

    Raises:
        ConfigError: the split does not exist.
    """
    key = clip_keys.clip_key("directions", seed, split, item)
    look_key, noise_key = jax.random.split(key)
    words = jax.random.bits(look_key, (11,), jnp.uint32)

    def below(word: Array, count: int | Array) -> Array:
        return (word % jnp.asarray(count, jnp.uint32)).astype(jnp.int32)

    smallest, largest = (spec.size // part for part in _RADIUS)
    radius = smallest + below(words[0], largest - smallest)
    velocity_2, labels = _velocity(spec.motion, item, below(words[1:3], 2 * MAX_SPEED + 1))
    border = jnp.int32(0) if spec.motion == "wrapped" else radius
    start_2 = border + below(words[3:5], spec.size - 2 * border)
    centre_Fx2 = start_2 + jnp.arange(spec.frames)[:, None] * velocity_2
    if spec.motion == "wrapped":
        centre_Fx2 = centre_Fx2 % spec.size
    else:
        centre_Fx2 = jnp.clip(centre_Fx2, border, spec.size - 1 - border)
    return Disc(
        x=centre_Fx2[:, 0],
        y=centre_Fx2[:, 1],
        radius=radius,
        colour=_pack(_DISC[0] + below(words[5:8], _DISC[1] - _DISC[0])),
        background=_pack(below(words[8:11], _BACKGROUND)),
        noise_key=noise_key,
        labels=labels,
    )


def _velocity(motion: str, item: int | Array, random_2: Array) -> tuple[Int[Array, "2"], dict[str, Array]]:
    """The velocity of a disc and its labels; `random_2` is uniform in 0 … 2·MAX_SPEED."""
    if motion == "random":
        return random_2 - MAX_SPEED, {"velocity_x": random_2[0], "velocity_y": random_2[1]}
    direction = jnp.asarray(item, jnp.int32) % len(DIRECTIONS)
    return jnp.asarray(VELOCITIES, jnp.int32)[direction], {"direction": direction}


def _draw_frame(spec: DiscSpec, clip: Disc, x: Array, y: Array, time: Array) -> UInt8[Array, "Y X 3"]:
    """Draws one frame of one clip; `x` and `y` are the centre at this time."""
    side_S = jnp.arange(spec.size)
    right_S, down_S = side_S - x, side_S - y
    if spec.motion == "wrapped":
        half = spec.size // 2
        right_S, down_S = ((offset + half) % spec.size - half for offset in (right_S, down_S))
    inside_YxX = right_S**2 + down_S[:, None] ** 2 <= clip.radius**2
    bits_YxX = jax.random.bits(jax.random.fold_in(clip.noise_key, time), (spec.size, spec.size), jnp.uint16)
    noise_YxX = (bits_YxX.astype(jnp.int32) * _NOISE) >> 16
    # Channels are packed into one integer per pixel; no sum exceeds 255, so nothing carries over.
    rgb_YxX = jnp.where(inside_YxX, clip.colour, clip.background + noise_YxX * _GREY)
    return jax.lax.bitcast_convert_type(rgb_YxX, jnp.uint8)[..., :3]


def _pack(rgb_3: Int[Array, "3"]) -> Int[Array, ""]:
    return rgb_3[0] + (rgb_3[1] << 8) + (rgb_3[2] << 16)
