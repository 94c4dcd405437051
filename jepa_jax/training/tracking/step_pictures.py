"""Pictures during training: features of the target encoder as colours, and the masks, of a few clips of a batch."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from jepa_jax.models import pixels
from jepa_jax.pictures import clip_sheets, overlay
from jepa_jax.training import step
from jepa_jax.training.setup import TrainSetup, TrainState

CLIPS = 3


def picture_inputs(setup: TrainSetup, state: TrainState, batch: step.Batch) -> dict[str, Any]:
    """Returns what the pictures of a step show: pure, traced under jit, before the update.

    Args:
        setup: of the run.
        state: before the step.
        batch: of the step.

    Returns:
        Of the first CLIPS clips: `video` uint8 [B, F, Y, X, 3]; `tokens` float32 [B, T, H, W, E], the output of the
        target encoder; and `indices`, context and target positions of each mask by its name, as the step draws them.
    """
    setup = step.for_batch(setup, batch)
    clips, indices, _ = step.prepare(setup, state, batch)
    params = state.params["encoder"] if setup.config.target == "online" else state.target_params
    # Of the whole batch, which may be split over devices that do not divide CLIPS.
    tokens_BxNxE: Any = setup.target_encoder.apply({"params": params}, clips)
    mean_C, std_C = (jnp.asarray(x, jnp.float32) for x in (pixels.IMAGENET_MEAN, pixels.IMAGENET_STD))
    video = jnp.rint(255 * (clips[:CLIPS] * std_C + mean_C))
    return {
        "video": jnp.clip(video, 0, 255).astype(jnp.uint8),
        "tokens": tokens_BxNxE[:CLIPS].astype(jnp.float32).reshape(-1, *setup.grid, tokens_BxNxE.shape[-1]),
        "indices": {
            name: (context[:CLIPS], target[:CLIPS])
            for name, (context, target) in zip(setup.config.masks, indices, strict=True)
        },
    }


def draw(inputs: Mapping[str, Any], number: int) -> dict[str, UInt8[np.ndarray, "_ _ 3"]]:
    """Returns the pictures of a step by name.

    Args:
        inputs: from `picture_inputs`, as numpy arrays.
        number: of the step, from 1.
    """
    video, tokens = inputs["video"], inputs["tokens"]
    grid = tokens.shape[1:4]
    titles = [f"clip {row}" for row in range(len(video))]
    painted = clip_sheets.paint({"target": tokens}, clip_sheets.frame_shape(video))
    found = {}
    for name, both in inputs["indices"].items():
        context, target = (np.stack([overlay.is_in(index_S, grid) for index_S in index_BxS]) for index_BxS in both)
        found[name] = context, target
    return {
        "features": clip_sheets.features(video, titles, painted, title=f"Features before step {number}"),
        "masks": clip_sheets.masks(video, titles, found, title=f"Masks of step {number}"),
    }


def read(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the inputs on the host."""
    return jax.device_get(dict(inputs))
