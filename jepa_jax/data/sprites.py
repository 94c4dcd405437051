"""Sprites: a procedural video set with three independent labels, which needs no download and never ends.

A textured sprite moves over a background that has no edges (what leaves on one side comes in on the other). At one
place of its path everything stands still while three brief events happen, then it moves on. Each clip is a function of
(spec, seed, split, item), rendered by JAX on any device, in a batch of its own or inside a jitted training step. The
labels, uniform and independent:

    appearance  16  shape × texture: one frame shows it
    motion      12  the programme of the sprite's path or turning: the differences between frames show it
    order        6  in which order the texture inverts, the sprite shrinks and the background brightens

What the construction makes certain:

- One frame says nothing about motion. At any time the sprite's position and angle are uniform and independent of all
  labels, exactly, in the integers they are drawn in; and each frame is drawn from the state at its own time alone.
- Frames without their times say nothing about order. Of a clip with its events in another order and all else the same,
  the frames are the same frames, bit by bit, at other times: no function of a bag of frames tells orders apart.
- A clip played backwards is a clip of the set, just as likely, with the labels that REVERSE_MOTION and REVERSE_ORDER
  name (up to a unit of rounding in the path, 1/65536 of the frame). Reversing its state reverses the video bit by bit.
  So no function of the frames without their times tells accelerate from decelerate, or the two ways round of orbit,
  spin and turn from each other.

What it does not: frames without their times are not blind to motion otherwise, since their positions lie along the
path. One frame *whose time is known* is not blind to order: an event seen early is likely the first. With fewer than
8 frames a path has too few places to tell all motions apart. Pixels may differ by a level between kinds of device, as
floating-point arithmetic does.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, UInt8

from jepa_jax.data.sprite_drawing import draw_frame
from jepa_jax.data.sprite_scene import (
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
]


@functools.partial(jax.jit, static_argnames=("spec", "split"))
def render(
    spec: SpriteSpec, seed: int | Int[Array, ""], split: str, item: Int[Array | np.ndarray, "B"]
) -> tuple[UInt8[Array, "B F Y X C"], dict[str, Int[Array, "B"]]]:
    """The clips `item` of a set and their labels.

    Args:
        spec: form of the set; static.
        seed: chooses the set; may be traced.
        split: "train" or "test", disjoint random streams; static.
        item: indices of clips in the split, from 0; any number of them, all int32 are valid.

    Returns:
        The video in 0 … 255, and int32 labels by the keys of CLASSES, each an index into the names given there.

    Raises:
        ConfigError: a split that does not exist.
    """
    scenes = jax.vmap(lambda one: scene(spec, seed, split, one))(jnp.asarray(item))
    return draw(spec, scenes), scenes.labels


def draw(spec: SpriteSpec, scenes: Scene) -> UInt8[Array, "B F Y X C"]:
    """The pixels of a batch of scenes (see `scene`; arrays have the batch as their first axis)."""
    draw_batch = jax.vmap(functools.partial(draw_frame, spec.size, spec.difficulty))

    # One time step after the other: working memory is that of one frame a clip, a batch split over devices stays
    # split, and all frames go through the same machine code, so that equal states give equal bits.
    def step(_: None, now: tuple) -> tuple[None, Array]:
        return None, draw_batch(scenes.look, *now)

    by_time = jax.tree.map(lambda a: jnp.moveaxis(a, 1, 0), (scenes.sprite, scenes.distractor, scenes.events))
    _, video_FxBxYxXxC = jax.lax.scan(step, None, by_time)
    return jnp.moveaxis(video_FxBxYxXxC, 0, 1)
