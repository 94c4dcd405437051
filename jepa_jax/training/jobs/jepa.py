"""Pretraining a JEPA, as a job of the training loop."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from etils import epath

from jepa_jax import data
from jepa_jax.checkpoints import frozen_target, initial_weights, tree_paths
from jepa_jax.checkpoints.initial_weights import InitialWeights
from jepa_jax.checkpoints.reader import EncoderCheckpoint
from jepa_jax.config import Config
from jepa_jax.distributed import processes
from jepa_jax.settings import ConfigError
from jepa_jax.training import step
from jepa_jax.training.jobs import base
from jepa_jax.training.setup import TrainState, build_setup, init_state, resolve_attention
from jepa_jax.training.tracking.observers import Observers

Parts = dict[str, Any]  # parameters by the path of their group in the state, such as params/encoder


def build(config: Config, given: Mapping[str, Any], is_new: bool, workdir: epath.PathLike) -> base.Job:
    """Builds everything that does not need the run's folder, and checks that all processes built the same. Collective.

    Args:
        config: of the run.
        given: the arguments that this process was started with.
        is_new: whether the run starts from step 0, so that its initial weights are read.
        workdir: of the run.

    Raises:
        ConfigError: settings that cannot be used, or initial weights that do not fit them.
        CheckpointError: the checkpoint of the frozen target or of the initial weights cannot be read.
    """
    del workdir
    mesh = base.make_mesh(config)
    sources = data.open_sources(config.data)
    target = frozen_target.load(config)
    setup = build_setup(config, None if target is None else target.config.encoder)
    weights = initial_weights.read(config.init) if config.init and is_new else None
    unusable = None if weights is None else initial_weights.require_fit(config, weights)
    identities = base.identify(given, sources, weights)
    platform = jax.default_backend()
    setup, chosen = resolve_attention(setup, platform)
    if platform != "cpu":
        processes.say(f"Attention: {chosen}.")
    init = functools.partial(init_state, setup)
    abstract, shardings = base.with_shardings(jax.eval_shape(init, config.seed), mesh)
    parts: Parts = {} if target is None else {"target_params": target.params}
    start = None
    if weights is not None:
        taken, start = _take(config, weights, unusable, abstract)
        parts |= taken

    def init_on_devices() -> TrainState:
        return _replace(jax.jit(init, out_shardings=shardings)(config.seed), parts, shardings)

    return base.Job(
        config=config,
        mesh=mesh,
        sources=sources,
        identities=identities,
        abstract=abstract,
        jit_step=lambda: step.jitted(setup, shardings, mesh),
        init=init_on_devices,
        start=start,
        check_folder=None if target is None else functools.partial(_check_target, config, target),
        observers=Observers(setup, mesh),
    )


def _check_target(config: Config, target: EncoderCheckpoint, folder: epath.Path) -> None:
    frozen_target.require_same(folder, config.target_checkpoint, target)


def _take(
    config: Config, weights: InitialWeights, unusable: str | None, abstract: TrainState
) -> tuple[Parts, base.Start]:
    """Returns what the initial state takes from weights, and its description."""
    parts: Parts = {"params/encoder": weights.encoder_params}
    taken, fresh = ["encoder"], ["optimizer"]
    if config.target == "ema":
        parts["target_params"] = weights.target_params
        taken.append("target encoder")
    if weights.predictor_params is None or unusable:
        fresh.append(f"predictor ({unusable or 'the file has none'})")
    else:
        parts["params/predictor"] = weights.predictor_params
        taken.append("predictor")
    for name, head in abstract.params["heads"].items():
        if not jax.tree.leaves(head):
            continue
        if name in weights.heads and not _differences(weights.heads[name], head):
            parts[f"params/heads/{name}"] = weights.heads[name]
            taken.append(f"head of {name}")
        else:
            fresh.append(f"head of {name}")
    for path, params in parts.items():
        if lines := _differences(params, _at(abstract, path)):
            raise ConfigError(
                f"config.init is {weights.reference}, whose {path} does not fit:\n  " + "\n  ".join(lines)
            )
    return parts, base.Start(weights, tuple(taken), tuple(fresh))


def _differences(found: Any, expected: Any) -> list[str]:
    return tree_paths.differences(*(tree_paths.describe(tree_paths.by_name(tree)) for tree in (found, expected)))


def _at(state: TrainState, path: str) -> Any:
    first, *keys = path.split("/")
    return functools.reduce(lambda tree, key: tree[key], keys, getattr(state, first))


def _replace(state: TrainState, parts: Parts, shardings: TrainState) -> TrainState:
    """The state with other parameters at some paths."""
    for path, params in parts.items():
        placed = jax.device_put(jax.tree.map(np.asarray, params), _at(shardings, path))
        first, *keys = path.split("/")
        state = dataclasses.replace(state, **{first: _with(getattr(state, first), keys, placed)})
    return state


def _with(tree: Any, keys: list[str], value: Any) -> Any:
    return {**tree, keys[0]: _with(tree[keys[0]], keys[1:], value)} if keys else value
