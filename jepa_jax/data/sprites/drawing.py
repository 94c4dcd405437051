"""Draws one frame of a sprite clip from its state, independent of time.

Distances are signed, in sprite radii, positive inside; edges are one pixel soft. Plain arithmetic on whole images (no
gathers, no trigonometry of pixels), so it vectorises on every backend.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from jepa_jax.data.sprites.scene import TEXTURES, TURN, Look, Pose

# The same in every clip, so that colour carries no label information. Each event shifts the mean colour differently.
_LIGHT, _DARK = (250.0, 225.0, 80.0), (190.0, 30.0, 60.0)
_BACKGROUND, _BACKGROUND_BRIGHT = (45.0, 55.0, 90.0), (150.0, 165.0, 200.0)
_DISTRACTOR = (110.0, 150.0, 60.0)

_SHRUNK = 0.55  # of the radius
_DISTRACTOR_RADIUS = 0.07  # in frame sides
_TEXTURE_PERIODS = 2.0  # in a sprite radius


def draw_frame(
    size: int,
    difficulty: str,
    look: Look,
    sprite: Pose,
    distractor: Pose,
    events: Float[Array, "3"],
) -> UInt8[Array, "Y X 3"]:
    """Draws one frame of one clip; `sprite`, `distractor` and `events` are at one time, without the F axis."""
    invert, shrink, brighten = events
    background = [low + brighten * (high - low) for low, high in zip(_BACKGROUND, _BACKGROUND_BRIGHT, strict=True)]
    if difficulty == "standard":
        level_YxX = 1 + look.pattern_contrast * _pattern(size, look)
        far_x_YxX, far_y_YxX = _offsets(size, *distractor)
        distance_YxX = _DISTRACTOR_RADIUS - jnp.hypot(far_x_YxX, far_y_YxX)
        far_YxX = _soft(distance_YxX * size)
        background = [_mix(level_YxX * c, far, far_YxX) for c, far in zip(background, _DISTRACTOR, strict=True)]

    radius = look.radius * (1 - (1 - _SHRUNK) * shrink)
    u_YxX, v_YxX = (offset / radius for offset in _offsets(size, *sprite))
    shape, texture = jnp.divmod(look.appearance, len(TEXTURES))
    inside_YxX = _soft(_shape(shape, u_YxX, v_YxX) * (radius * size))
    light_YxX = _soft(_texture(texture, u_YxX, v_YxX, look.texture_phase) * (radius * size))
    light_YxX = _mix(light_YxX, 1 - light_YxX, invert)

    channels = [
        _mix(back, _mix(dark, light, light_YxX), inside_YxX)
        for back, dark, light in zip(background, _DARK, _LIGHT, strict=True)
    ]
    red, green, blue = (jnp.clip(c * look.brightness + 0.5, 0, 255).astype(jnp.int32) for c in channels)
    # Packed into one integer per pixel: with channels innermost, XLA would compute all of the above per channel, in
    # loops of three (measured on a CPU: 25 times slower).
    rgb_YxXx4 = jax.lax.bitcast_convert_type(red + (green << 8) + (blue << 16), jnp.uint8)
    return rgb_YxXx4[..., :3]


def _mix(there: Array | float, here: Array | float, share: Array) -> Array:
    return there + share * (here - there)


def _soft(distance_in_pixels: Array) -> Array:
    """Antialiased edge: from 0 outside to 1 inside over one pixel."""
    return jnp.clip(distance_in_pixels + 0.5, 0, 1)


def _wave(periods: Array) -> Array:
    """A triangle wave of period 1: 0.5 at whole numbers, 0 halfway between them."""
    return jnp.abs(periods - jnp.floor(periods) - 0.5)


def _centres(size: int) -> np.ndarray:
    """Pixel centres in units of the torus."""
    return ((2 * np.arange(size) + 1) * (TURN // 2) // size).astype(np.int32)


def _offsets(size: int, x: Array, y: Array, angle: Array) -> tuple[Array, Array]:
    """Coordinates of each pixel relative to the nearest copy of (x, y) on the torus, on axes rotated by `angle`."""

    def nearest(start: Array) -> Array:
        wrapped = ((jnp.asarray(_centres(size)) - start + TURN // 2) & (TURN - 1)) - TURN // 2
        return wrapped.astype(jnp.float32) / TURN

    right_X, up_Y = nearest(x), -nearest(y)
    turn = angle * (2 * jnp.pi / TURN)
    cos, sin = jnp.cos(turn), jnp.sin(turn)
    u_YxX = cos * right_X + (sin * up_Y)[:, None]
    v_YxX = -sin * right_X + (cos * up_Y)[:, None]
    return u_YxX, v_YxX


def _pattern(size: int, look: Look) -> Array:
    """A fixed grating in [−1, 1]."""
    centre_S = jnp.asarray(_centres(size) / TURN, jnp.float32)
    wave_x, wave_y = look.pattern_wave
    return 4 * _wave(look.pattern_phase + wave_x * centre_S + (wave_y * centre_S)[:, None]) - 1


def _box(u: Array, v: Array, centre: tuple[float, float], half: tuple[float, float]) -> Array:
    return jnp.minimum(half[0] - jnp.abs(u - centre[0]), half[1] - jnp.abs(v - centre[1]))


def _disc(u: Array, v: Array, centre: float, radius: float) -> Array:
    return radius - jnp.sqrt((u - centre) ** 2 + v**2)


def _shape(shape: Array, u: Array, v: Array) -> Array:
    """Four outlines of equal area (1.3 square radii) about their centroid, none with a rotational symmetry."""
    crescent = jnp.minimum(_disc(u, v, 0.203, 0.784), -_disc(u, v, 0.769, 0.547))
    ell = jnp.maximum(
        _box(u, v, (-0.252, -0.168), (0.276, 0.754)),
        _box(u, v, (0.180, 0.311), (0.708, 0.276)),
    )
    dart = jnp.minimum(u + 0.586, (0.42 * (1.173 - u) - jnp.abs(v)) / np.hypot(1, 0.42))
    lollipop = jnp.maximum(_disc(u, v, -0.239, 0.561), _box(u, v, (0.593, 0.0), (0.601, 0.170)))
    return _choose(shape, crescent, ell, dart, lollipop)


def _texture(texture: Array, u: Array, v: Array, phase: Array) -> Array:
    """Four two-tone textures, positive where light.

    All are about two thirds light, so that the mean colour reveals inversion but not the texture.
    """
    p, q = u * _TEXTURE_PERIODS + phase[0], v * _TEXTURE_PERIODS + phase[1]
    stripes = 0.34 - _wave(p)
    dots = jnp.sqrt((p - jnp.round(p)) ** 2 + (q - jnp.round(q)) ** 2) - 0.33
    rings = 0.34 - _wave(jnp.sqrt(u**2 + v**2) * _TEXTURE_PERIODS + phase[0])
    halves = v * _TEXTURE_PERIODS + 0.4 - 0.3 * phase[1]
    return _choose(texture, stripes, dots, rings, halves) / _TEXTURE_PERIODS


def _choose(index: Array, *fields: Array) -> Array:
    chosen = fields[0]
    for i, field in enumerate(fields[1:], 1):
        chosen = jnp.where(index == i, field, chosen)
    return chosen
