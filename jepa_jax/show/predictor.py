"""The predictor of a training run: what it predicts where tokens are hidden."""

import dataclasses
import functools
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Num

from jepa_jax import masks
from jepa_jax.checkpoints import frozen_target, reader
from jepa_jax.checkpoints.reader import CheckpointError
from jepa_jax.config import Config
from jepa_jax.files.paths import split_step
from jepa_jax.models import pixels
from jepa_jax.run_dir import workdir
from jepa_jax.show import training_data
from jepa_jax.show.request import Request
from jepa_jax.training import step as training_step
from jepa_jax.training.setup import TrainSetup, build_setup, init_state, resolve_attention


@dataclasses.dataclass(frozen=True)
class Model:
    """Encoder, predictor and target encoder.

    Attributes:
        setup: of the training run.
        params: of the encoder and the predictor.
        target_params: of the target encoder; {} if it is the encoder itself.
    """

    setup: TrainSetup
    params: Any
    target_params: Any

    @property
    def config(self) -> Config:
        """The settings of the training run."""
        return self.setup.config


@dataclasses.dataclass(frozen=True)
class Predictions:
    """Predictions of hidden tokens, means over several draws of all masks.

    Attributes:
        error_BxTxHxW: mean absolute error over all channels, in standard deviations of a token's channels; NaN for a
            token that was never hidden.
        predicted_BxTxHxWxE: channels of the last level; NaN where never hidden.
        target_BxTxHxWxE: what the target encoder makes of the whole clip.
    """

    error_BxTxHxW: Float[np.ndarray, "B T H W"]
    predicted_BxTxHxWxE: Float[np.ndarray, "B T H W E"]
    target_BxTxHxWxE: Float[np.ndarray, "B T H W E"]


def load(reference: str) -> Model:
    """Loads WORKDIR[:STEP], random:WORKDIR or random:CONFIG.

    Raises:
        ConfigError: no such run or config.
        CheckpointError: no checkpoint, none of that step, a damaged one, or one without a predictor.
    """
    if reference.startswith("random:"):
        config = training_data.config_of(Request(out=pathlib.Path(), checkpoint=reference), "surprise")
        setup = _setup(config)
        params, target = jax.jit(lambda seed: _weights(init_state(setup, seed)))(config.seed)
        return Model(setup, params, target)
    folder, number = split_step(reference)
    config = workdir.load_config(folder)
    steps, checkpoints = reader.saved_steps(folder), reader.checkpoint_folder(folder)
    if not steps or (number is not None and number not in steps):
        found = f"it has {', '.join(map(str, steps))}" if steps else "it has none"
        raise CheckpointError(f"{folder} has no checkpoint{'' if number is None else f' of step {number}'}; {found}.")
    chosen, damaged = reader.newest_good(checkpoints, steps if number is None else [number])
    if chosen is None:
        raise CheckpointError(f"No usable checkpoint in {checkpoints}. Damaged:{reader.list_damaged(damaged)}")
    reader.warn_damaged(damaged)
    leaves = json.loads((checkpoints / str(chosen) / reader.LEAVES).read_text())["leaves"]
    if not any(name.startswith("params/predictor/") for name in leaves):
        raise CheckpointError(
            f"{checkpoints / str(chosen)} has no predictor, whose errors this picture shows; use the --workdir of a "
            "training run."
        )
    groups = ("params/encoder/", "params/predictor/", "target_params/")
    wanted = {
        name: jax.ShapeDtypeStruct(leaf["shape"], jnp.dtype(leaf["dtype"]))
        for name, leaf in leaves.items()
        if name.startswith(groups)
    }
    loaded = reader.load_arrays(checkpoints / str(chosen), wanted)
    return Model(_setup(config), loaded["params"], loaded.get("target_params", {}))


def predict(model: Model, video_BxFxYxXx3: Num[np.ndarray, "B F Y X 3"], draws: int) -> Predictions:
    """Hides tokens as training does, `draws` times with every mask, and predicts them.

    Draw number i is a function of the run's seed and i.
    """
    setup = model.setup
    grid = setup.grid
    batch, tokens = len(video_BxFxYxXx3), int(np.prod(grid))
    times_BxN = np.zeros((batch, tokens))
    error_BxN, predicted_BxNxE, target = np.zeros((batch, tokens)), 0.0, None
    compiled = jax.jit(functools.partial(_predict, setup))
    for number in range(draws):
        key = jax.random.fold_in(jax.random.key(model.config.seed), number)
        *parts, target = jax.device_get(compiled(model.params, model.target_params, video_BxFxYxXx3, key))
        hidden_BxN, sum_BxN, sum_BxNxE = parts
        times_BxN, error_BxN = times_BxN + hidden_BxN, error_BxN + sum_BxN
        predicted_BxNxE = predicted_BxNxE + sum_BxNxE
    assert target is not None
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN: never hidden
        error_BxN, predicted_BxNxE = error_BxN / times_BxN, predicted_BxNxE / times_BxN[..., None]
    return Predictions(
        error_BxN.reshape(batch, *grid), predicted_BxNxE.reshape(batch, *grid, -1), target.reshape(batch, *grid, -1)
    )


def _predict(setup: TrainSetup, params: Any, target_params: Any, video: Any, key: jax.Array) -> tuple[jax.Array, ...]:
    """Sums over the masks of: how often a token was hidden, its error and its prediction; and the targets."""
    clips = pixels.normalise(video)
    indices = masks.draw_all(setup.masks, key, clips)
    latents = training_step.make_latents(setup, params, target_params, clips, indices)
    target_BxNxD = latents.target_BxNxD
    width = target_BxNxD.shape[-1] // latents.levels
    rows_Bx1 = jnp.arange(len(target_BxNxD))[:, None]
    times_BxN = jnp.zeros(target_BxNxD.shape[:2])
    error_BxN, predicted_BxNxE = times_BxN, jnp.zeros_like(target_BxNxD[..., -width:])
    for view in latents.views:
        hidden = (rows_Bx1, view.target_index_BxM)
        error_BxM = jnp.abs(view.predicted_target_BxMxD - target_BxNxD[hidden]).mean(-1)
        times_BxN = times_BxN.at[hidden].add(1)
        error_BxN = error_BxN.at[hidden].add(error_BxM)
        predicted_BxNxE = predicted_BxNxE.at[hidden].add(view.predicted_target_BxMxD[..., -width:])
    return times_BxN, error_BxN, predicted_BxNxE, target_BxNxD[..., -width:]


def _setup(config: Config) -> TrainSetup:
    target = frozen_target.load(config)
    setup = build_setup(config, None if target is None else target.config.encoder)
    return resolve_attention(setup, jax.default_backend())[0]


def _weights(state: Any) -> tuple[Any, Any]:
    return {name: state.params[name] for name in ("encoder", "predictor")}, state.target_params
