"""SIGReg: projected on any direction, visible tokens follow a standard normal distribution."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jepa_jax.objectives import base

KNOTS, LAST_KNOT = 17, 3.0

Point = tuple[jax.Array, jax.Array]  # cosine and sine


@dataclasses.dataclass(frozen=True, kw_only=True)
class SIGReg(base.Objective):
    """Distance between the characteristic functions of the samples and of a standard normal, along random directions.

    The samples are the visible tokens of all masks together. Each step draws new directions, the same on every device.
    Means are over the global batch (arXiv:2605.17165, after LeJEPA, arXiv:2511.08544).
    """

    directions: int = 1024

    def draw_directions(self, key: jax.Array, features: int) -> Float[Array, "D R"]:
        """Returns random unit directions, as columns."""
        normal_DxR = jax.random.normal(key, (features, self.directions))
        return normal_DxR / jnp.linalg.norm(normal_DxR, axis=0, keepdims=True)

    def value(self, head: base.Params, latents: base.Latents, context: base.StepContext) -> Float[Array, ""]:
        """Returns the mean over directions of the statistic."""
        features = latents.target_BxNxD.shape[-1]
        samples_BxSxD = jnp.concatenate([view.context_BxKxD for view in latents.views], axis=1)
        directions_DxR = self.draw_directions(context.key, features).astype(samples_BxSxD.dtype)
        projected_BxSxR = jnp.einsum("bsd,dr->bsr", samples_BxSxD, directions_DxR, preferred_element_type=jnp.float32)
        return statistic(projected_BxSxR)


@jax.custom_vjp
def statistic(projected_BxSxR: Float[Array, "B S R"]) -> Float[Array, ""]:
    """Returns the mean over R of n·Σ_k w_k[(mean cos t_k x − e^{−t_k²/2})² + (mean sin t_k x)²], n = B·S samples.

    There are 17 knots t_k on [0, 3]; w is the trapezoid rule, doubled for the negative half, times e^{−t²/2}. The knots
    are multiples of one angle, so one cosine and one sine per sample give all others by rotation. The gradient is
    written by hand and repeats the rotations, so no array 17 times the size of the projections is stored.
    """
    return _statistic_forward(projected_BxSxR)[0]


def _statistic_forward(projected_BxSxR: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    count = projected_BxSxR.shape[0] * projected_BxSxR.shape[1]
    if count < 2:
        nothing_kxR = jnp.zeros((KNOTS, projected_BxSxR.shape[-1]))
        return jnp.zeros(()), (projected_BxSxR, nothing_kxR, nothing_kxR)
    _, weight_k, normal_k = quadrature()
    turn, start = _rotation(projected_BxSxR)

    def mean_and_turn(point: Point, _: None) -> tuple[Point, tuple[jax.Array, jax.Array]]:
        return turn(point), (point[0].mean((0, 1)), point[1].mean((0, 1)))

    _, (cosine_kxR, sine_kxR) = jax.lax.scan(mean_and_turn, start, length=KNOTS)
    cosine_kxR -= normal_k[:, None]
    total_R = jnp.einsum("k,kr->r", weight_k, jnp.square(cosine_kxR) + jnp.square(sine_kxR), precision="highest")
    return count * total_R.mean(), (projected_BxSxR, cosine_kxR, sine_kxR)


def _statistic_backward(residuals: tuple[jax.Array, ...], gradient: jax.Array) -> tuple[jax.Array]:
    projected_BxSxR, cosine_kxR, sine_kxR = residuals
    knot_k, weight_k, _ = quadrature()
    turn, start = _rotation(projected_BxSxR)
    # d/dx of n·mean over R: the means over n samples and over R leave 1/R.
    scale_kx1 = jnp.asarray(2 * weight_k * knot_k)[:, None] / projected_BxSxR.shape[-1]

    def add_and_turn(
        carry: tuple[Point, jax.Array], off: tuple[jax.Array, jax.Array]
    ) -> tuple[tuple[Point, jax.Array], None]:
        (cosine, sine), total_BxSxR = carry
        return (turn((cosine, sine)), total_BxSxR + off[1] * cosine - off[0] * sine), None

    (_, total_BxSxR), _ = jax.lax.scan(
        add_and_turn, (start, jnp.zeros_like(projected_BxSxR)), (scale_kx1 * cosine_kxR, scale_kx1 * sine_kxR)
    )
    return (gradient * total_BxSxR,)


statistic.defvjp(_statistic_forward, _statistic_backward)


def _rotation(x: jax.Array) -> tuple[Callable[[Point], Point], Point]:
    """Returns a function that maps (cos t_k x, sin t_k x) to the values at the next knot, and the values at t = 0."""
    angle = LAST_KNOT / (KNOTS - 1) * x
    cosine, sine = jnp.cos(angle), jnp.sin(angle)

    def turn(point: Point) -> Point:
        return point[0] * cosine - point[1] * sine, point[1] * cosine + point[0] * sine

    return turn, (jnp.ones_like(x), jnp.zeros_like(x))


def quadrature() -> tuple[Float[np.ndarray, "k"], Float[np.ndarray, "k"], Float[np.ndarray, "k"]]:
    """Returns the knots, their weights, and the normal distribution's characteristic function at them."""
    knot = np.linspace(0, LAST_KNOT, KNOTS)
    normal = np.exp(-np.square(knot) / 2)
    weight = np.full(KNOTS, 2 * LAST_KNOT / (KNOTS - 1))
    weight[[0, -1]] /= 2
    return knot.astype(np.float32), (weight * normal).astype(np.float32), normal.astype(np.float32)
