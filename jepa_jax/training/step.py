"""The training step: one pure function of state and batch."""

import dataclasses
import functools
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from jepa_jax import data, masking, models, pixels
from jepa_jax.config import Config, blame
from jepa_jax.data import sprites
from jepa_jax.objectives import base
from jepa_jax.training import optimizer, schedules, sharding
from jepa_jax.training.state import TrainState

Batch = Mapping[str, jax.Array]
Indices = list[tuple[Int[Array, "B _"], Int[Array, "B _"]]]  # context [B, K] and target [B, M] of each mask
FEATURE_SAMPLES = 256  # tokens a step whose features are handed out, for their spread and rank
TARGET_EPSILON = 1e-5  # of the LayerNorm without affine part that targets go through


@dataclasses.dataclass(frozen=True)
class Learner:
    """The fixed parts of a run: modules, masks, optimiser, and how clips come about."""

    config: Config
    encoder: models.Encoder
    predictor: models.Predictor
    grid: masking.Grid  # tokens of a clip in time, height and width
    masks: tuple[masking.MaskPlan, ...]
    optimizer: optax.GradientTransformation
    sprites: sprites.SpriteSpec | None  # rendered in the step, where the batch holds no video
    images: "Learner | None" = None  # the same for single frames, where steps of these alternate with steps of clips

    @property
    def features(self) -> int:
        """Channels of all levels (D)."""
        return self.encoder.size.width * self.encoder.levels


def build_learner(config: Config) -> Learner:
    """Everything of a run that does not change while it trains.

    Raises:
        ConfigError: sizes that do not fit together, a mask that cannot be.
    """
    learner = _learner_of(config, config.clip.frames)
    if config.data.images == "frames":
        return dataclasses.replace(learner, images=_learner_of(config, 1))
    return learner


def _learner_of(config: Config, frames: int) -> Learner:
    """For clips of so many frames; nothing but grid and masks depends on their number."""
    dtype = jnp.dtype(config.dtype)
    with blame("config.encoder"):
        encoder = models.build_encoder(config.encoder, dtype)
        models.level_ends(encoder.size.depth, encoder.levels)
    with blame("config.predictor"):
        predictor = models.build_predictor(config.predictor, config.encoder, dtype)
    with blame("config.clip"):
        shape = (1, frames, config.clip.size, config.clip.size, 3)
        grid = encoder.grid(jax.ShapeDtypeStruct(shape, jnp.float32))
        spec = sprite_spec(config)
    plans = []
    for name, mask in config.masks.items():
        with blame(f"config.masks.{name}"):
            plans.append(masking.plan(mask, grid))
    return Learner(
        config=config,
        encoder=encoder,
        predictor=predictor,
        grid=grid,
        masks=tuple(plans),
        optimizer=optimizer.adamw(config.optim, config.steps),
        sprites=spec,
    )


def sprite_spec(config: Config) -> sprites.SpriteSpec | None:
    """The sprites that the step renders, or None where batches hold videos."""
    if not data.renders_in_step(config.data):
        return None
    (source,) = config.data.sources.values()
    return sprites.SpriteSpec(config.clip.frames, config.clip.size, source.difficulty)


def init_state(learner: Learner, seed: int | jax.Array) -> TrainState:
    """The state before the first step: a function of the seed alone."""
    config = learner.config
    key = jax.random.key(seed)
    encoder_key, predictor_key, heads_key, run_key = jax.random.split(key, 4)
    encoder = init_encoder(config, encoder_key)
    index = jnp.zeros((1, 1), jnp.int32)
    features = jnp.zeros((1, 1, learner.features))
    predictor = learner.predictor.init(predictor_key, features, index, index, grid=learner.grid)["params"]
    dims = base.Dims(features=learner.features, levels=learner.encoder.levels)
    heads = {
        # By name: a head starts the same whatever other objectives there are.
        name: objective.init(jax.random.fold_in(heads_key, zlib.crc32(name.encode())), dims)
        for name, objective in config.objectives.items()
    }
    params = {"encoder": encoder, "predictor": predictor, "heads": heads}
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        target_params=jax.tree.map(jnp.copy, encoder) if config.ema.enabled else {},
        opt_state=learner.optimizer.init(params),
        key=jax.random.key_data(run_key),
    )


def init_encoder(config: Config, key: jax.Array) -> dict[str, Any]:
    """Untrained encoder parameters."""
    clips = jnp.zeros((1, config.clip.frames, config.clip.size, config.clip.size, 3))
    return models.build_encoder(config.encoder).init(key, clips)["params"]  # pyright: ignore[reportReturnType]


def train_step(learner: Learner, state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Any]]:
    """One update.

    Args:
        learner: the fixed parts (static under jit).
        state: before the step; may be donated.
        batch: `video` uint8 [B, F, Y, X, C] (F = 1: single frames, see `Learner.images`), or, for sprites rendered
            here, `item` [B].

    Returns:
        The state after, and metrics: scalars, and under `features` samples of target and context features.
    """
    learner = for_batch(learner, batch)
    return update(learner, state, *prepare(learner, state, batch))


def for_batch(learner: Learner, batch: Batch) -> Learner:
    """The learner of what the batch holds, clips or single frames; which one is known when the step is compiled."""
    single = "video" in batch and batch["video"].shape[1] == 1
    return learner.images if single and learner.images is not None else learner


def jitted(learner: Learner, shardings: TrainState, mesh: jax.sharding.Mesh) -> Callable[..., Any]:
    """`train_step` of state and batch as training runs it: compiled once, in the memory of the state before.

    Args:
        learner: the fixed parts.
        shardings: of the state, before and after.
        mesh: the devices, each of which gets the metrics.
    """
    return jax.jit(
        sharding.on_mesh(mesh, functools.partial(train_step, learner)),
        donate_argnums=0,
        out_shardings=(shardings, sharding.replicated(mesh)),
    )


def prepare(learner: Learner, state: TrainState, batch: Batch) -> tuple[jax.Array, Indices, jax.Array]:
    """What the step at `state` works on: clips (normalised), the positions of each mask, and a key for objectives."""
    key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
    mask_key, objective_key = jax.random.split(key)
    clips = _clips(learner, batch)
    return clips, _draw_masks(learner, mask_key, clips), objective_key


def update(
    learner: Learner,
    state: TrainState,
    clips: Float[Array, "B F Y X C"],
    indices: Indices,
    key: jax.Array,
) -> tuple[TrainState, dict[str, Any]]:
    """The update of `train_step` on given clips (normalised) and masks; `key` is for objectives that need chance."""
    config = learner.config
    moment = base.Moment(step=state.step, key=key, steps=config.steps)

    def loss_of(params: dict[str, Any]) -> tuple[jax.Array, tuple[dict[str, Any], base.Latents]]:
        latents = make_latents(learner, params, state.target_params, clips, indices)
        loss, metrics = base.total_loss(config.objectives, params["heads"], latents, moment)
        return loss, (metrics, latents)

    (loss, (metrics, latents)), gradient = jax.value_and_grad(loss_of, has_aux=True)(state.params)
    updates, opt_state = learner.optimizer.update(gradient, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    target_params = state.target_params
    if config.ema.enabled:
        target_params = optax.incremental_update(params["encoder"], target_params, 1 - config.ema.decay)  # pyright: ignore
    metrics = {
        "loss": loss,
        **metrics,
        "gradient_norm": optax.tree.norm(gradient),
        "learning_rate": schedules.learning_rate(config.optim, config.steps, state.step + 1),
        "weight_decay": schedules.weight_decay(config.optim, config.steps, state.step + 1),
        "ema_decay": jnp.float32(config.ema.decay if config.ema.enabled else 0.0),  # 0: the target is the encoder
        "features": {"target": _sample(latents.target_BxNxD), "context": _sample(latents.views[0].context_BxKxD)},
    }
    after = TrainState(state.step + 1, params, target_params, opt_state, state.key)  # pyright: ignore[reportArgumentType]
    return after, metrics


def make_latents(
    learner: Learner,
    params: Mapping[str, Any],
    target_params: Mapping[str, Any],
    clips: Float[Array, "B F Y X C"],
    indices: Indices,
) -> base.Latents:
    """Target pass on all tokens, and for each mask (context [B, K], target [B, M]) a context and predictor pass."""
    encode, predict = learner.encoder.apply, learner.predictor.apply
    with_ema = learner.config.ema.enabled
    target_encoder = target_params if with_ema else params["encoder"]
    h_BxNxD = normalise_levels(encode({"params": target_encoder}, clips, all_levels=True), learner.encoder.levels)  # pyright: ignore
    if with_ema:
        h_BxNxD = jax.lax.stop_gradient(h_BxNxD)
    views = []
    for context_index_BxK, target_index_BxM in indices:
        z_BxKxD = encode({"params": params["encoder"]}, clips, context_index_BxK, all_levels=True)
        predicted_BxMxD, context_BxKxD = predict(
            {"params": params["predictor"]},
            z_BxKxD,
            context_index_BxK,
            target_index_BxM,
            grid=learner.grid,
            image=clips.shape[1] == 1,
        )
        views.append(base.View(context_index_BxK, target_index_BxM, z_BxKxD, predicted_BxMxD, context_BxKxD))  # pyright: ignore
    colour_BxNxC = learner.encoder.patches(clips)
    colour_BxNxC = colour_BxNxC.reshape(*colour_BxNxC.shape[:2], -1, clips.shape[-1]).mean(2)
    return base.Latents(tuple(views), h_BxNxD, colour_BxNxC, learner.grid, learner.encoder.levels)


def normalise_levels(h_BxNxD: Float[Array, "B N D"], levels: int) -> Float[Array, "B N D"]:
    """Each level's channels to mean 0 and variance 1 (ε 1e-5, no affine part), in float32."""
    h = h_BxNxD.astype(jnp.float32).reshape(*h_BxNxD.shape[:-1], levels, -1)
    mean = h.mean(-1, keepdims=True)
    variance = jnp.square(h - mean).mean(-1, keepdims=True)
    return ((h - mean) * jax.lax.rsqrt(variance + TARGET_EPSILON)).reshape(h_BxNxD.shape)


def _clips(learner: Learner, batch: Batch) -> Float[Array, "B F Y X C"]:
    if "video" in batch:
        return pixels.normalise(batch["video"])
    source = next(iter(learner.config.data.sources.values()))
    assert learner.sprites is not None
    return pixels.normalise(sprites.render(learner.sprites, learner.config.seed, source.split, batch["item"])[0])


def _draw_masks(learner: Learner, key: jax.Array, clips: jax.Array) -> Indices:
    motion = None
    if any(plan.config.motion_strength > 0 for plan in learner.masks):
        motion = masking.motion_map(clips, learner.grid)
    return [
        masking.draw(plan, jax.random.fold_in(key, i), clips.shape[0], motion) for i, plan in enumerate(learner.masks)
    ]


def _sample(features_BxSxD: jax.Array) -> jax.Array:
    """About FEATURE_SAMPLES tokens, spread evenly over clips and over each: [samples, D], float32."""
    batch, tokens, width = features_BxSxD.shape
    each = min(max(FEATURE_SAMPLES // batch, 1), tokens)
    index = jnp.linspace(0, tokens - 1, each).astype(jnp.int32)
    samples = features_BxSxD[:, index].reshape(-1, width).astype(jnp.float32)
    return samples[:: max(len(samples) // FEATURE_SAMPLES, 1)]
