"""The interface between the training loop and a kind of training."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import jax
from etils import epath

from jepa_jax import data
from jepa_jax.checkpoints.initial_weights import InitialWeights
from jepa_jax.config import RunConfig
from jepa_jax.distributed import processes, sharding
from jepa_jax.run_dir import data_identity
from jepa_jax.run_dir.workdir import versions
from jepa_jax.settings import ConfigError
from jepa_jax.training.setup import TrainState
from jepa_jax.training.tracking.observers import Observers

TrainStep = Callable[[TrainState, Any], tuple[TrainState, dict[str, Any]]]
AnyTree = TypeVar("AnyTree")


@dataclasses.dataclass(frozen=True)
class Start:
    """The state before the first step, where it comes from weights.

    Attributes:
        weights: that were read.
        taken: what the state has from them.
        fresh: what it does not have from them.
    """

    weights: InitialWeights
    taken: tuple[str, ...]
    fresh: tuple[str, ...]

    def __str__(self) -> str:
        fresh = f" Fresh: {', '.join(self.fresh)}." if self.fresh else ""
        return f"Starting from {self.weights}: {', '.join(self.taken)}.{fresh}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """Everything that a run needs before its folder is opened.

    Attributes:
        config: of the run.
        mesh: all devices of all processes.
        sources: in the order of the config; None for a source of weight 0.
        identities: what each source contains, by its name.
        abstract: shapes, dtypes and shardings of the state.
        jit_step: returns the jitted training step, of state and batch.
        init: makes the initial state on the devices.
        start: what of that state comes from weights; None if nothing does, or if the run is resumed.
        check_folder: compares further inputs with those that the run in a folder began with. Called in process 0.
        observers: what is computed beside some steps, if anything is.
    """

    config: RunConfig
    mesh: jax.sharding.Mesh
    sources: Sequence[data.Source | None]
    identities: data_identity.Identities
    abstract: TrainState
    jit_step: Callable[[], Any]
    init: Callable[[], TrainState]
    start: Start | None = None
    check_folder: Callable[[epath.Path], None] | None = None
    observers: Observers | None = None


Build = Callable[[Any, Mapping[str, Any], bool, epath.PathLike], Job]
"""Builds a job from the config of a run, the arguments of this process, whether the run starts from step 0, and its
folder. Checks that all processes built the same. Collective."""


def make_mesh(config: RunConfig) -> jax.sharding.Mesh:
    """Returns the mesh of a run.

    Raises:
        ConfigError: the devices do not divide the batch.
    """
    mesh = sharding.make_mesh(config.mesh, config.batch_size)
    ways = mesh.size * config.optim.accumulate
    if config.batch_size % ways:
        raise ConfigError(
            f"config.batch_size is {config.batch_size}, which {mesh.size} devices × config.optim.accumulate "
            f"{config.optim.accumulate} do not divide; use a multiple of {ways}."
        )
    return mesh


def identify(
    given: Mapping[str, Any], opened: Sequence[data.Source | None], weights: InitialWeights | None
) -> data_identity.Identities:
    """Returns the identities of a run's sources, after checking that all processes have the same inputs. Collective.

    Args:
        given: the arguments that this process was started with.
        opened: the sources.
        weights: that the run starts from.

    Raises:
        ConfigError: the processes were started with different commands, code, data or weights.
    """
    identities = data_identity.identify_all(opened)
    content = {name: identity.digest for name, identity in identities.items()}
    own = {"data": data.describe(opened), "data_content": content, "versions": versions()}
    own["init_sha256"] = None if weights is None else weights.sha256
    processes.require_same({**given, **own})
    return identities


def with_shardings(abstract: AnyTree, mesh: jax.sharding.Mesh) -> tuple[AnyTree, Any]:
    """Returns a state's shapes with their shardings on a mesh, and the shardings."""
    shardings = sharding.state_shardings(abstract, mesh)
    placed = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), abstract, shardings)
    return placed, shardings
