"""All that a run carries from step to step."""

import dataclasses
from typing import Any

import jax


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """The state of a run; with the config it determines everything that follows, the data included."""

    step: Any  # int32 scalar: updates made
    params: dict[str, Any]  # encoder, predictor, heads (by objective)
    target_params: dict[str, Any]  # moving average of the encoder; {} when EMA is off
    opt_state: Any
    key: Any  # uint32 [2]: raw data of the run's PRNG key; each step folds its number in
