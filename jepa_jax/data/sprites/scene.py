"""State of a sprite clip: labels, path and events. `drawing` turns it into pixels.

Positions and angles are integers in units of 1/65536 of the frame side and of a full turn, added modulo 65536. The
start is uniform over these integers and independent of everything else, so the state at any time is *exactly* uniform
for each motion, not just up to rounding.

A path has `frames` − 3·`duration` positions, one frame each. At one of them, drawn at random, the motion pauses for the
three events, each of `duration` frames. So the frames of an event do not depend on its place in the order, and removing
them leaves the path.
"""

import dataclasses
import functools
import itertools
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jepa_jax.settings import ConfigError

VERSION = 2
"""Version of the dataset, increased whenever pixels or labels change. Results of different versions are not comparable.

1: the sprite moved during events, so that a bag of frames revealed which event was second.
2: the motion pauses during the events.
"""

TURN = 1 << 16  # units of position in a frame side, units of angle in a full turn

DIFFICULTIES = ("easy", "standard")
SPLITS = ("train", "test")
SIZES = {"tiny": (8, 64), "small": (16, 112), "full": (16, 224)}
"""The benchmark's three sizes: frames, and pixels a side."""
SHAPES = ("crescent", "ell", "dart", "lollipop")
TEXTURES = ("stripes", "dots", "rings", "halves")
MOTIONS = (
    "linear",
    "accelerate",
    "decelerate",
    "orbit_ccw",
    "orbit_cw",
    "spin_ccw",
    "spin_cw",
    "zigzag",
    "out_and_back",
    "stop_and_go",
    "turn_left",
    "turn_right",
)
EVENTS = ("invert", "shrink", "brighten")  # the texture swaps its tones, the sprite shrinks, the background brightens
ORDERS = tuple(itertools.permutations(range(len(EVENTS))))

CLASSES: dict[str, tuple[str, ...]] = {
    "appearance": tuple(f"{shape} {texture}" for shape in SHAPES for texture in TEXTURES),
    "motion": MOTIONS,
    "order": tuple(", ".join(EVENTS[event] for event in order) for order in ORDERS),
}
"""Names of the classes of each task; a label is an index into them."""

_REVERSE = {
    "accelerate": "decelerate",
    "orbit_ccw": "orbit_cw",
    "spin_ccw": "spin_cw",
    "turn_left": "turn_right",
}
_REVERSE |= {after: before for before, after in _REVERSE.items()}
REVERSE_MOTION = tuple(MOTIONS.index(_REVERSE.get(name, name)) for name in MOTIONS)
"""For each motion label the label of the same clip played backwards."""
REVERSE_ORDER = tuple(ORDERS.index(order[::-1]) for order in ORDERS)
"""For each order label the label of the same clip played backwards."""

_TRAVEL = 0.3  # frame sides, over half a path at an even pace
_MIN_FRAMES = 4  # three events and a path of one place
_MIN_SIZE = 8


@dataclasses.dataclass(frozen=True)
class SpriteSpec:
    """Frames, size in pixels and difficulty of a sprite dataset. With 8 or more frames all motions are distinguishable.

    `difficulty` "easy" shows one large sprite of fixed size, speed and texture phase on a plain background; "standard"
    varies size, speed, texture phase, a background pattern and brightness, and adds a moving distractor.

    Raises:
        ConfigError: fewer than 4 frames, a size below 8 pixels, or a difficulty that does not exist.
    """

    frames: int = 8
    size: int = 64
    difficulty: str = "easy"

    def __post_init__(self) -> None:
        if self.frames < _MIN_FRAMES:
            raise ConfigError(
                f"sprites: frames is {self.frames}; a clip needs at least {_MIN_FRAMES}: "
                f"one for each of its {len(EVENTS)} events and one without."
            )
        if self.size < _MIN_SIZE:
            raise ConfigError(f"sprites: size is {self.size} pixels; expected at least {_MIN_SIZE}.")
        if self.difficulty not in DIFFICULTIES:
            raise ConfigError(
                f"sprites: difficulty is {self.difficulty!r}; expected {' or '.join(map(repr, DIFFICULTIES))}."
            )


class Pose(NamedTuple):
    """Position and angle in each frame: integers in [0, 65536), see TURN.

    x points right, y down; angles are counter-clockwise on the screen.
    """

    x: Int[Array, "*F"]
    y: Int[Array, "*F"]
    angle: Int[Array, "*F"]


class Look(NamedTuple):
    """The properties that are constant over a clip."""

    appearance: Int[Array, "*B"]  # index into CLASSES["appearance"]
    radius: Float[Array, "*B"]  # of the sprite, in frame sides
    texture_phase: Float[Array, "*B 2"]  # shift of the texture along its axes, in its periods
    brightness: Float[Array, "*B"]  # factor on all colours
    pattern_wave: Float[Array, "*B 2"]  # of the background pattern, in periods a frame side along x and y
    pattern_phase: Float[Array, "*B"]  # in periods
    pattern_contrast: Float[Array, "*B"]  # share of the background colour; 0 is a plain background


class Scene(NamedTuple):
    """Everything that determines the pixels of a clip, and its labels."""

    sprite: Pose
    distractor: Pose
    events: Float[Array, "*F 3"]  # intensity of each of EVENTS in [0, 1]
    look: Look
    labels: dict[str, Int[Array, "*B"]]  # by the keys of CLASSES


def scene(spec: SpriteSpec, seed: int | Array, split: str, item: int | Array) -> Scene:
    """The ground-truth state of one clip, a pure function of its arguments.

    Args:
        spec: frames, size and difficulty.
        seed: seed of the dataset.
        split: "train" or "test", disjoint random streams.
        item: index of the clip in the split, a scalar.

    Raises:
        ConfigError: the split does not exist.
    """
    if split not in SPLITS:
        raise ConfigError(f"sprites: split is {split!r}; expected one of {', '.join(map(repr, SPLITS))}.")
    # The generator is explicit: with another default (rbg), clips would depend on their batch.
    key = jax.random.key(seed, impl="threefry2x32")
    key = jax.random.fold_in(jax.random.fold_in(key, SPLITS.index(split)), item)
    # 3 words choose the labels, 7 the starts, 10 the look, 2 when the events happen.
    words = jax.random.bits(key, (22,), jnp.uint32)
    label_words, start_words, look_words, event_words = jnp.split(words, [3, 10, 20])

    labels = {
        task: (word % len(names)).astype(jnp.int32)
        for word, (task, names) in zip(label_words, CLASSES.items(), strict=True)
    }
    x, y, angle, heading, far_x, far_y, far_heading = (start_words // (2**32 // TURN)).astype(jnp.int32)
    look, speed, far_speed = _look(spec, look_words, labels["appearance"])

    position_F, events_Fx3 = _timetable(spec.frames, event_words, labels["order"])
    paths = _paths(spec.frames - len(EVENTS) * _duration(spec.frames))
    path_Fx3 = jnp.asarray(paths, jnp.float32)[labels["motion"], position_F] * speed
    far_path_Fx3 = jnp.asarray(paths[MOTIONS.index("linear")], jnp.float32)[position_F] * far_speed
    return Scene(
        sprite=_pose(path_Fx3, x, y, angle, heading),
        distractor=_pose(far_path_Fx3, far_x, far_y, jnp.int32(0), far_heading),
        events=events_Fx3,
        look=look,
        labels=labels,
    )


def reverse(forward: Scene) -> Scene:
    """The same clip played backwards, with its labels; frames are the first axis of poses and events."""
    flip = functools.partial(jnp.flip, axis=0)
    sprite, distractor, events = jax.tree.map(flip, (forward.sprite, forward.distractor, forward.events))
    return Scene(sprite, distractor, events, forward.look, reverse_labels(forward.labels))


def reverse_labels(labels: Mapping[str, Int[Array | np.ndarray, "*B"]]) -> dict[str, Int[Array, "*B"]]:
    """The labels, by the keys of CLASSES, of the same clips played backwards."""
    reversals = {"motion": REVERSE_MOTION, "order": REVERSE_ORDER}
    unchanged = {task: jnp.asarray(values) for task, values in labels.items()}
    changed = {task: jnp.asarray(table, jnp.int32)[labels[task]] for task, table in reversals.items()}
    return unchanged | changed


def _look(spec: SpriteSpec, words: Array, appearance: Array) -> tuple[Look, Array, Array]:
    """The look of a clip, and the speeds of sprite and distractor relative to the default."""
    if spec.difficulty == "easy":
        zero, one = jnp.float32(0), jnp.float32(1)
        look = Look(appearance, jnp.float32(0.36), jnp.zeros(2), one, jnp.zeros(2), zero, zero)
        return look, one, zero

    def between(low: float, high: float, uniform: Array) -> Array:
        return low + (high - low) * uniform

    uniform = (words >> 8).astype(jnp.float32) * 2.0**-24
    wave_angle = 2 * jnp.pi * uniform[0]
    wave = between(2.0, 5.0, uniform[1]) * jnp.stack([jnp.cos(wave_angle), jnp.sin(wave_angle)])
    look = Look(
        appearance=appearance,
        radius=between(0.18, 0.28, uniform[2]),
        texture_phase=uniform[3:5],
        brightness=between(0.7, 1.0, uniform[5]),
        pattern_wave=wave,
        pattern_phase=uniform[6],
        pattern_contrast=between(0.2, 0.5, uniform[7]),
    )
    return look, between(0.7, 1.2, uniform[8]), between(0.5, 1.5, uniform[9])


def _pose(path_Fx3: Array, x: Array, y: Array, angle: Array, heading: Array) -> Pose:
    """x_t = x0 + R(heading) d(t), θ_t = θ0 + r(t), modulo the torus and the circle."""
    turn = heading * (2 * jnp.pi / TURN)
    cos, sin = jnp.cos(turn), jnp.sin(turn)
    right_F, up_F, turned_F = jnp.moveaxis(path_Fx3 * TURN, -1, 0)

    def add(start: Array, units_F: Array) -> Array:
        return (start + jnp.round(units_F).astype(jnp.int32)) & (TURN - 1)

    # In paths y points up, on the screen down.
    return Pose(
        x=add(x, cos * right_F - sin * up_F), y=add(y, -(sin * right_F + cos * up_F)), angle=add(angle, turned_F)
    )


@functools.cache
def _paths(positions: int) -> np.ndarray:
    """The path of each motion: right and up in frame sides, counter-clockwise in turns, [12, positions, 3].

    Time runs from −1 to 1. Up to a shift and a rotation, a reversed path is the path of the reverse motion: odd paths
    (linear, zigzag, stop_and_go) are rotated by half a turn, even ones (out_and_back) are unchanged, and the others
    become the opposite motion.
    """
    s = np.linspace(-1.0, 1.0, positions)
    zero = np.zeros(positions)
    skew = 0.45 * (s**2 - 1)  # pace from 0.1 to 1.9 of the even one
    orbit = 0.75 * np.pi * s  # three quarters of a turn, so that start and end differ
    legs = np.abs((1.5 * s + 0.5) % 2 - 1) * 2 - 1  # three straight legs: corners at −1/3 and 1/3, odd in s
    before, after = np.minimum(s, 0), np.maximum(s, 0)
    waiting = np.sign(s) * np.maximum(np.abs(s) - 0.5, 0) * 2
    circle = 2 / (1.5 * np.pi)  # radius of an orbit as long as the linear path
    travel = {
        "linear": (s, zero),
        "accelerate": (s + skew, zero),
        "decelerate": (s - skew, zero),
        "orbit_ccw": (circle * np.cos(orbit), circle * np.sin(orbit)),
        "orbit_cw": (circle * np.cos(orbit), -circle * np.sin(orbit)),
        "spin_ccw": (zero, zero),
        "spin_cw": (zero, zero),
        "zigzag": (0.6 * s, 0.4 * legs),
        "out_and_back": (np.abs(s), zero),
        "stop_and_go": (waiting, zero),
        "turn_left": (before, after),
        "turn_right": (before, -after),
    }
    turned = {"spin_ccw": 0.375 * s, "spin_cw": -0.375 * s}
    paths = [(*(_TRAVEL * axis for axis in travel[name]), turned.get(name, zero)) for name in MOTIONS]
    return np.stack([np.stack(path, -1) for path in paths])


def _duration(frames: int) -> int:
    """Duration of each event in frames."""
    return max(1, frames // 8)


def _timetable(frames: int, words: Array, order: Array) -> tuple[Int[Array, "F"], Float[Array, "F 3"]]:
    """Returns the path position in each frame and the on/off intensities of the three events.

    The events follow each other in the given order while the path pauses at one position. That position is uniform, and
    its own frame is before, between or after the events, in one of four gaps, uniformly. So a timetable and its mirror
    image are equally likely.
    """
    duration = _duration(frames)
    pause = len(EVENTS) * duration  # frames by which the events delay the path
    halt, gap = words[0] % (frames - pause), words[1] % (len(EVENTS) + 1)
    frame_F = jnp.arange(frames)
    halt = halt.astype(jnp.int32)
    position_F = jnp.minimum(frame_F, halt) + jnp.maximum(frame_F - halt - pause, 0)
    slot_3 = jnp.arange(len(EVENTS))
    start_3 = halt + slot_3 * duration + (gap <= slot_3)
    since_Fx3 = frame_F[:, None] - start_3
    on_Fx3 = ((since_Fx3 >= 0) & (since_Fx3 < duration)).astype(jnp.float32)
    slot_of_event = jnp.asarray(np.argsort(ORDERS, axis=1))[order]
    return position_F, on_Fx3[:, slot_of_event]
