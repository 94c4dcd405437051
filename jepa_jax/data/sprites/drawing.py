"""Draws one frame of a sprite clip from its state, independent of time.

Integer arithmetic on whole images, without gathers: it vectorises on every backend and gives the same bits on each.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, UInt8

from jepa_jax.data.sprites.glyphs import CELLS, GLYPHS, SIDE
from jepa_jax.data.sprites.scene import PERIOD, Look, Position

_DISTRACTOR_RADII = 14  # radii of the distractor in a frame side
# Bit 4·row + column is 1 where the glyph is light.
_BITS = np.array(
    [sum(1 << i for i, cell in enumerate("".join(rows)) if cell == "#") for rows in GLYPHS.values()], np.int32
)


def draw_frame(
    size: int,
    difficulty: str,
    look: Look,
    sprite: Position,
    distractor: Position,
    event: Int[Array, ""],
) -> UInt8[Array, "Y X 3"]:
    """Draws one frame of one clip; `sprite`, `distractor` and `event` are at one time, without the F axis."""
    inside_YxX, light_YxX = _glyph(size, look, sprite)
    stripes_YxX = _stripes(size, look, event)
    colours = zip(look.middle, look.contrast, strict=True)
    background = [middle + stripes_YxX * (contrast // 2) for middle, contrast in colours]
    if difficulty == "standard":
        pattern_YxX, far_YxX = _pattern(size, look), _disc(size, distractor)
        dark = look.middle - look.contrast
        background = [jnp.where(far_YxX, dark[i], back_YxX + pattern_YxX) for i, back_YxX in enumerate(background)]
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


def _glyph(size: int, look: Look, sprite: Position) -> tuple[Bool[Array, "Y X"], Bool[Array, "Y X"]]:
    """Where the glyph is, and where it is light."""
    column_X, row_Y = (offset // (size // CELLS) + SIDE // 2 for offset in _offsets(size, sprite))
    inside_YxX = ((column_X >= 0) & (column_X < SIDE)) & ((row_Y >= 0) & (row_Y < SIDE))[:, None]
    cell_YxX = jnp.clip(column_X, 0, SIDE - 1) + SIDE * jnp.clip(row_Y, 0, SIDE - 1)[:, None]
    return inside_YxX, (jnp.asarray(_BITS)[look.appearance] >> cell_YxX) & 1 == 1


def _stripes(size: int, look: Look, event: Int[Array, ""]) -> Int[Array, "Y X"]:
    """1 and −1 on the stripes of an event; 0 without one.

    Their period is the side of the glyph, half of the frame's, so that the glyph hides as many light as dark pixels of
    any stripes, and any two kinds of stripes differ in half of the rest.
    """
    period = size // 2
    x_X, y_Y = jnp.arange(size), jnp.arange(size)[:, None]
    vertical, diagonal, horizontal = (
        jnp.where((along + phase) % period < period // 2, 1, -1)
        for along, phase in zip((x_X, x_X + y_Y, y_Y), look.stripes, strict=True)
    )
    kinds = (jnp.zeros((size, size), jnp.int32), vertical, diagonal, horizontal)
    return jax.lax.select_n(event, *(jnp.broadcast_to(kind, (size, size)) for kind in kinds))


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
