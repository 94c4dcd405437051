"""State of a sprite clip: labels, path and events. `drawing` turns it into pixels.

Positions are whole pixels, added modulo the size. The start is uniform over all pixels and independent of everything
else, so the position at any time is exactly uniform for each motion.

A path has one frame for each position. At one of them, drawn at random, the motion pauses for the three events, each of
`duration` frames, between two frames with a plain background. So neither the frames of an event nor the changes from
frame to frame depend on its place in the order, and removing the events leaves the path.
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

from jepa_jax.data import clip_keys
from jepa_jax.data.sprites.glyphs import GLYPHS, SIDE
from jepa_jax.settings import ConfigError

VERSION = 3
"""Version of the dataset, increased whenever pixels or labels change. Results of different versions are not comparable.

1: the sprite moved during events, so that a bag of frames revealed which event was second.
2: the motion pauses during the events; mean colours of frames revealed appearance and order.
3: glyphs of equal statistics, whose cells become stripes in the events; eight motions.
"""

DIFFICULTIES = ("easy", "standard")
SIZES = {"tiny": (8, 32), "small": (16, 112), "full": (16, 224)}
"""The benchmark's three sizes: frames, and pixels a side."""
DIRECTIONS = {"right": (1, 0), "up": (0, -1), "left": (-1, 0), "down": (0, 1)}  # x right, y down
PACES = ("accelerate", "decelerate")
MOTIONS = tuple(itertools.product(DIRECTIONS, PACES))
EVENTS = ("rows", "columns", "checks")  # what the cells of the glyph become
ORDERS = tuple(itertools.permutations(range(len(EVENTS))))

CLASSES: dict[str, tuple[str, ...]] = {
    "appearance": tuple(GLYPHS),
    "motion": tuple(f"{direction} {pace}" for direction, pace in MOTIONS),
    "order": tuple(", ".join(EVENTS[event] for event in order) for order in ORDERS),
}
"""Names of the classes of each task; a label is an index into them."""

_OPPOSITE = {"right": "left", "left": "right", "up": "down", "down": "up"}
_OPPOSITE |= {"accelerate": "decelerate", "decelerate": "accelerate"}
REVERSE_MOTION = tuple(MOTIONS.index((_OPPOSITE[direction], _OPPOSITE[pace])) for direction, pace in MOTIONS)
"""For each motion label the label of the same clip played backwards."""
REVERSE_ORDER = tuple(ORDERS.index(order[::-1]) for order in ORDERS)
"""For each order label the label of the same clip played backwards."""

_MIDDLE, _CONTRAST = (112, 124, 140), (72, 64, 40)  # of easy clips, up to 3 more in each channel
_MIN_FRAMES = 4  # three events and a frame without
_UNITS = 16  # the frame side is a multiple of this many pixels
_GLYPHS_IN_FRAME = {"easy": 1, "standard": 2}  # sides of a glyph in a frame side


@dataclasses.dataclass(frozen=True)
class SpriteSpec:
    """Frames, size in pixels and difficulty of a sprite dataset. With 7 or more frames all motions are distinguishable.

    In "easy" clips the glyph covers the whole torus, its positions are multiples of half a cell, and all clips have
    almost the same colours. In "standard" clips it is half as long, its position is any pixel, colours and contrasts
    vary, and the background has a pattern and a moving distractor.

    Raises:
        ConfigError: fewer than 4 frames, a size that is not a multiple of 16 pixels, or a difficulty that does not
            exist.
    """

    frames: int = 8
    size: int = 32
    difficulty: str = "easy"

    def __post_init__(self) -> None:
        if self.frames < _MIN_FRAMES:
            raise ConfigError(
                f"sprites: frames is {self.frames}; a clip needs at least {_MIN_FRAMES}: "
                f"one for each of its {len(EVENTS)} events and one without."
            )
        if self.size < _UNITS or self.size % _UNITS:
            nearest = max(_UNITS, (self.size + _UNITS // 2) // _UNITS * _UNITS)
            raise ConfigError(
                f"sprites: size is {self.size} pixels; expected a multiple of {_UNITS}, such as {nearest}."
            )
        if self.difficulty not in DIFFICULTIES:
            raise ConfigError(
                f"sprites: difficulty is {self.difficulty!r}; expected {' or '.join(map(repr, DIFFICULTIES))}."
            )

    @property
    def half_cell(self) -> int:
        """Half the side of a glyph's cell in pixels: the shorter step, and the width of stripes."""
        return self.size // (2 * SIDE * _GLYPHS_IN_FRAME[self.difficulty])


class Position(NamedTuple):
    """Position in each frame: a corner of pixels, integers in [0, size); x points right, y down."""

    x: Int[Array, "*F"]
    y: Int[Array, "*F"]


class Look(NamedTuple):
    """The properties that are constant over a clip; all are integers."""

    appearance: Int[Array, "*B"]  # index into CLASSES["appearance"]
    middle: Int[Array, "*B 3"]  # colour of the background, midway between the glyph's two
    contrast: Int[Array, "*B 3"]  # difference of each of the glyph's colours from it
    stripes: Int[Array, "*B 3 2"]  # phase of the stripes of each event along x and y, in pixels
    wave: Int[Array, "*B 2"]  # of the background pattern, in 1/65536 periods a frame side along x and y
    phase: Int[Array, "*B"]  # of the pattern, in 1/65536 periods
    pattern: Int[Array, "*B"]  # amplitude of the pattern, in grey levels; 0 is a plain background


class Scene(NamedTuple):
    """Everything that determines the pixels of a clip, and its labels."""

    sprite: Position
    distractor: Position
    event: Int[Array, "*F"]  # 1 + the index into EVENTS of the event of each frame; 0 without one
    look: Look
    labels: dict[str, Int[Array, "*B"]]  # by the keys of CLASSES


PERIOD = 1 << 16  # units in a period of the background pattern


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
    key = clip_keys.clip_key("sprites", seed, split, item)
    # 3 words choose the labels, 6 the starts and the distractor's motion, 16 the look, 1 when the events happen.
    words = jax.random.bits(key, (26,), jnp.uint32)
    label_words, start_words, look_words, event_words = jnp.split(words, [3, 9, 25])

    labels = {task: _below(word, len(names)) for word, (task, names) in zip(label_words, CLASSES.items(), strict=True)}
    look = _look(spec, look_words, labels["appearance"])
    position_F, event_F = _timetable(spec.frames, event_words[0], labels["order"])
    path_FxXY = jnp.asarray(_paths(_positions(spec.frames)))[labels["motion"], position_F] * spec.half_cell
    *starts, far_direction, far_step = start_words
    lattice = spec.half_cell if spec.difficulty == "easy" else 1
    x, y = (_below(word, spec.size // lattice) * lattice for word in starts[:2])
    far_x, far_y = (_below(word, spec.size) for word in starts[2:])
    far_heading = jnp.asarray(list(DIRECTIONS.values()), jnp.int32)[_below(far_direction, len(DIRECTIONS))]
    far_step = 1 + _below(far_step, spec.size // 8)
    far_FxXY = position_F[:, None] * far_step * far_heading

    def moved(x: Array, y: Array, path_FxXY: Array) -> Position:
        return Position((x + path_FxXY[:, 0]) % spec.size, (y + path_FxXY[:, 1]) % spec.size)

    return Scene(moved(x, y, path_FxXY), moved(far_x, far_y, far_FxXY), event_F, look, labels)


def reverse(forward: Scene) -> Scene:
    """The same clip played backwards, with its labels; frames are the first axis of positions and events."""
    flip = functools.partial(jnp.flip, axis=0)
    sprite, distractor, event = jax.tree.map(flip, (forward.sprite, forward.distractor, forward.event))
    return Scene(sprite, distractor, event, forward.look, reverse_labels(forward.labels))


def reverse_labels(labels: Mapping[str, Int[Array | np.ndarray, "*B"]]) -> dict[str, Int[Array, "*B"]]:
    """The labels, by the keys of CLASSES, of the same clips played backwards."""
    reversals = {"motion": REVERSE_MOTION, "order": REVERSE_ORDER}
    unchanged = {task: jnp.asarray(values) for task, values in labels.items()}
    changed = {task: jnp.asarray(table, jnp.int32)[labels[task]] for task, table in reversals.items()}
    return unchanged | changed


def velocity(spec: SpriteSpec, sprite: Position) -> Float[Array, "F XY"]:
    """Velocity of the glyph in each frame, in frame sides per frame; x points right, y down.

    It is the mean of the steps before and after a frame; the first and the last frame have one step only. Played
    backwards, each frame has the opposite velocity.
    """
    steps = [(jnp.diff(values) + spec.size // 2) % spec.size - spec.size // 2 for values in sprite]
    steps_FxXY = jnp.stack(steps, axis=-1) / spec.size
    before, after = steps_FxXY[jnp.r_[0, : spec.frames - 1]], steps_FxXY[jnp.r_[: spec.frames - 1, -1]]
    return (before + after) / 2


def _below(word: Array, count: int) -> Array:
    """A random integer in [0, count)."""
    return (word % count).astype(jnp.int32)


def _look(spec: SpriteSpec, words: Array, appearance: Array) -> Look:
    stripes = _below(words[10:], 2 * spec.half_cell).reshape(len(EVENTS), 2)
    if spec.difficulty == "easy":
        middle = jnp.stack([base + _below(word, 4) for base, word in zip(_MIDDLE, words[:3], strict=True)])
        contrast = jnp.stack([base + _below(word, 4) for base, word in zip(_CONTRAST, words[3:6], strict=True)])
        zero = jnp.int32(0)
        return Look(appearance, middle, contrast, stripes, jnp.zeros(2, jnp.int32), zero, zero)
    return Look(
        appearance=appearance,
        middle=jnp.stack([96 + _below(word, 65) for word in words[:3]]),
        contrast=jnp.stack([32 + _below(word, 33) for word in words[3:6]]),
        stripes=stripes,
        wave=jnp.stack([_below(word, 8 * PERIOD) for word in words[6:8]]) - 4 * PERIOD,
        phase=_below(words[8], PERIOD),
        pattern=4 + _below(words[9], 13),
    )


def _duration(frames: int) -> int:
    """Duration of each event in frames."""
    return max(1, frames // 8)


def _positions(frames: int) -> int:
    """Number of positions of a path; one of them is shown in a second frame, after the events."""
    return max(1, frames - len(EVENTS) * _duration(frames) - 1)


@functools.cache
def _paths(positions: int) -> np.ndarray:
    """The path of each motion, x and y in half cells, [8, positions, 2].

    Steps are half a cell or a cell. A path played backwards is the path of the reverse motion.
    """
    steps = positions - 1
    slow_first = np.where(np.arange(steps) < steps - steps // 2, 1, 2)
    paces = {"accelerate": slow_first, "decelerate": slow_first[::-1]}
    distance = {pace: np.concatenate([[0], np.cumsum(steps)]) for pace, steps in paces.items()}
    paths = [np.outer(distance[pace], DIRECTIONS[direction]) for direction, pace in MOTIONS]
    return np.stack(paths).astype(np.int32)


def _timetable(frames: int, word: Array, order: Array) -> tuple[Int[Array, "F"], Int[Array, "F"]]:
    """Returns the path position and the event of each frame.

    The events follow each other in the given order while the path pauses at one position, uniformly drawn, between two
    frames without an event. Clips of 4 frames have only one such frame, the first or the last. So a timetable and its
    mirror image are equally likely.
    """
    duration, positions = _duration(frames), _positions(frames)
    pause = frames - positions  # frames by which the events delay the path
    halt = _below(word, positions)
    start = _below(word, 2) if frames == _MIN_FRAMES else halt + 1
    frame_F = jnp.arange(frames)
    position_F = jnp.minimum(frame_F, halt) + jnp.maximum(frame_F - halt - pause, 0)
    slot_F = (frame_F - start) // duration
    during_F = (slot_F >= 0) & (slot_F < len(EVENTS))
    event_F = jnp.asarray(ORDERS, jnp.int32)[order, jnp.clip(slot_F, 0, len(EVENTS) - 1)] + 1
    return position_F, jnp.where(during_F, event_F, 0)
