"""Logistic regression probe: multinomial, with an L2 penalty, solved by L-BFGS.

It minimizes mean cross-entropy + λ·v/2·‖W‖², where v is the mean variance of a channel, so that a penalty λ does not
depend on the scale of the features. The bias is not penalized. On standardized features of n clips, λ is scikit-learn's
1 / (C·n).

L-BFGS runs along the principal axes of the features, each divided by the square root of its curvature at W = 0. The
Hessian is then close to the identity, so that strongly correlated features need no more steps than others. Held-out
rows have weight 0; every penalty, every fold and the final fit therefore share one compiled program.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.tree
from jaxtyping import Array, Bool, Float, Int, Num

from jepa_jax.evaluation.features.rows import Rows, Standardizer, read_ahead
from jepa_jax.evaluation.probes.splits import Split
from jepa_jax.settings import ConfigError

BATCH = 4096  # rows read at a time
MAX_BYTES = 2**33  # of the float32 features, all of which are on the device
MAX_STEPS = 1000  # of L-BFGS
TOLERANCE = 1e-5  # largest entry of the scaled gradient at which a solution has converged
PATH_TOLERANCE = 1e-4  # the same for solutions that only choose among penalties
ROW_MULTIPLE = 128  # rows are padded to a multiple of this, so that sets of similar size share a compiled program
WORSE = 1.1  # times the best held-out cross-entropy: the search stops at a penalty that is worse

Solution = tuple[Float[Array, "axes width"], Float[Array, "width"]]  # kernel and bias along the axes


class Tried(NamedTuple):
    """A penalty with its accuracy and cross-entropy on the held-out rows of cross-validation."""

    penalty: float
    accuracy: float
    cross_entropy: float


@dataclasses.dataclass(frozen=True)
class Fitted:
    """A fitted logistic regression; `converged`: whether it is within TOLERANCE of its optimum."""

    standardizer: Standardizer
    kernel_ExC: Float[np.ndarray, "E classes"]
    bias_C: Float[np.ndarray, "classes"]
    converged: bool

    def scores(self, features: Num[np.ndarray, "B E"]) -> Float[np.ndarray, "1 1 B classes"]:
        """Probability of each class."""
        logits_BxC = np.asarray(self.standardizer(features)) @ self.kernel_ExC + self.bias_C
        exp_BxC = np.exp(logits_BxC - logits_BxC.max(axis=-1, keepdims=True))
        return (exp_BxC / exp_BxC.sum(axis=-1, keepdims=True))[None, None]


class Problem:
    """Features and labels of a training set, read once and fitted any number of times to subsets of the rows."""

    def __init__(
        self, source: Rows, labels: Int[np.ndarray, "n"], classes: int, width: int, standardizer: Standardizer
    ):
        """Reads the features and finds their principal axes.

        Args:
            source: features [n, E] of a set.
            labels: of all rows, in 0…classes − 1.
            classes: number of classes.
            width: number of classes in the compiled program, at least `classes`.
            standardizer: of the features.

        Raises:
            ConfigError: the features take more than MAX_BYTES.
        """
        count, channels = source.shape
        if 4 * count * channels > MAX_BYTES:
            raise ConfigError(
                f"A logistic probe keeps all features in memory: {count:,} clips of {channels:,} channels take "
                f"{4 * count * channels / 2**30:.1f} GiB, more than {MAX_BYTES // 2**30}. Use kind='linear', which "
                "reads them in batches, or fewer clips."
            )
        self._standardizer, self._classes, self._width = standardizer, classes, width
        x_NxE = np.empty((count, channels), np.float32)
        batches = [np.arange(first, min(first + BATCH, count)) for first in range(0, count, BATCH)]
        for index_B, features in zip(batches, read_ahead(source, batches), strict=True):
            x_NxE[index_B] = standardizer(features)
        self._mean_E = x_NxE.mean(axis=0, dtype=np.float64).astype(np.float32)
        x_NxE -= self._mean_E
        self._axes_ExR, variance_R = _principal_axes(x_NxE)
        self._unit = float(variance_R.sum()) / channels or 1.0  # 0 if all rows are the same
        self._variance_R = variance_R
        padding = -count % ROW_MULTIPLE
        self._z_NxR = jnp.asarray(np.pad(x_NxE @ self._axes_ExR, ((0, padding), (0, 0))))
        self._label_N = jnp.asarray(np.pad(labels, (0, padding)))

    def fit(self, penalty: float, fit_R: Int[np.ndarray, "R"]) -> Fitted:
        """Fits the rows `fit_R`."""
        (kernel_RxC, bias_C), converged, _, _ = self._solve(penalty, TOLERANCE, fit_R, fit_R, self._zeros())
        kernel_ExC = self._axes_ExR @ np.asarray(kernel_RxC)[:, : self._classes]
        bias_C = np.asarray(bias_C)[: self._classes] - self._mean_E @ kernel_ExC
        return Fitted(self._standardizer, kernel_ExC, bias_C, bool(converged))

    def cross_validate(self, penalties: Sequence[float], splits: Sequence[Split]) -> list[Tried]:
        """Scores each penalty on held-out rows, the strongest first.

        Each penalty starts from the solutions of the previous one. The search stops at a penalty that is clearly worse
        than the best: weaker ones would overfit more, and are the slowest.
        """
        tried: list[Tried] = []
        starts = [self._zeros() for _ in splits]
        for penalty in sorted(penalties, reverse=True):
            correct = loss = 0.0
            for number, (fit_R, held_R) in enumerate(splits):
                start = starts[number]
                starts[number], _, fold_loss, fold_correct = self._solve(penalty, PATH_TOLERANCE, fit_R, held_R, start)
                loss += float(fold_loss) * len(held_R)
                correct += float(fold_correct) * len(held_R)
            held = sum(len(split.held) for split in splits)
            tried.append(Tried(penalty, correct / held, loss / held))
            if tried[-1].cross_entropy > WORSE * min(other.cross_entropy for other in tried):
                break
        return tried

    def _solve(
        self,
        penalty: float,
        tolerance: float,
        fit_R: Int[np.ndarray, "R"],
        held_R: Int[np.ndarray, "H"],
        start: Solution,
    ) -> tuple[Solution, Array, Array, Array]:
        return _solve(
            MAX_STEPS,
            self._z_NxR,
            self._label_N,
            self._mean_weights(fit_R),
            self._mean_weights(held_R),
            self._variance_R,
            penalty * self._unit,
            tolerance,
            self._classes,
            start,
        )

    def _mean_weights(self, rows_R: Int[np.ndarray, "R"]) -> Float[np.ndarray, "N"]:
        """Weights of all rows; the weighted sum is the mean over `rows_R`."""
        weight_N = np.zeros(len(self._label_N), np.float32)
        weight_N[rows_R] = 1 / len(rows_R)
        return weight_N

    def _zeros(self) -> Solution:
        return jnp.zeros((self._z_NxR.shape[1], self._width)), jnp.zeros(self._width)


def _principal_axes(x_NxE: Float[np.ndarray, "N E"]) -> tuple[Float[np.ndarray, "E R"], Float[np.ndarray, "R"]]:
    """Orthonormal axes of the span of centred rows, R = min(N, E), and the variance along each."""
    count, channels = x_NxE.shape
    if count < channels:
        _, singular_R, axes_RxE = np.linalg.svd(x_NxE, full_matrices=False)
        return axes_RxE.T, np.square(singular_R) / count
    values_E, vectors_ExE = np.linalg.eigh(x_NxE.T @ x_NxE / count)
    return vectors_ExE, np.maximum(values_E, 0)


@functools.partial(jax.jit, static_argnums=0)
def _solve(
    max_steps: int,
    z_NxR: Float[Array, "N axes"],
    label_N: Int[Array, "N"],
    fit_N: Float[Array, "N"],
    held_N: Float[Array, "N"],
    variance_R: Float[Array, "axes"],
    penalty: Float[Array, ""],
    tolerance: Float[Array, ""],
    classes: Int[Array, ""],
    start: Solution,
) -> tuple[Solution, Bool[Array, ""], Float[Array, ""], Float[Array, ""]]:
    """Fits rows weighted by `fit_N`; returns the solution, whether it converged, and its cross-entropy and accuracy.

    Cross-entropy and accuracy are weighted by `held_N`. Compiled once per shape of the features and number of classes.
    """
    # Approximate second derivative of cross-entropy with respect to a logit when all classes are equally likely.
    curvature = 1 / classes.astype(jnp.float32)
    scale = jax.lax.rsqrt(curvature * variance_R + penalty)[:, None], jax.lax.rsqrt(curvature)
    is_class_C = jnp.arange(start[1].size) < classes

    def predict(solution: Solution) -> tuple[Array, Array]:
        kernel_RxC, bias_C = solution
        logits_NxC = jnp.where(is_class_C, z_NxR @ kernel_RxC + bias_C, -jnp.inf)
        return logits_NxC, optax.softmax_cross_entropy_with_integer_labels(logits_NxC, label_N)

    def loss(params: Solution) -> Array:
        solution = jax.tree.map(jnp.multiply, params, scale)
        return jnp.sum(fit_N * predict(solution)[1]) + penalty / 2 * jnp.sum(jnp.square(solution[0]))

    # Near the optimum the loss changes by less than float32 resolves, so the slope decides the step length.
    solver = optax.lbfgs(
        linesearch=optax.scale_by_zoom_linesearch(20, approx_dec_rtol=1e-3, initial_guess_strategy="one")
    )
    value_and_grad = optax.value_and_grad_from_state(loss)

    def step(carry: tuple[Any, Any, Array]) -> tuple[Any, Any, Array]:
        params, state, _ = carry
        value, gradient = value_and_grad(params, state=state)
        updates, state = solver.update(gradient, state, params, value=value, grad=gradient, value_fn=loss)
        largest = optax.tree.norm(optax.tree.get(state, "grad"), ord=jnp.inf)
        return optax.apply_updates(params, updates), state, largest

    def unfinished(carry: tuple[Any, Any, Array]) -> Array:
        _, state, largest = carry
        return (optax.tree.get(state, "count") < max_steps) & (largest > tolerance)

    params = jax.tree.map(jnp.divide, start, scale)
    params, _, largest = jax.lax.while_loop(unfinished, step, (params, solver.init(params), jnp.float32(jnp.inf)))
    solution = jax.tree.map(jnp.multiply, params, scale)
    logits_NxC, losses_N = predict(solution)
    correct_N = logits_NxC.argmax(axis=-1) == label_N
    return solution, largest <= tolerance, jnp.sum(held_N * losses_N), jnp.sum(held_N * correct_N)
