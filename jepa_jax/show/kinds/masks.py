"""Context and target of each mask over the frames of a training batch: masks.png."""

import itertools
import pathlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from jepa_jax import data
from jepa_jax.config import Config
from jepa_jax.pictures import clip_sheets, film, overlay
from jepa_jax.show import clips, training_data
from jepa_jax.show.request import Request
from jepa_jax.training import step as training_step
from jepa_jax.training.setup import TrainState, build_setup, init_state


def draw(request: Request) -> Sequence[pathlib.Path]:
    """Writes masks.png: the batch of step `step`, or the clips of `source`, under the masks of that step."""
    config = training_data.config_of(request, "masks")
    if request.source is not None:
        chosen = clips.read(request, config)
        video, titles = chosen.rgb, chosen.titles
    else:
        opened = data.open_sources(config.data)
        ledger = data.new_ledger(config.data, opened)
        (batch,) = itertools.islice(training_data.batches(config, request.step, opened, ledger), 1)
        video, titles = batch.video_BxFxYxXxC, batch.titles
    shown = min(request.clips, len(video)) if request.source is None else len(video)
    drawn = draw_masks(config, video, request.step)
    found = {name: (context[:shown], target[:shown]) for name, (context, target) in drawn.items()}
    file = request.out / "masks.png"
    film.write_png(file, clip_sheets.masks(video[:shown], titles[:shown], found, f"Masks of step {request.step}"))
    return [file]


def draw_masks(
    config: Config, video_BxFxYxXx3: UInt8[np.ndarray, "B F Y X 3"], step: int
) -> dict[str, clip_sheets.Parts]:
    """Returns the context and the target of each mask as the training step of number `step` draws them.

    The draw depends on the number of clips, and motion-guided masks on the clips.
    """
    setup = build_setup(config)
    key = jax.jit(lambda seed: init_state(setup, seed).key)(config.seed)  # the rest of the state is not computed
    state = TrainState(step=jnp.int32(step), params={}, target_params={}, opt_state=(), key=key)
    batch = {"video": jnp.asarray(video_BxFxYxXx3)}
    setup = training_step.for_batch(setup, batch)
    _, indices, _ = training_step.prepare(setup, state, batch)
    found = {}
    for name, both in zip(config.masks, indices, strict=True):
        context, target = (
            np.stack([overlay.is_in(index_S, setup.grid) for index_S in np.asarray(index_BxS)]) for index_BxS in both
        )
        found[name] = context, target
    return found
