"""What is computed beside some training steps: the gradient audit and the pictures."""

import functools
from collections.abc import Callable
from typing import Any

import jax

from jepa_jax.distributed import sharding
from jepa_jax.training import audit
from jepa_jax.training.setup import TrainSetup, TrainState
from jepa_jax.training.tracking import step_pictures

Observe = Callable[[TrainState, Any], dict[str, Any]]


class Observers:
    """Compiled functions of the state before a step and its batch. They change neither; results are replicated."""

    def __init__(self, setup: TrainSetup, mesh: jax.sharding.Mesh):
        """Compiles nothing yet."""
        self._config = setup.config
        self._audit = _jitted(functools.partial(audit.audit, setup), mesh)
        self._pictures = _jitted(functools.partial(step_pictures.picture_inputs, setup), mesh)

    def audit(self, done: int, state: TrainState, batch: Any) -> dict[str, Any]:
        """The gradient audit if it is due after `done` steps, else {}."""
        every = self._config.audit.every
        return self._audit(state, batch) if every and done % every == 0 else {}

    def pictures(self, done: int, state: TrainState, batch: Any) -> dict[str, Any] | None:
        """The inputs of the pictures if they are due after `done` steps, else None."""
        every = self._config.log.pictures_every
        return self._pictures(state, batch) if every and done % every == 0 else None


def _jitted(observe: Observe, mesh: jax.sharding.Mesh) -> Observe:
    return jax.jit(sharding.on_mesh(mesh, observe), out_shardings=sharding.replicated(mesh))
