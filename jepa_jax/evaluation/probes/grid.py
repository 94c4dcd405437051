"""Trains a grid of probes in parallel: learning rates × weight decays × seeds, on the same features.

Probes of one seed share the order of the clips and the initial parameters, so that settings are comparable; seeds
differ in both. Features that do not fit on the device are read in chunks of random rows, and every seed has its own
order within a chunk. Programs are compiled once per shape: label sets are padded to a common number of classes, and
learning rates, weight decays, features and labels are arguments.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, Num, PRNGKeyArray

from jepa_jax.evaluation.eval_config import ProbeConfig
from jepa_jax.evaluation.features.rows import Rows, Standardizer, read_ahead
from jepa_jax.progress import Progress

WHOLE_LIMIT = 2**28  # bytes up to which all features are on the device
CHUNK_BYTES = 2**26  # of larger features, read one chunk at a time

State = tuple[Any, optax.OptState]  # leaves [seeds, settings, …]


@runtime_checkable
class Model(Protocol):
    """A flax module: hashable, so that equal ones share a compiled program."""

    def init(self, rngs: PRNGKeyArray, *arguments: Any) -> Any:
        """Returns {"params": initial parameters}."""
        ...

    def apply(self, variables: Any, *arguments: Any) -> Any:
        """Returns the logits of a batch of features."""
        ...


class Batches(NamedTuple):
    """The batches of a chunk, in order."""

    row_JxSxB: Int[np.ndarray, "J seeds B"]  # indices into the chunk
    label_JxSxB: Int[np.ndarray, "J seeds B"]
    valid_JxB: Bool[np.ndarray, "J B"]  # False for padding
    rate_J: Float[np.ndarray, "J"]  # the schedule's factor of the learning rate


@dataclasses.dataclass(frozen=True)
class Trained:
    """Trained probes.

    Attributes:
        params: leaves [seeds, settings, …].
        diverged: whether a setting's loss is not finite for some seed.
    """

    model: Model
    params: Any
    standardizer: Standardizer
    classes: int
    at_once: int
    diverged: Bool[np.ndarray, "settings"]

    def only(self, setting: int) -> "Trained":
        """The probes of one setting."""
        one = slice(setting, setting + 1)
        return dataclasses.replace(
            self, params=jax.tree.map(lambda x: x[:, one], self.params), diverged=self.diverged[one]
        )

    def scores(self, features: Num[np.ndarray, "B *S E"]) -> Float[Array, "seeds settings B width"]:
        """Probability of each class by every probe; classes beyond the label set have 0."""
        return _probabilities(self.model, self.at_once, self.params, features, self.standardizer, self.classes)


def train(
    model: Model,
    config: ProbeConfig,
    source: Rows,
    fit_R: Int[np.ndarray, "R"],
    labels: Int[np.ndarray, "n"],
    classes: int,
    standardizer: Standardizer,
    key: PRNGKeyArray,
    name: str,
) -> Trained:
    """Trains every setting of `config.settings()` × `config.seeds` for `config.epochs` epochs over the rows `fit_R`.

    Cross-entropy; AdamW with weight decay of all parameters, as torch.optim.AdamW has it.

    Args:
        model: features [B, E] or [B, N, E] → logits of at least `classes` classes; further classes are padding.
        config: training settings.
        source: features of a set.
        fit_R: the rows to train on, ascending.
        labels: of all rows, in 0…classes − 1.
        classes: number of classes.
        standardizer: of the features.
        key: probe seed s uses fold_in(key, s).
        name: for the progress bar and errors.

    Raises:
        FloatingPointError: the loss of every setting is not finite.
    """
    settings = config.settings()
    lr_P, decay_P = (jnp.array([setting[name] for setting in settings]) for name in ("lr", "weight_decay"))
    plan = EpochPlan(config, source, fit_R, labels, key)
    # A set smaller than a batch is one batch, which micro_batch need not divide.
    micro_batch = config.micro_batch if len(fit_R) >= config.batch_size else 0
    state = _initial(model, config.seeds, len(settings), key, jnp.zeros((1, *source.shape[1:])))
    whole = jax.device_put(source[fit_R]) if plan.chunks == 1 else None
    loss_SxP = np.zeros((config.seeds, len(settings)))
    with Progress(config.epochs, "epoch", name=name, clips_each=len(fit_R)) as bar:
        for epoch in range(config.epochs):
            losses = []
            for features, batches in plan.epoch(epoch, whole):
                if losses:
                    losses[-1].block_until_ready()  # at most two chunks are on the device
                state, loss = _train_chunk(
                    model, config.at_once, micro_batch, state, features, standardizer, batches, lr_P, decay_P, classes
                )
                losses.append(loss)
            loss_SxP = np.sum(losses, axis=0)
            if not np.isfinite(loss_SxP).all(axis=0).any():
                raise FloatingPointError(
                    f"{name}: the loss of the {config.kind} probe is {loss_SxP.max()} after epoch {epoch + 1}; lower "
                    f"its lr ({', '.join(map(str, config.lr))}), or set standardise."
                )
            bar.update(epoch + 1)
    diverged = np.logical_not(np.isfinite(loss_SxP).all(axis=0))
    return Trained(model, state[0], standardizer, classes, config.at_once, diverged)


class EpochPlan:
    """The chunks and batches of each epoch."""

    def __init__(
        self,
        config: ProbeConfig,
        source: Rows,
        fit_R: Int[np.ndarray, "R"],
        labels: Int[np.ndarray, "n"],
        key: PRNGKeyArray,
    ):
        """Takes the arguments of `train`; `chunks` becomes the number of chunks in an epoch."""
        self._source, self._fit_R, self._labels = source, fit_R, labels
        self._config = config
        self._seed = np.asarray(jax.random.key_data(key)).tolist()
        self._batch = min(config.batch_size, len(fit_R))
        self._steps = math.ceil(len(fit_R) / self._batch)  # an epoch
        row_bytes = math.prod(source.shape[1:]) * np.dtype(source.dtype).itemsize
        whole = row_bytes * len(fit_R) <= WHOLE_LIMIT
        most = self._steps if whole else max(1, CHUNK_BYTES // (row_bytes * self._batch))
        self.chunks = math.ceil(self._steps / most)
        self._steps_each = math.ceil(
            self._steps / self.chunks
        )  # chunks have the same shape; the last may have empty steps

    def epoch(self, epoch: int, whole: Array | None) -> Iterator[tuple[Array | np.ndarray, Batches]]:
        """Yields chunks of features with their batches; `whole` has all rows, if they fit into one chunk."""
        if whole is not None:
            yield whole, self._batches(epoch, 0, self._fit_R)
            return
        size = self._steps_each * self._batch
        order_R = np.random.default_rng([*self._seed, epoch]).permutation(self._fit_R)
        parts = [np.sort(order_R[first : first + size]) for first in range(0, len(order_R), size)]
        padded = [np.pad(part, (0, size - len(part)), mode="edge") for part in parts]
        for number, features in enumerate(read_ahead(self._source, padded)):
            yield features, self._batches(epoch, number, parts[number])

    def _batches(self, epoch: int, chunk: int, rows_R: Int[np.ndarray, "R"]) -> Batches:
        steps, seeds = self._steps_each, self._config.seeds
        row_SxR = np.empty((seeds, steps * self._batch), np.int32)
        for seed in range(seeds):
            order_R = np.random.default_rng([*self._seed, epoch, chunk, seed]).permutation(len(rows_R))
            row_SxR[seed] = np.resize(order_R, steps * self._batch)
        row_JxSxB = row_SxR.reshape(seeds, steps, self._batch).transpose(1, 0, 2)
        step_J = epoch * self._steps + chunk * steps + np.arange(steps)
        share_J = step_J / (self._config.epochs * self._steps)
        rate_J = (1 + np.cos(np.pi * share_J)) / 2 if self._config.schedule == "cosine" else np.ones(steps)
        return Batches(
            row_JxSxB=row_JxSxB,
            label_JxSxB=self._labels[rows_R][row_JxSxB].astype(np.int32),
            valid_JxB=(np.arange(steps * self._batch) < len(rows_R)).reshape(steps, self._batch),
            rate_J=rate_J.astype(np.float32),
        )


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _initial(model: Model, seeds: int, settings: int, key: PRNGKeyArray, example: Array) -> State:
    """Initial parameters of each seed, the same for all settings, and AdamW's state."""

    def of_seed(seed: Array) -> State:
        params = model.init(jax.random.fold_in(key, seed), example)["params"]
        state = params, optax.adamw(0.0).init(params)
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (settings, *x.shape)), state)

    return jax.vmap(of_seed)(jnp.arange(seeds))


@functools.partial(jax.jit, static_argnums=(0, 1, 2), donate_argnums=3)
def _train_chunk(
    model: Model,
    at_once: int,
    micro_batch: int,
    state: State,
    features: Num[Array, "R *S E"],
    standardizer: Standardizer,
    batches: Batches,
    lr_P: Float[Array, "settings"],
    decay_P: Float[Array, "settings"],
    classes: Int[Array, ""],
) -> tuple[State, Float[Array, "seeds settings"]]:
    """One step of every probe for each batch; returns the new state and each probe's summed loss."""

    def step(state: State, lr: Array, decay: Array, batch: tuple[Array, Array, Array]) -> tuple[State, Array]:
        params, moments = state

        def sum_of(params: Any, batch: tuple[Array, Array, Array]) -> Array:
            x, label_B, valid_B = batch
            losses_B = optax.softmax_cross_entropy_with_integer_labels(_logits(model, params, x, classes), label_B)
            return jnp.sum(losses_B, where=valid_B)

        def loss_of(params: Any) -> Array:
            count = jnp.sum(batch[2])
            if not micro_batch:
                return sum_of(params, batch) / count
            parts = jax.tree.map(lambda x: x.reshape(-1, micro_batch, *x.shape[1:]), batch)
            sums = jax.lax.map(functools.partial(jax.checkpoint(sum_of), params), parts)
            return sums.sum() / count

        loss, gradient = jax.value_and_grad(loss_of)(params)
        updates, moments = optax.adamw(lr, weight_decay=decay).update(gradient, moments, params)
        return (optax.apply_updates(params, updates), moments), loss

    def step_of_all(state: State, batch: tuple[Array, ...]) -> tuple[State, Array]:
        row_SxB, label_SxB, valid_B, rate = batch

        def step_of_seed(state: State, row_B: Array, label_B: Array) -> tuple[State, Array]:
            data = jnp.asarray(standardizer(features[row_B])), label_B, valid_B
            each = _each(lambda state, lr, decay: step(state, lr, decay, data), at_once)
            return each(state, rate * lr_P, decay_P)

        return _each(step_of_seed, min(at_once, 1))(state, row_SxB, label_SxB)

    def body(state: State, batch: tuple[Array, ...]) -> tuple[State, Array]:
        row_SxB, _, valid_B, _ = batch
        zeros = jnp.zeros((len(row_SxB), len(lr_P)))
        # An empty batch must not change the moments.
        return jax.lax.cond(valid_B.any(), step_of_all, lambda state, _: (state, zeros), state, batch)

    state, loss_JxSxP = jax.lax.scan(body, state, tuple(map(jnp.asarray, batches)))
    return state, loss_JxSxP.sum(0)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _probabilities(
    model: Model,
    at_once: int,
    params: Any,
    features: Num[Array, "B *S E"],
    standardizer: Standardizer,
    classes: Int[Array, ""],
) -> Float[Array, "seeds settings B width"]:
    x = jnp.asarray(standardizer(features))
    one = _each(lambda params: jax.nn.softmax(_logits(model, params, x, classes)), at_once)
    return _each(one, min(at_once, 1))(params)


def _logits(model: Model, params: Any, x: Array, classes: Int[Array, ""]) -> Float[Array, "B width"]:
    """Logits; −∞ for classes beyond the label set."""
    logits_BxC = model.apply({"params": params}, x)
    return jnp.where(jnp.arange(logits_BxC.shape[-1]) < classes, logits_BxC, -jnp.inf)


def _each(function: Callable[..., Any], at_once: int) -> Callable[..., Any]:
    """Maps `function` over the first axes of its arguments, `at_once` at a time; 0: all in parallel."""
    if not at_once:
        return jax.vmap(function)
    return lambda *arguments: jax.lax.map(lambda one: function(*one), arguments, batch_size=at_once)
