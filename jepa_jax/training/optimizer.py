"""AdamW with scheduled learning rate and weight decay."""

from typing import Any

import jax
import optax

from jepa_jax.config import OptimConfig
from jepa_jax.training import schedules

UNDECAYED = ("bias", "scale")


def decayed(params: Any) -> Any:
    """True for each parameter that weight decay pulls: all but biases and LayerNorm scales.

    Modality embeddings and mask tokens are decayed, as in the study.
    """
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key not in UNDECAYED, params)


def adamw(config: OptimConfig, steps: int) -> optax.GradientTransformation:
    """Adam, then decoupled weight decay, then the learning rate: all schedules of the optimiser's own step count."""
    return optax.chain(
        optax.scale_by_adam(b1=config.beta1, b2=config.beta2, eps=config.epsilon),
        optax.add_decayed_weights(
            lambda count: schedules.weight_decay(config, steps, count + 1),  # pyright: ignore[reportArgumentType]
            mask=decayed,
        ),
        optax.scale_by_learning_rate(lambda count: schedules.learning_rate(config, steps, count + 1)),
    )
