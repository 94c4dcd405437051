"""Sprites: an endless procedural video set with three independent labels, rendered by a jitted function.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, UInt8

from jepa_jax.data.sprite_drawing import draw_frame
from jepa_jax.data.sprite_scene import CLASSES, REVERSE_MOTION, REVERSE_ORDER, Scene, SpriteSpec, reverse, scene

__all__ = ["CLASSES", "REVERSE_MOTION", "REVERSE_ORDER", "Scene", "SpriteSpec", "draw", "render", "reverse", "scene"]


@functools.partial(jax.jit, static_argnames=("spec", "split"))
def render(
    spec: SpriteSpec, seed: int | Array, split: str, item: Int[Array, "B"]
) -> tuple[UInt8[Array, "B F Y X C"], dict[str, Int[Array, "B"]]]:
    scenes = jax.vmap(lambda i: scene(spec, seed, split, i))(item)
    return draw(spec, scenes), scenes.labels


def draw(spec: SpriteSpec, scenes: Scene) -> UInt8[Array, "B F Y X C"]:
    draw_one = functools.partial(draw_frame, spec.size, spec.difficulty)

    def step(_, now):
        return None, jax.vmap(draw_one)(scenes.look, *now)

    frames = jax.tree.map(lambda a: jnp.moveaxis(a, 1, 0), (scenes.sprite, scenes.distractor, scenes.events))
    _, video = jax.lax.scan(step, None, frames)
    return jnp.moveaxis(video, 0, 1)
