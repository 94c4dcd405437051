"""Floating-point operations of a training step: those the model asks for, and those the program contains."""

import dataclasses
import functools
from typing import Any

import jax

from jepa_jax import data
from jepa_jax.config import Config
from jepa_jax.models.sizes import Size
from jepa_jax.training import step


def blocks(size: Size, tokens: int) -> int:
    """Forward FLOPs of all blocks on one clip's tokens: two a multiply-add, matrix products only.

    A block of width E has 4 E² weights in its attention and 2 r E² in its MLP, and multiplies queries with keys and
    attention with values at 2 S² E each.
    """
    width = size.width
    weights = 4 * width**2 + 2 * width * round(width * size.mlp_ratio)
    return size.depth * (2 * tokens * weights + 4 * tokens**2 * width)


def model_flops(config: Config) -> int:
    """FLOPs that one step on the global batch asks for, whatever is computed twice to save memory.

    Forward once, backward twice that (for weights and for inputs; not for inputs of the first layer). The target
    encoder runs forward on all tokens, encoder and predictor forward and backward once a mask. Left out, since small:
    norms, softmax, GELU, rotations, objectives with their heads, the optimizer.
    """
    learner = step.build_learner(config)
    encoder, predictor = learner.encoder, learner.predictor
    width, narrow, levels = encoder.size.width, predictor.size.width, learner.features
    tokens = learner.grid[0] * learner.grid[1] * learner.grid[2]
    patch = 2 * encoder.tubelet * encoder.patch**2 * 3 * width
    backward = 1 if config.ema.enabled else 3
    total = backward * blocks(encoder.size, tokens) + min(backward, 2) * patch * tokens
    for mask in learner.masks:
        seen, hidden = mask.context, mask.target
        embed = levels * width + width * narrow if encoder.levels > 1 else width * narrow
        heads = hidden + (seen if "context_prediction" in config.objectives else 0)
        total += 2 * patch * seen + 3 * blocks(encoder.size, seen)
        total += 3 * (2 * seen * embed + blocks(predictor.size, seen + hidden) + 2 * heads * narrow * levels)
    return config.batch_size * total


def program_flops(config: Config) -> float:
    """FLOPs in the step as it is lowered, on the global batch, recomputation included.

    Counted by XLA on the program for one device with its loops over blocks unrolled, since it would count the body of a
    loop once.
    """
    unrolled = dataclasses.replace(config, encoder=dataclasses.replace(config.encoder, scan=False))
    learner = step.build_learner(unrolled)
    state: Any = jax.eval_shape(functools.partial(step.init_state, learner), config.seed)
    with jax.default_device(jax.devices("cpu")[0]):
        lowered = jax.jit(functools.partial(step.train_step, learner)).lower(state, data.batch_shapes(config))
    analysis = lowered.cost_analysis()
    assert analysis is not None
    return float(analysis["flops"])
