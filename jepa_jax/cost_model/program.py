"""The training step, lowered and compiled for a topology from abstract arrays."""

import dataclasses
import functools
import math
import time
from typing import Any

import jax

from jepa_jax import data
from jepa_jax.config import Config
from jepa_jax.cost_model import memory
from jepa_jax.cost_model.memory import Memory
from jepa_jax.cost_model.topology import Topology
from jepa_jax.distributed import sharding
from jepa_jax.models import attention
from jepa_jax.training import step
from jepa_jax.training.setup import build_setup, init_state, resolve_attention


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A compiled step, or one that did not fit in memory.

    Attributes:
        seconds: time to lower and compile.
        state: shapes, types and shardings of the training state.
        memory: bytes on a chip.
        text: HLO text of the compiled program; None if it did not fit.
        attention: the attention that was compiled.
    """

    seconds: float
    state: Any
    memory: Memory
    text: str | None
    attention: attention.Choice


def compile_step(config: Config, topology: Topology) -> Compiled:
    """Compiles a training step of `config` for all devices of `topology`.

    Attention `auto` is what a run on these devices chooses, if its comparison of the kernel with XLA's succeeds.

    Raises:
        ConfigError: invalid settings, or a mesh or batch that the devices do not divide.
        jax.errors.JaxRuntimeError: the compiler failed for a reason other than memory.
    """
    mesh = sharding.make_mesh(config.mesh, config.batch_size, topology.devices)
    setup, chosen = resolve_attention(build_setup(config), topology.devices[0].platform, kernel=None)
    abstract = jax.eval_shape(functools.partial(init_state, setup), config.seed)
    shardings = sharding.state_shardings(abstract, mesh)
    state = jax.tree.map(_with_sharding, abstract, shardings)
    batch = {name: _with_sharding(x, sharding.batch_sharding(mesh)) for name, x in data.batch_shapes(config).items()}
    start = time.perf_counter()
    lowered = step.jitted(setup, shardings, mesh).lower(state, batch)  # pyright: ignore[reportFunctionMemberAccess]
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        needed = memory.from_message(str(error), bytes_on_a_chip((state, batch)))
        if needed is None:
            raise
        return Compiled(time.perf_counter() - start, state, needed, None, chosen)
    seconds = time.perf_counter() - start
    used = memory.from_analysis(compiled.memory_analysis())
    return Compiled(seconds, state, used, compiled.as_text(), chosen)


def bytes_on_a_chip(tree: Any) -> int:
    """Returns the bytes that each device holds of sharded arrays."""
    return sum(x.dtype.itemsize * math.prod(x.sharding.shard_shape(x.shape)) for x in jax.tree.leaves(tree))


def _with_sharding(x: jax.ShapeDtypeStruct, sharding: jax.sharding.Sharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
