"""Context and target of each mask over the frames of a training batch: masks.png."""

import itertools
import pathlib
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, UInt8

from jepa_jax import data
from jepa_jax.config import Config
from jepa_jax.pictures import film, overlay, sheet, upsample
from jepa_jax.show import clips, training_data
from jepa_jax.show.request import Request
from jepa_jax.training import step as training_step
from jepa_jax.training.setup import TrainState, build_setup, init_state

COLUMNS = 8  # at most: time steps of a clip

Parts = tuple[Bool[np.ndarray, "B T H W"], Bool[np.ndarray, "B T H W"]]


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
    film.write_png(file, picture(video[:shown], titles[:shown], found, request.step))
    return [file]


def draw_masks(config: Config, video_BxFxYxXx3: UInt8[np.ndarray, "B F Y X 3"], step: int) -> dict[str, Parts]:
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


def picture(
    video_BxFxYxXx3: UInt8[np.ndarray, "B F Y X 3"], titles: Sequence[str], found: Mapping[str, Parts], step: int
) -> UInt8[np.ndarray, "_ _ 3"]:
    """Returns one sheet: for each clip its frames, and below them a row for each mask."""
    time = next(iter(found.values()))[0].shape[1]
    frames = video_BxFxYxXx3.shape[1]
    columns = [number * frames // time for number in clips.spread(time, COLUMNS)]
    rows = []
    for index, title in enumerate(titles):
        video = upsample.frames(video_BxFxYxXx3[index], upsample.factor(*video_BxFxYxXx3.shape[2:4]))
        rows.append(sheet.Row("clip", [video[frame] for frame in columns], heading=title))
        for name, (context, target) in found.items():
            painted = overlay.masked(video, context[index], target[index])
            rows.append(sheet.Row(name, [painted[frame] for frame in columns]))
    counts = [
        f"{name}: {context[0].sum()} of {context[0].size} tokens are context, {target[0].sum()} target."
        for name, (context, target) in found.items()
    ]
    footer = "\n".join(["Unchanged: context. Orange: target, to be predicted. Black: not used.", *counts])
    return sheet.sheet(
        rows, title=f"Masks of step {step}", columns=[f"frame {frame}" for frame in columns], footer=footer
    )
