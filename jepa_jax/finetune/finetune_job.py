"""Fine-tuning as a job of the training loop, and the evaluation that follows it."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from jepa_jax import models
from jepa_jax.checkpoints import initial_weights, tree_paths
from jepa_jax.checkpoints.initial_weights import InitialWeights
from jepa_jax.config import ClipConfig, EncoderConfig
from jepa_jax.distributed import processes
from jepa_jax.files.paths import locate
from jepa_jax.finetune import classification, labelled_sources, scoring
from jepa_jax.finetune.classification import Classifier
from jepa_jax.finetune.finetune_config import FinetuneConfig
from jepa_jax.finetune.labelled_sources import LabelledSources
from jepa_jax.models import attention
from jepa_jax.settings import ConfigError, error_prefix
from jepa_jax.training import extension, loop, step
from jepa_jax.training.jobs import base
from jepa_jax.training.monitor import Profile
from jepa_jax.training.setup import TrainState


def finetune(
    config: FinetuneConfig,
    workdir: epath.PathLike,
    overwrite: bool = False,
    extend: extension.Schedules | None = None,
    profile: Profile | None = None,
) -> loop.Outcome:
    """Fine-tunes as `loop.train` trains, then writes WORKDIR/results.json and predictions.csv. Collective.

    Raises:
        The errors of `loop.train`.
    """
    outcome = loop.train(config, workdir, overwrite, extend, profile, build=build)
    if outcome.stopped_by is None:
        folder = locate(workdir)
        opened = labelled_sources.open_sources(config)
        encoder = _recorded_encoder(config, folder)
        scoring.score(_classifier(config, encoder, opened), opened, folder)
    return outcome


def build(config: FinetuneConfig, given: Mapping[str, Any], is_new: bool, workdir: epath.PathLike) -> base.Job:
    """Builds everything that does not need the run's folder, and checks that all processes built the same. Collective.

    Args:
        config: of the run.
        given: the arguments that this process was started with.
        is_new: whether the run starts from step 0, so that its initial weights are read.
        workdir: of the run; if it is resumed, its record has the encoder's settings.

    Raises:
        ConfigError: settings, clips or weights that cannot be used.
        CheckpointError: the checkpoint of the initial weights cannot be read.
    """
    if not config.init:
        raise ConfigError(
            "config.init is empty; name the encoder to fine-tune: WORKDIR or WORKDIR:STEP of a training run, a file or "
            "folder of released weights, or a model on the Hugging Face hub."
        )
    mesh = base.make_mesh(config)
    opened = labelled_sources.open_sources(config)
    weights = initial_weights.read(config.init) if is_new else None
    encoder = _recorded_encoder(config, locate(workdir)) if weights is None else weights.encoder
    classifier = _classifier(config, encoder, opened)
    identities = base.identify(given, opened.opened, weights)
    if weights is not None:
        _say_if_clips_differ(config.clip, weights)
    init = functools.partial(classification.init_state, classifier)
    abstract, shardings = base.with_shardings(jax.eval_shape(init, config.seed), mesh)
    if weights is not None:
        _require_params(weights, abstract)
    return base.Job(
        config=config,
        mesh=mesh,
        sources=opened.opened,
        identities=identities,
        abstract=abstract,
        jit_step=lambda: step.jit_on_mesh(functools.partial(classification.train_step, classifier), shardings, mesh),
        init=functools.partial(_init, init, config.seed, weights, shardings),
        start=None if weights is None else base.Start(weights, ("encoder",), ("optimizer", f"{config.head.kind} head")),
    )


def _init(init: Any, seed: int, weights: InitialWeights | None, shardings: TrainState) -> TrainState:
    state = jax.jit(init, out_shardings=shardings)(seed)
    assert weights is not None  # a run without a checkpoint is a new one
    encoder = jax.device_put(jax.tree.map(np.asarray, weights.target_params), shardings.params["encoder"])
    return dataclasses.replace(state, params={**state.params, "encoder": encoder})


def _classifier(config: FinetuneConfig, settings: EncoderConfig, opened: LabelledSources) -> Classifier:
    """Builds the modules. Collective.

    Raises:
        ConfigError: clips, blocks or heads that do not fit the encoder.
    """
    settings = dataclasses.replace(settings, remat=config.remat, scan=True, attention="auto")
    encoder = models.build_encoder(settings, jnp.dtype(config.dtype))
    size = encoder.size
    with error_prefix("config.clip"):
        time, height, width = encoder.grid(jax.ShapeDtypeStruct((1, *config.clip.shape), jnp.float32))
    if config.freeze_blocks > size.depth:
        raise ConfigError(f"config.freeze_blocks is {config.freeze_blocks}; the encoder has {size.depth} blocks.")
    if config.head.kind != "linear" and size.width % config.head.heads:
        raise ConfigError(
            f"config.head.heads is {config.head.heads}, which does not divide the encoder's width, {size.width}."
        )
    shape = attention.Shape(time * height * width, size.head_width)
    own = attention.choose(jax.default_backend(), config.dtype, {shape}, attention.fused)
    chosen = attention.agree(processes.gather(own))
    return Classifier(
        config=config,
        encoder=encoder.clone(attention=chosen.kind),
        head=classification.build_head(config.head, len(opened.classes)),
        task=opened.task,
        classes=opened.classes,
        label_I=None if opened.render is not None else opened.label_I,
        render=opened.render,
    )


def _recorded_encoder(config: FinetuneConfig, folder: epath.Path) -> EncoderConfig:
    record = processes.from_main(lambda: initial_weights.load_record(folder))
    if record is None:
        raise ConfigError(
            f"{folder} has no {initial_weights.RECORD}, which records the encoder of {config.init}. Use another "
            "--workdir."
        )
    return record.encoder


def _require_params(weights: InitialWeights, abstract: TrainState) -> None:
    found, expected = (
        tree_paths.describe(tree_paths.by_name(tree)) for tree in (weights.target_params, abstract.params["encoder"])
    )
    if lines := tree_paths.differences(found, expected):
        listed = "".join(f"\n  {line}" for line in lines)
        raise ConfigError(f"config.init is {weights.reference}, whose encoder does not fit its settings:{listed}")


def _say_if_clips_differ(clip: ClipConfig, weights: InitialWeights) -> None:
    if weights.clip is not None and weights.clip != clip:
        theirs = weights.clip
        size = theirs.height if theirs.height == theirs.width else f'"({theirs.height}, {theirs.width})"'
        processes.say(
            f"Clips of {_described(clip)}; the encoder was trained on {_described(theirs)} "
            f"(--config.clip.frames={theirs.frames} --config.clip.size={size})."
        )


def _described(clip: ClipConfig) -> str:
    return f"{clip.frames}×{clip.height}×{clip.width}"
