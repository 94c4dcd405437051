"""The very step that training runs, lowered and compiled for a topology, with shapes in place of arrays."""

import dataclasses
import functools
import math
import time
from typing import Any

import jax

from jepa_jax import data
from jepa_jax.compiling import memory
from jepa_jax.compiling.memory import Memory
from jepa_jax.compiling.topology import Topology
from jepa_jax.config import Config
from jepa_jax.training import sharding, step


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A step compiled, or refused for want of memory.

    Attributes:
        seconds: spent lowering and compiling.
        state: shapes, types and shardings of the training state.
        memory: bytes on a chip.
        text: the compiled program as XLA prints it; None if it did not fit.
    """

    seconds: float
    state: Any
    memory: Memory
    text: str | None


def compile_step(config: Config, topology: Topology) -> Compiled:
    """Compiles a training step of `config` for all devices of `topology`.

    Raises:
        ConfigError: settings that cannot be used, or a mesh or batch that does not suit the devices.
        jax.errors.JaxRuntimeError: the compiler failed for another reason than memory.
    """
    mesh = sharding.make_mesh(config.mesh, config.batch_size, topology.devices)
    learner = step.build_learner(config)
    abstract = jax.eval_shape(functools.partial(step.init_state, learner), config.seed)
    shardings = sharding.state_shardings(abstract, mesh)
    state = jax.tree.map(_placed, abstract, shardings)
    batch = {name: _placed(x, sharding.batch_sharding(mesh)) for name, x in data.batch_shapes(config).items()}
    start = time.perf_counter()
    lowered = step.jitted(learner, shardings, mesh).lower(state, batch)  # pyright: ignore[reportFunctionMemberAccess]
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        refused = memory.from_message(str(error), bytes_on_a_chip((state, batch)))
        if refused is None:
            raise
        return Compiled(time.perf_counter() - start, state, refused, None)
    seconds = time.perf_counter() - start
    return Compiled(seconds, state, memory.from_analysis(compiled.memory_analysis()), compiled.as_text())


def bytes_on_a_chip(tree: Any) -> int:
    """What each device holds of arrays with shardings."""
    return sum(x.dtype.itemsize * math.prod(x.sharding.shard_shape(x.shape)) for x in jax.tree.leaves(tree))


def _placed(x: jax.ShapeDtypeStruct, where: jax.sharding.Sharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where)
