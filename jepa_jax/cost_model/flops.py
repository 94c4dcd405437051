"""FLOPs of a training step: those of the model, and those of the compiled program."""

import dataclasses
import functools
from typing import Any

import jax

from jepa_jax import data
from jepa_jax.config import Config
from jepa_jax.models.sizes import Size
from jepa_jax.training import step
from jepa_jax.training.setup import build_setup, init_state


def blocks(size: Size, tokens: int) -> int:
    """Returns the forward FLOPs of all blocks on one clip's tokens: matrix products only, two per multiply-add.

    A block of width E has 4 E² weights in its attention and 2 r E² in its MLP. The products of queries with keys and of
    attention with values cost 2 S² E each.
    """
    width = size.width
    weights = 4 * width**2 + 2 * width * round(width * size.mlp_ratio)
    return size.depth * (2 * tokens * weights + 4 * tokens**2 * width)


def model_flops(config: Config) -> int:
    """Returns the FLOPs of one step on the global batch without recomputation.

    The backward pass costs twice the forward pass: gradients of weights and of inputs, except the inputs of the first
    layer. The target encoder runs forward on all tokens; encoder and predictor run forward and backward once per mask.
    Norms, softmax, GELU, rotations, objectives and the optimizer are small and not counted.
    """
    setup = build_setup(config)
    encoder, predictor = setup.encoder, setup.predictor
    width, narrow, levels = encoder.size.width, predictor.size.width, setup.features
    tokens = setup.grid[0] * setup.grid[1] * setup.grid[2]
    patch = 2 * encoder.tubelet * encoder.patch**2 * 3 * width
    backward = 3 if config.target == "online" else 1
    total = backward * blocks(encoder.size, tokens) + min(backward, 2) * patch * tokens
    for mask in setup.masks:
        context, target = mask.context, mask.target
        embed = levels * width + width * narrow if encoder.levels > 1 else width * narrow
        heads = target + (context if "context_prediction" in config.objectives else 0)
        total += 2 * patch * context + 3 * blocks(encoder.size, context)
        total += 3 * (2 * context * embed + blocks(predictor.size, context + target) + 2 * heads * narrow * levels)
    return config.batch_size * total


def program_flops(config: Config) -> float:
    """Returns the FLOPs of the lowered step on the global batch, recomputation included.

    XLA counts the body of a loop once, so this lowers a program for one device with the loops over blocks unrolled.
    """
    unrolled = dataclasses.replace(config, encoder=dataclasses.replace(config.encoder, scan=False))
    setup = build_setup(unrolled)
    state: Any = jax.eval_shape(functools.partial(init_state, setup), config.seed)
    with jax.default_device(jax.devices("cpu")[0]):
        lowered = jax.jit(functools.partial(step.train_step, setup)).lower(state, data.batch_shapes(config))
    analysis = lowered.cost_analysis()
    assert analysis is not None
    return float(analysis["flops"])
