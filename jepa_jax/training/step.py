"""The training step: one pure function of state and batch."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from jepa_jax import masks
from jepa_jax.distributed import sharding
from jepa_jax.models import batch_sharding, pixels
from jepa_jax.objectives import base
from jepa_jax.training import schedules
from jepa_jax.training.setup import TrainSetup, TrainState

Batch = Mapping[str, jax.Array]
Indices = list[tuple[Int[Array, "B _"], Int[Array, "B _"]]]  # context [B, K] and target [B, M] of each mask
FEATURE_SAMPLES = 256  # tokens per step whose features are returned, to measure spread and rank
TARGET_EPSILON = 1e-5  # of the LayerNorm (without scale and bias) that is applied to targets


def train_step(setup: TrainSetup, state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Any]]:
    """Makes one update.

    Args:
        setup: modules, masks and optimizer (static under jit).
        state: before the step; may be donated.
        batch: `video` uint8 [B, F, Y, X, C] (F = 1 for single frames, see `TrainSetup.images`), or `item` [B] and
            `seed` [B] for clips rendered in the step.

    Returns:
        The new state, and metrics: scalars, and a dict `features` with samples of target and context features.
    """
    setup = for_batch(setup, batch)
    return update(setup, state, *prepare(setup, state, batch))


def for_batch(setup: TrainSetup, batch: Batch) -> TrainSetup:
    """The setup for clips or for single frames, chosen by the static shape of the batch's video."""
    single = "video" in batch and batch["video"].shape[1] == 1
    return setup.images if single and setup.images is not None else setup


def jitted(setup: TrainSetup, shardings: TrainState, mesh: jax.sharding.Mesh) -> Callable[..., Any]:
    """The jitted `train_step` of state and batch. The input state is donated.

    Args:
        setup: modules, masks and optimizer.
        shardings: of the state.
        mesh: the devices. Metrics are replicated.
    """
    return jit_on_mesh(functools.partial(train_step, setup), shardings, mesh)


def jit_on_mesh(function: Callable[..., Any], shardings: TrainState, mesh: jax.sharding.Mesh) -> Callable[..., Any]:
    """The jitted step, a `function` of state and batch. The input state is donated; metrics are replicated."""
    return jax.jit(
        sharding.on_mesh(mesh, function),
        donate_argnums=0,
        out_shardings=(shardings, sharding.replicated(mesh)),
    )


def prepare(setup: TrainSetup, state: TrainState, batch: Batch) -> tuple[jax.Array, Indices, jax.Array]:
    """The inputs of the step: normalised clips, the token indices of each mask, and a key for objectives."""
    key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
    mask_key, objective_key = jax.random.split(key)
    clips = _clips(setup, batch)
    return clips, masks.draw_all(setup.masks, mask_key, clips), objective_key


def update(
    setup: TrainSetup,
    state: TrainState,
    clips: Float[Array, "B F Y X C"],
    indices: Indices,
    key: jax.Array,
) -> tuple[TrainState, dict[str, Any]]:
    """The update of `train_step` for normalised clips and masks; `key` is for objectives that use randomness."""
    config, planned = setup.config, schedules.length(setup.config)
    gradient, metrics = gradients(setup, state, clips, indices, key)
    with jax.named_scope("update"):
        updates, opt_state = setup.optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        held = schedules.hold(planned, state.step + 1)
        decay = schedules.ema_decay(config.ema, planned, held) if config.target == "ema" else jnp.zeros(())
        target_params = state.target_params
        if config.target == "ema":
            step_size = 1 - (config.ema.decay if config.ema.schedule == "constant" else decay)
            target_params = optax.incremental_update(params["encoder"], target_params, step_size)  # pyright: ignore
    metrics = metrics | {
        "gradient_norm": optax.tree.norm(gradient),
        "learning_rate": schedules.learning_rate(config.optim, planned, held),
        "weight_decay": schedules.weight_decay(config.optim, planned, held),
        "ema_decay": decay,  # 0 without EMA
    }
    after = TrainState(state.step + 1, params, target_params, opt_state, state.key)  # pyright: ignore[reportArgumentType]
    return after, metrics


def gradients(
    setup: TrainSetup, state: TrainState, clips: Float[Array, "B F Y X C"], indices: Indices, key: jax.Array
) -> tuple[Any, dict[str, Any]]:
    """The gradient of the loss, and its metrics.

    With `optim.accumulate` A > 1 both are means over A microbatches, computed one after another. Objectives that use
    randomness get a new key for each.
    """
    parts = setup.config.optim.accumulate
    if parts == 1:
        return _gradients(setup, state, clips, indices, key)

    def of_part(inputs: Any, key: jax.Array) -> tuple[Any, dict[str, Any]]:
        clips, indices = inputs
        return _gradients(setup, state, batch_sharding.shard_batch(clips), indices, key)

    gradient, metrics = accumulate(parts, of_part, state.params, (clips, indices), key)
    features = {name: _thin(x.reshape(-1, x.shape[-1])) for name, x in metrics.pop("features").items()}
    means = {name: values.mean(0) for name, values in metrics.items()}
    return gradient, means | {"features": features}


def accumulate(
    parts: int, gradients_of: Callable[[Any, Any], tuple[Any, dict[str, Any]]], params: Any, inputs: Any, key: Any
) -> tuple[Any, dict[str, Any]]:
    """The mean gradient over microbatches, computed one after another, and the metrics of each, stacked.

    Args:
        parts: number of microbatches. Each takes every `parts`-th clip, so that all devices share it evenly.
        gradients_of: gradient and metrics of (inputs of a microbatch, its key).
        params: the gradient has their structure.
        inputs: arrays [B, …].
        key: each microbatch gets another key; None without randomness.
    """

    def split(x_Bx: jax.Array) -> jax.Array:
        return x_Bx.reshape(-1, parts, *x_Bx.shape[1:]).swapaxes(0, 1)

    def add(total: Any, part: Any) -> tuple[Any, Any]:
        of_part, number = part
        gradient, metrics = gradients_of(of_part, None if key is None else jax.random.fold_in(key, number))
        return jax.tree.map(jnp.add, total, gradient), metrics

    zeros = jax.tree.map(jnp.zeros_like, params)
    total, metrics = jax.lax.scan(add, zeros, (jax.tree.map(split, inputs), jnp.arange(parts)))
    return jax.tree.map(lambda x: x / parts, total), metrics


def _gradients(
    setup: TrainSetup, state: TrainState, clips: Float[Array, "B F Y X C"], indices: Indices, key: jax.Array
) -> tuple[Any, dict[str, Any]]:
    config = setup.config
    context = base.StepContext(step=state.step, key=key, steps=schedules.length(config))

    def loss_of(params: dict[str, Any]) -> tuple[jax.Array, tuple[dict[str, Any], base.Latents]]:
        latents = make_latents(setup, params, state.target_params, clips, indices)
        with jax.named_scope("loss"):
            loss, metrics = base.total_loss(config.objectives, params["heads"], latents, context)
        return loss, (metrics, latents)

    (loss, (metrics, latents)), gradient = jax.value_and_grad(loss_of, has_aux=True)(state.params)
    features = {"target": _sample(latents.target_BxNxD), "context": _sample(latents.views[0].context_BxKxD)}
    return gradient, {"loss": loss, **metrics, "features": features}


def make_latents(
    setup: TrainSetup,
    params: Mapping[str, Any],
    target_params: Mapping[str, Any],
    clips: Float[Array, "B F Y X C"],
    indices: Indices,
) -> base.Latents:
    """Encodes all tokens as targets, then runs encoder and predictor for each mask (context [B, K], target [B, M])."""
    encode, predict = setup.encoder.apply, setup.predictor.apply
    with jax.named_scope("target"):
        separate = setup.config.target != "online"
        target_encoder = target_params if separate else params["encoder"]
        h_BxNxD = setup.target_encoder.apply({"params": target_encoder}, clips, all_levels=True)
        h_BxNxD = normalise_levels(h_BxNxD, setup.encoder.levels)  # pyright: ignore
        if separate:
            h_BxNxD = jax.lax.stop_gradient(h_BxNxD)
    views = []
    for context_index_BxK, target_index_BxM in indices:
        with jax.named_scope("context"):
            z_BxKxD = encode({"params": params["encoder"]}, clips, context_index_BxK, all_levels=True)
        with jax.named_scope("predictor"):
            predicted_BxMxD, context_BxKxD = predict(
                {"params": params["predictor"]},
                z_BxKxD,
                context_index_BxK,
                target_index_BxM,
                grid=setup.grid,
                image=clips.shape[1] == 1,
            )
        views.append(base.View(context_index_BxK, target_index_BxM, z_BxKxD, predicted_BxMxD, context_BxKxD))  # pyright: ignore
    colour_BxNxC = setup.encoder.patches(clips)
    colour_BxNxC = colour_BxNxC.reshape(*colour_BxNxC.shape[:2], -1, clips.shape[-1]).mean(2)
    return base.Latents(tuple(views), h_BxNxD, colour_BxNxC, setup.grid, setup.encoder.levels)


def normalise_levels(h_BxNxD: Float[Array, "B N D"], levels: int) -> Float[Array, "B N D"]:
    """LayerNorm of each level's channels, without scale and bias (ε 1e-5), in float32."""
    h = h_BxNxD.astype(jnp.float32).reshape(*h_BxNxD.shape[:-1], levels, -1)
    mean = h.mean(-1, keepdims=True)
    variance = jnp.square(h - mean).mean(-1, keepdims=True)
    return ((h - mean) * jax.lax.rsqrt(variance + TARGET_EPSILON)).reshape(h_BxNxD.shape)


def _clips(setup: TrainSetup, batch: Batch) -> Float[Array, "B F Y X C"]:
    if "video" in batch:
        return pixels.normalise(batch["video"])
    assert setup.render is not None
    return pixels.normalise(setup.render(batch["seed"][0], batch["item"])[0])


def _sample(features_BxSxD: jax.Array) -> jax.Array:
    """About FEATURE_SAMPLES tokens, spaced evenly over clips and within each clip: [samples, D], float32."""
    batch, tokens, width = features_BxSxD.shape
    each = min(max(FEATURE_SAMPLES // batch, 1), tokens)
    index = jnp.linspace(0, tokens - 1, each).astype(jnp.int32)
    samples = features_BxSxD[:, index].reshape(-1, width).astype(jnp.float32)
    return _thin(samples)


def _thin(samples_SxD: jax.Array) -> jax.Array:
    """About FEATURE_SAMPLES evenly spaced rows."""
    return samples_SxD[:: max(len(samples_SxD) // FEATURE_SAMPLES, 1)]
