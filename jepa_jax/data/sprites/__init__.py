"""Sprites: an unlimited procedural video dataset with three independent labels and no download.

A glyph, a 4×4 texture of light and dark cells, moves over a torus (it leaves on one side and re-enters on the other).
At one point of its path the motion pauses for three brief events, in which the glyph becomes stripes of random phase. A
clip is a function of (spec, seed, split, item), rendered by JAX on any device, as a separate batch or inside a jitted
training step. The labels are uniform and independent:

    appearance   8  the glyph, a turn or mirror image of one texture: visible in a single frame
    motion       8  a direction, and whether steps grow or shrink: visible in differences between frames
    order        6  the order of the stripes: rows, columns, checks

Properties guaranteed by construction:

- A single frame carries no information about motion. At any time the glyph's position is exactly uniform and
  independent of all labels, and each frame is drawn from the state at its own time only.
- An unordered set of frames carries no information about order. Two clips that differ only in the order of events have
  the same frames, bit for bit, at other times, so no function of a bag of frames can distinguish orders.
- A clip played backwards is an equally likely clip of the dataset, with the labels REVERSE_MOTION and REVERSE_ORDER.
  Reversing its state reverses the video bit for bit. So no function of a bag of frames can distinguish a motion from
  its reverse, such as "right accelerate" from "left decelerate".
- Colours carry no information: half of the glyph's pixels are light and half are dark in every frame, with or without
  stripes, so all frames of an `easy` clip have the same histogram.
- The energy of the changes in an `easy` clip tells steps of half a cell from longer ones and from events, that is an
  accelerating motion from a decelerating one, and nothing else: neither the glyph, nor its direction, nor which event
  follows which (see `glyphs`).

In `standard` clips the glyph hides parts of a pattern and of a distractor, so that these statistics vary, but hardly
with the labels (see docs/sprites.md).

Limitations: a bag of frames does carry information about motion, since its positions trace the path: at best it tells
four pairs of motions apart. A single frame with *known time* carries information about order: an event seen early is
probably the first. With fewer than 7 frames a path has too few positions to distinguish all motions.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from jepa_jax.config import ClipConfig
from jepa_jax.data import clip_keys
from jepa_jax.data.sprites.drawing import draw_frame
from jepa_jax.data.sprites.scene import (
    CLASSES,
    REVERSE_MOTION,
    REVERSE_ORDER,
    SIZES,
    VERSION,
    Scene,
    SpriteSpec,
    reverse,
    reverse_labels,
    scene,
    velocity,
)

__all__ = [
    "CLASSES",
    "REVERSE_MOTION",
    "REVERSE_ORDER",
    "SIZES",
    "VERSION",
    "Scene",
    "SpriteSpec",
    "draw",
    "render",
    "reverse",
    "reverse_labels",
    "scene",
    "spec_of",
    "velocities",
]


def spec_of(clip: ClipConfig, difficulty: str) -> SpriteSpec:
    """Returns the sprite spec for a clip config.

    Raises:
        ConfigError: the clip is not square, or its size or number of frames is not one of sprites.
    """
    return SpriteSpec(clip.frames, clip_keys.square_side("sprites", "sprites", clip), difficulty)


@functools.partial(jax.jit, static_argnames=("spec", "split"))
def render(
    spec: SpriteSpec, seed: int | Int[Array, ""], split: str, item: Int[Array | np.ndarray, "B"]
) -> tuple[UInt8[Array, "B F Y X C"], dict[str, Int[Array, "B"]]]:
    """Renders clips of a sprite dataset and their labels.

    Args:
        spec: frames, size and difficulty; static.
        seed: seed of the dataset; may be traced.
        split: "train" or "test", disjoint random streams; static.
        item: indices of clips in the split, from 0; the split is unlimited, all int32 are valid.

    Returns:
        The video in 0 … 255, and int32 labels by the keys of CLASSES, as indices into its names.

    Raises:
        ConfigError: the split does not exist.
    """
    scenes = jax.vmap(lambda one: scene(spec, seed, split, one))(jnp.asarray(item))
    return draw(spec, scenes), scenes.labels


@functools.partial(jax.jit, static_argnames=("spec", "split"))
def velocities(
    spec: SpriteSpec, seed: int | Int[Array, ""], split: str, item: Int[Array | np.ndarray, "B"]
) -> Float[Array, "B F XY"]:
    """Returns the velocity in each frame of the clips that `render` draws, in frame sides per frame; y points down."""
    return jax.vmap(lambda one: velocity(spec, scene(spec, seed, split, one).sprite))(jnp.asarray(item))


def draw(spec: SpriteSpec, scenes: Scene) -> UInt8[Array, "B F Y X C"]:
    """Draws a batch of scenes (see `scene`; the first axis of all arrays is the batch)."""
    draw_batch = jax.vmap(functools.partial(draw_frame, spec))

    # A scan over time: working memory is one frame per clip, a batch sharded over devices stays sharded, and all frames
    # are drawn by the same machine code, so that equal states give equal bits.
    def step(_: None, now: tuple) -> tuple[None, Array]:
        return None, draw_batch(scenes.look, *now)

    by_time = jax.tree.map(lambda a: jnp.moveaxis(a, 1, 0), (scenes.sprite, scenes.distractor, scenes.event))
    _, video_FxBxYxXxC = jax.lax.scan(step, None, by_time)
    return jnp.moveaxis(video_FxBxYxXxC, 0, 1)
