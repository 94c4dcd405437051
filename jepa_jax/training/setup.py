"""Everything that stays constant during training (modules, masks, optimizer), and the initial state."""

import dataclasses
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jepa_jax import data, masks, models
from jepa_jax.config import Attention, Config, EncoderConfig
from jepa_jax.data import sources
from jepa_jax.distributed import processes
from jepa_jax.models import attention
from jepa_jax.objectives import base
from jepa_jax.settings import error_prefix
from jepa_jax.training import optimizer, schedules


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """The training state. Together with the config it determines all later steps, including their data."""

    step: Any  # int32 scalar: number of updates so far
    params: dict[str, Any]  # encoder, predictor, heads (by objective)
    target_params: dict[str, Any]  # of the moving average or the frozen target; {} for target "online"
    opt_state: Any
    key: Any  # uint32 [2]: raw data of the run's PRNG key; each step folds in its number


@dataclasses.dataclass(frozen=True)
class TrainSetup:
    """Everything that stays constant during training: modules, masks, optimizer and clip source."""

    config: Config
    encoder: models.Encoder
    target_encoder: models.Encoder  # the same module as `encoder` unless the target is frozen
    predictor: models.Predictor
    grid: masks.Grid  # tokens of a clip in time, height and width
    masks: tuple[masks.MaskPlan, ...]
    optimizer: optax.GradientTransformation
    render: sources.Render | None  # renders the clips of a step; None if batches contain videos
    images: "TrainSetup | None" = None  # the setup for steps on single frames, if config.data.images is "frames"

    @property
    def features(self) -> int:
        """Channels of all levels (D)."""
        return self.encoder.size.width * self.encoder.levels


def build_setup(config: Config, target: EncoderConfig | None = None) -> TrainSetup:
    """Builds everything that stays constant during training.

    Args:
        config: of the run.
        target: config of the frozen target encoder; None if it is the run's own encoder config.

    Raises:
        ConfigError: incompatible sizes, an impossible mask, or an unknown optimizer.
    """
    setup = _setup_of(config, config.clip.frames, target)
    if config.data.images == "frames":
        return dataclasses.replace(setup, images=_setup_of(config, 1, target))
    return setup


def _setup_of(config: Config, frames: int, target: EncoderConfig | None) -> TrainSetup:
    """The setup for clips of `frames` frames. Only the grid and the masks depend on `frames`."""
    dtype = jnp.dtype(config.dtype)
    with error_prefix("config.encoder"):
        encoder = models.build_encoder(config.encoder, dtype)
        models.level_ends(encoder.size.depth, encoder.levels, encoder.level_ends)
    with error_prefix("config.target_checkpoint"):
        target_encoder = encoder if target is None else models.build_encoder(target, dtype)
        _require_same_tokens(encoder, target_encoder)
    with error_prefix("config.predictor"):
        predictor = models.build_predictor(config.predictor, config.encoder, dtype)
        features = encoder.size.width * encoder.levels
        if config.predictor.output not in (0, features):
            raise ValueError(
                f"output is {config.predictor.output}; training needs 0 or the {features} channels of all levels"
            )
    with error_prefix("config.clip"):
        shape = (1, frames, *config.clip.shape[1:])
        grid = encoder.grid(jax.ShapeDtypeStruct(shape, jnp.float32))
        render = renderer(config)
    with error_prefix("config.optim"):
        transformation = optimizer.build(config.optim, schedules.length(config))
    plans = []
    for name, mask in config.masks.items():
        with error_prefix(f"config.masks.{name}"):
            plans.append(masks.plan(mask, grid))
    return TrainSetup(
        config=config,
        encoder=encoder,
        target_encoder=target_encoder,
        predictor=predictor,
        grid=grid,
        masks=tuple(plans),
        optimizer=transformation,
        render=render,
    )


def resolve_attention(
    setup: TrainSetup, platform: str, kernel: attention.Attend | None = attention.fused
) -> tuple[TrainSetup, attention.Choice]:
    """The setup with the attention of its config in every module, `auto` resolved, and what was chosen. Collective.

    Args:
        setup: of the run.
        platform: of the devices: cpu, gpu or tpu.
        kernel: the fused attention, which `auto` compares with XLA's on this machine; None if it cannot run here.
    """
    asked = setup.config.encoder.attention
    if asked == "auto":
        own = attention.choose(platform, setup.config.dtype, attention_shapes(setup), kernel)
        chosen = attention.agree(processes.gather(own))
    else:
        chosen = attention.Choice(asked, f"config.encoder.attention is {asked}")
    return _with_attention(setup, chosen.kind), chosen


def attention_shapes(setup: TrainSetup) -> set[attention.Shape]:
    """The shape of every attention in a training step."""
    time, height, width = setup.grid
    shapes = {attention.Shape(time * height * width, setup.target_encoder.size.head_width)}
    for mask in setup.masks:
        shapes.add(attention.Shape(mask.context, setup.encoder.size.head_width))
        shapes.add(attention.Shape(mask.context + mask.target, setup.predictor.size.head_width))
    return shapes if setup.images is None else shapes | attention_shapes(setup.images)


def _with_attention(setup: TrainSetup, kind: Attention) -> TrainSetup:
    """The setup with this attention in every module, whatever the run of a frozen target used."""
    return dataclasses.replace(
        setup,
        encoder=setup.encoder.clone(attention=kind),
        target_encoder=setup.target_encoder.clone(attention=kind),
        predictor=setup.predictor.clone(attention=kind),
        images=None if setup.images is None else _with_attention(setup.images, kind),
    )


def _require_same_tokens(encoder: models.Encoder, target: models.Encoder) -> None:
    """Raises ValueError unless both encoders have the same tokens and channels. Depth and heads may differ."""
    values = [
        {"patch": e.patch, "tubelet": e.tubelet, "levels": e.levels, "width": e.size.width} for e in (encoder, target)
    ]
    different = [
        f"{name} {values[1][name]} instead of {own}" for name, own in values[0].items() if own != values[1][name]
    ]
    if different:
        raise ValueError(
            f"the target encoder has {', '.join(different)}. The predictor predicts its output, so patch, tubelet, "
            "levels and width must match config.encoder; depth and heads may differ"
        )


def renderer(config: Config) -> sources.Render | None:
    """The function that renders the clips of a step; None if batches contain videos."""
    if not data.renders_in_step(config.data):
        return None
    (source,) = config.data.sources.values()
    return sources.kind_of(source).renderer(source, config.clip)


def init_state(setup: TrainSetup, seed: int | jax.Array) -> TrainState:
    """The initial state, a function of the seed only.

    A frozen target has random parameters here; training replaces them with those of its checkpoint.
    """
    config = setup.config
    key = jax.random.key(seed)
    encoder_key, predictor_key, heads_key, run_key = jax.random.split(key, 4)
    encoder = init_encoder(config, encoder_key)
    index = jnp.zeros((1, 1), jnp.int32)
    features = jnp.zeros((1, 1, setup.features))
    predictor = setup.predictor.init(predictor_key, features, index, index, grid=setup.grid)["params"]
    dims = base.Dims(features=setup.features, levels=setup.encoder.levels)
    heads = {
        # Keyed by name, so that a head's initial parameters do not depend on the other objectives.
        name: objective.init(jax.random.fold_in(heads_key, zlib.crc32(name.encode())), dims)
        for name, objective in config.objectives.items()
    }
    params = {"encoder": encoder, "predictor": predictor, "heads": heads}
    target = {
        "ema": lambda: jax.tree.map(jnp.copy, encoder),
        "online": dict,
        "frozen": lambda: _init_frozen(setup, encoder_key),
    }
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        target_params=target[config.target](),
        opt_state=setup.optimizer.init(params),
        key=jax.random.key_data(run_key),
    )


def _init_frozen(setup: TrainSetup, key: jax.Array) -> dict[str, Any]:
    clips = jnp.zeros((1, *setup.config.clip.shape))
    return setup.target_encoder.init(key, clips)["params"]  # pyright: ignore[reportReturnType]


def init_encoder(config: Config, key: jax.Array) -> dict[str, Any]:
    """Untrained encoder parameters."""
    clips = jnp.zeros((1, *config.clip.shape))
    return models.build_encoder(config.encoder).init(key, clips)["params"]  # pyright: ignore[reportReturnType]
