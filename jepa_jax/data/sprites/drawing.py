"""Draws one frame of a sprite clip from its state, independent of time.

Integer arithmetic on whole images, without gathers: it vectorises on every backend and gives the same bits on each.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, UInt8

from jepa_jax.data.sprites.glyphs import GLYPHS, SIDE
from jepa_jax.data.sprites.scene import PERIOD, Look, Position, SpriteSpec

_DISTRACTOR_RADII = 14  # radii of the distractor in a frame side
# Bit 4·row + column is 1 where the glyph is light.
_BITS = np.array(
    [sum(1 << i for i, cell in enumerate("".join(rows)) if cell == "#") for rows in GLYPHS.values()], np.int32
)


def draw_frame(
    spec: SpriteSpec,
    look: Look,
    sprite: Position,
    distractor: Position,
    event: Int[Array, ""],
) -> UInt8[Array, "Y X 3"]:
    """Draws one frame of one clip; `sprite`, `distractor` and `event` are at one time, without the F axis."""
    inside_YxX, light_YxX = _glyph(spec, look, sprite, event)
    background = list(look.middle)
    if spec.difficulty == "standard":
        pattern_YxX, far_YxX = _pattern(spec.size, look), _disc(spec.size, distractor)
        background = [
            jnp.where(far_YxX, middle - contrast, middle + pattern_YxX)
            for middle, contrast in zip(look.middle, look.contrast, strict=True)
        ]
    red, green, blue = (
        jnp.where(inside_YxX, jnp.where(light_YxX, middle + contrast, middle - contrast), back_YxX)
        for middle, contrast, back_YxX in zip(look.middle, look.contrast, background, strict=True)
    )
    # Packed into one integer per pixel: with channels innermost, XLA would compute all of the above per channel, in
    # loops of three (measured on a CPU: 25 times slower).
    rgb_YxXx4 = jax.lax.bitcast_convert_type(red + (green << 8) + (blue << 16), jnp.uint8)
    return rgb_YxXx4[..., :3]


def _offsets(size: int, position: Position) -> tuple[Int[Array, "X"], Int[Array, "Y"]]:
    """x and y of each pixel relative to the nearest copy of a position; 0 is right of or below it, −1 left or above."""
    x_X, y_Y = ((jnp.arange(size) - start + size // 2) % size - size // 2 for start in position)
    return x_X, y_Y


def _glyph(
    spec: SpriteSpec, look: Look, sprite: Position, event: Int[Array, ""]
) -> tuple[Bool[Array, "Y X"], Bool[Array, "Y X"]]:
    """Where the glyph is, and where it is light.

    In an event it shows stripes: light and dark rows of half a cell, columns, or the checks of both. So half of it is
    light, and any two of the glyph and the three events differ in half of the pixels, whatever the phases.
    """
    column_X, row_Y = (offset // (2 * spec.half_cell) + SIDE // 2 for offset in _offsets(spec.size, sprite))
    inside_YxX = ((column_X >= 0) & (column_X < SIDE)) & ((row_Y >= 0) & (row_Y < SIDE))[:, None]
    cell_YxX = jnp.clip(column_X, 0, SIDE - 1) + SIDE * jnp.clip(row_Y, 0, SIDE - 1)[:, None]
    glyph_YxX = (jnp.asarray(_BITS)[look.appearance] >> cell_YxX) & 1 == 1
    phase_x, phase_y = look.stripes[jnp.maximum(event - 1, 0)]
    x_X, y_Y = jnp.arange(spec.size) + phase_x, jnp.arange(spec.size)[:, None] + phase_y
    rows_YxX, columns_YxX = (
        jnp.broadcast_to(along // spec.half_cell % 2 == 0, glyph_YxX.shape) for along in (y_Y, x_X)
    )
    return inside_YxX, jax.lax.select_n(event, glyph_YxX, rows_YxX, columns_YxX, rows_YxX == columns_YxX)


def _disc(size: int, centre: Position) -> Bool[Array, "Y X"]:
    """Where the distractor is."""
    radius = max(size // _DISTRACTOR_RADII, 1)
    twice_x_X, twice_y_Y = (2 * offset + 1 for offset in _offsets(size, centre))  # of pixel centres
    return twice_x_X**2 + (twice_y_Y**2)[:, None] <= 4 * radius**2


def _pattern(size: int, look: Look) -> Int[Array, "Y X"]:
    """A fixed grating, a triangle wave in −`look.pattern` … `look.pattern` grey levels."""
    x_S, y_S = (wave * jnp.arange(size) // size for wave in look.wave)
    ramp_YxX = jnp.abs((look.phase + x_S + y_S[:, None]) % PERIOD - PERIOD // 2)
    return ramp_YxX * look.pattern // (PERIOD // 4) - look.pattern
