"""Training and scoring of one probe on features that are already there."""

import functools
from collections.abc import Callable, Iterator
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from jepa_jax.models import probes
from jepa_jax.probing.config import ProbeConfig
from jepa_jax.probing.features import Rows, channel_statistics, read
from jepa_jax.progress import Progress

KNN_TEMPERATURE = 0.07
PREDICTION_BATCH = 256

Carry = tuple[Any, optax.OptState]
Step = Callable[[Carry, tuple[Array, Array, Array]], tuple[Carry, Array]]


def run(
    config: ProbeConfig,
    train: Rows,
    train_labels: Int[np.ndarray, "train"],
    test: Rows,
    classes: int,
    key: PRNGKeyArray,
    name: str = "probe",
) -> Int[np.ndarray, "test"]:
    """Classes that a probe trained on `train` gives to `test`.

    Args:
        config: which probe, and how it is trained.
        train: features [n, E] or [n, N, E]; what is not an array in memory is read a batch at a time.
        train_labels: in 0…classes−1.
        test: features of the same kind.
        classes: how many there are.
        key: of the initial parameters and of the order of the clips.
        name: for the progress bar.

    Raises:
        ValueError: heads that do not divide the width.
        FloatingPointError: the probe's loss is not finite.
    """
    width = train.shape[-1]
    mean, deviation = channel_statistics(train) if config.standardise else (np.zeros(width), np.ones(width))

    def prepare(features: Array) -> Array:
        return (features.astype(jnp.float32) - jnp.float32(mean)) / jnp.float32(deviation)

    # Full float32 products also where an accelerator would shorten them: a probe is small.
    with jax.default_matmul_precision("highest"):
        if config.kind == "knn":
            return _knn(prepare, train, train_labels, test, classes, config.neighbours)
        attentive = config.kind == "attentive"
        model = probes.AttentiveProbe(classes, config.heads) if attentive else probes.LinearProbe(classes)

        def apply(params: Any, features: Array) -> Float[Array, "B classes"]:
            features = prepare(features)
            # The mean of a clip's tokens is a clip of one token.
            features = features[:, None] if attentive and features.ndim == 2 else features
            return cast(Array, model.apply({"params": params}, features))

        key_init, key_order = jax.random.split(key)
        params = model.init(key_init, jnp.zeros((1, 1, width) if attentive else (1, width)))["params"]
        params = _fit(apply, params, config, train, train_labels, key_order, name)
        return _predict(jax.jit(functools.partial(apply, params)), test)


def _fit(
    apply: Callable[[Any, Array], Array],
    params: Any,
    config: ProbeConfig,
    features: Rows,
    labels: Int[np.ndarray, "n"],
    key: PRNGKeyArray,
    name: str,
) -> Any:
    """Parameters after `config.epochs` passes of AdamW at a constant rate."""
    optimizer = optax.adamw(config.lr, weight_decay=config.weight_decay)

    def step(carry: Carry, batch: tuple[Array, Array, Array]) -> tuple[Carry, Array]:
        params, state = carry
        x, labels_B, counts_B = batch

        def loss_of(params: Any) -> Array:
            losses_B = optax.softmax_cross_entropy_with_integer_labels(apply(params, x), labels_B)
            return jnp.sum(losses_B * counts_B) / jnp.sum(counts_B)

        loss, gradient = jax.value_and_grad(loss_of)(params)
        updates, state = optimizer.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), loss

    if isinstance(features, np.ndarray) and not isinstance(features, np.memmap):
        epoch = _scanned_epoch(step, features)
    else:
        epoch = _streamed_epoch(step, features)
    carry = params, optimizer.init(params)
    size = min(config.batch_size, len(features))
    with Progress(config.epochs, "epoch", name=name, clips_each=len(features)) as bar:
        for number in range(config.epochs):
            index, counts = _batches(jax.random.fold_in(key, number), len(features), size)
            carry, loss = epoch(carry, index, labels[index], counts)
            if not np.isfinite(loss):
                raise FloatingPointError(
                    f"{name}: the loss of the {config.kind} probe is {loss} after epoch {number + 1}: lower its lr "
                    f"({config.lr}), or set standardise."
                )
            bar.update(number + 1)
    return carry[0]


def _batches(key: PRNGKeyArray, items: int, size: int) -> tuple[Int[np.ndarray, "J B"], Float[np.ndarray, "J B"]]:
    """Positions of an epoch's batches in random order; the last is filled up with positions that count 0."""
    order = np.asarray(jax.random.permutation(key, items))
    missing = -items % size
    counts = np.ones(items + missing, np.float32)
    counts[items:] = 0
    return np.resize(order, items + missing).reshape(-1, size), counts.reshape(-1, size)


def _scanned_epoch(step: Step, features: np.ndarray) -> Callable[..., tuple[Carry, Array]]:
    """An epoch as one compiled loop over features that lie on the device."""

    @functools.partial(jax.jit, donate_argnums=0)
    def epoch(carry: Carry, features: Array, index_JxB: Array, labels_JxB: Array, counts_JxB: Array):
        def body(carry: Carry, row: tuple[Array, Array, Array]) -> tuple[Carry, Array]:
            index_B, labels_B, counts_B = row
            return step(carry, (features[index_B], labels_B, counts_B))

        carry, losses_J = jax.lax.scan(body, carry, (index_JxB, labels_JxB, counts_JxB))
        return carry, losses_J.mean()

    on_device = jax.device_put(features)
    return lambda carry, index, labels, counts: epoch(carry, on_device, index, labels, counts)


def _streamed_epoch(step: Step, features: Rows) -> Callable[..., tuple[Carry, Array]]:
    """An epoch over features that are read from disk a batch at a time, while the batch before is computed."""
    jitted = jax.jit(step, donate_argnums=0)

    def epoch(carry: Carry, index_JxB: np.ndarray, labels_JxB: np.ndarray, counts_JxB: np.ndarray):
        losses: list[Array] = []
        for batch, labels_B, counts_B in zip(read(features, index_JxB), labels_JxB, counts_JxB, strict=True):
            if losses:
                # Otherwise a fast disk would pile up batches that wait for the device.
                losses[-1].block_until_ready()
            carry, loss = jitted(carry, (batch, labels_B, counts_B))
            losses.append(loss)
        return carry, jnp.stack(losses).mean()

    return epoch


def _predict(logits: Callable[[np.ndarray], Array], features: Rows) -> Int[np.ndarray, "n"]:
    """The likeliest class of every clip."""
    parts = [np.asarray(logits(rows).argmax(-1))[valid] for rows, valid in _row_batches(features)]
    return np.concatenate(parts).astype(np.int32)


def _row_batches(features: Rows) -> Iterator[tuple[np.ndarray, Bool[np.ndarray, "B"]]]:
    """Rows in order, in batches of one size; the last is filled up with its last row, marked as not valid."""
    size = min(PREDICTION_BATCH if len(features.shape) == 2 else 16, len(features))
    index_JxB = np.arange(-(-len(features) // size) * size).reshape(-1, size)
    yield from zip(read(features, np.minimum(index_JxB, len(features) - 1)), index_JxB < len(features), strict=True)


def _knn(
    prepare: Callable[[Array], Array],
    train: Rows,
    labels: Int[np.ndarray, "train"],
    test: Rows,
    classes: int,
    neighbours: int,
) -> Int[np.ndarray, "test"]:
    """The class with the most votes among the nearest training clips by cosine.

    A neighbour of cosine s votes with weight exp(s / 0.07) (arXiv:1805.01978); all vote if there are fewer.
    """
    neighbours = min(neighbours, len(train))

    def unit(features: Array) -> Array:
        prepared = prepare(features)
        return prepared / jnp.maximum(jnp.linalg.norm(prepared, axis=-1, keepdims=True), 1e-12)

    unit_train = jax.jit(unit)(np.asarray(train[:]))

    @jax.jit
    def votes(rows: Float[Array, "B E"], unit_train: Float[Array, "train E"]) -> Float[Array, "B classes"]:
        similarity, nearest = jax.lax.top_k(unit(rows) @ unit_train.T, neighbours)
        # Relative to the nearest, so that nothing overflows.
        weight = jnp.exp((similarity - similarity[:, :1]) / KNN_TEMPERATURE)
        return (jax.nn.one_hot(jnp.asarray(labels)[nearest], classes) * weight[..., None]).sum(1)

    return _predict(lambda rows: votes(rows, unit_train), test)
