"""Five AdamW steps from the study's weights, clip and masks: losses, learning rates and final parameters."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jepa_jax.config import Config
from jepa_jax.models import pixels, torch_weights
from jepa_jax.parity.comparison import PARAMETER, QKV_BIAS_NORM, TRAJECTORY_LOSS, Case, Comparison, Folder
from jepa_jax.parity.objective_cases import head_arrays, head_params
from jepa_jax.settings import parse
from jepa_jax.training import step
from jepa_jax.training.setup import TrainState, build_setup

# PyTorch does not decay parameters without a gradient; this package's optimizer does.
UNUSED = ("img_mod_embed", "patch_embed_img", "mask_tokens.1")
HEAD_WITHOUT_GRADIENT = "fwm_hw_ld"
MASKS = 2
CONTEXT = {"prediction": {}, "context_prediction": {"schedule": {"shape": "constant"}}}
FWM_HW = {
    "factorization_static": {"coefficient": 0.05},
    "factorization_orthogonality": {"coefficient": 0.01},
    "hard_region": {"coefficient": 1.0},
}
SETTINGS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "fwm_hw_ld": {
        "objectives": FWM_HW | {"latent_dynamics": {"channels": "dynamics", "weighting": "hard_without_gradient"}}
    },
    "fwm_hw_ld_as_described": {
        "objectives": FWM_HW | {"latent_dynamics": {"channels": "dynamics", "weighting": "hard"}}
    },
    "no_ema_kinematic": {
        "objectives": {"kinematic": {"coefficient": 0.1, "kind": "acceleration"}},
        "ema": {"enabled": False, "decay": 0.99},
    },
}


def cases(folder: Folder) -> Iterator[Case]:
    """Yields a case for each trajectory in the folder."""
    for name in SETTINGS:
        if folder.has(f"trajectory_{name}.npz"):
            yield Case(f"trajectory/{name}", functools.partial(_compare, folder, name))


def _config(folder: Folder, name: str) -> Config:
    meta, changes = folder.meta, SETTINGS[name]
    return parse(
        Config,
        {
            "steps": 5,
            "batch_size": 2,
            "dtype": np.dtype(folder.dtype).name,
            "clip": {"frames": meta["frames"], "size": meta["crop"]},
            "encoder": {
                "size": f"{meta['embed']}x{meta['depth']}x{meta['heads']}",
                "patch": meta["patch"],
                "tubelet": meta["tubelet"],
            },
            "predictor": {"size": f"{meta['pred_embed']}x{meta['pred_depth']}x{meta['pred_heads']}"},
            "optim": {"warmup_steps": 3},
            "ema": changes.get("ema", {"decay": 0.99}),
            "objectives": CONTEXT | changes.get("objectives", {}),
        },
    )


def _compare(folder: Folder, name: str) -> Iterator[Comparison]:
    data = folder.arrays(f"trajectory_{name}")
    setup = build_setup(_config(folder, name))
    weights = folder.arrays("weights")
    of_encoder, of_predictor = (
        {name: value for name, value in weights.items() if name.startswith(f"{part}.")}
        for part in ("encoder", "predictor")
    )
    encoder = functools.partial(torch_weights.vjepa_encoder, ends=folder.ends)
    predictor = functools.partial(torch_weights.vjepa_predictor, depth=folder.meta["pred_depth"])
    heads = {name: {} for name in setup.config.objectives} | head_params(data, "init")
    params = {"encoder": encoder(of_encoder), "predictor": predictor(of_predictor), "heads": heads}
    params = jax.tree.map(jnp.asarray, params)
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        target_params=params["encoder"] if setup.config.target == "ema" else {},
        opt_state=setup.optimizer.init(params),
        key=jax.random.key_data(jax.random.key(0)),
    )
    clips = pixels.normalise(folder.arrays("encoder")["video_uint8"])
    masks = [
        (jnp.asarray(data[f"in/mask_context{i}"], jnp.int32), jnp.asarray(data[f"in/mask_target{i}"], jnp.int32))
        for i in range(MASKS)
    ]
    update = jax.jit(lambda state: step.update(setup, state, clips, masks, jax.random.key(0)))
    for i, (loss, rate) in enumerate(zip(data["losses"], data["lrs"], strict=True)):
        state, metrics = update(state)
        if name == HEAD_WITHOUT_GRADIENT:
            state = dataclasses.replace(state, params=state.params | {"heads": params["heads"]})
        yield Comparison(f"loss of step {i}", metrics["loss"], loss, TRAJECTORY_LOSS)
        yield Comparison(f"learning rate of step {i}", metrics["learning_rate"], rate, share=1e-6)

    final = to_torch(state.params["encoder"], of_encoder, encoder)
    if state.target_params:
        target = to_torch(state.target_params, of_encoder, encoder)
        final |= {f"target_{name}": value for name, value in target.items()}
    final |= to_torch(state.params["predictor"], of_predictor, predictor)
    if name != HEAD_WITHOUT_GRADIENT:
        final |= {name: np.asarray(value) for name, value in head_arrays(state.params["heads"]).items()}
    yield from _compare_parameters(final, data)


def _compare_parameters(final: Mapping[str, np.ndarray], data: Mapping[str, np.ndarray]) -> Iterator[Comparison]:
    for name, value in final.items():
        if any(part in name for part in UNUSED):
            continue
        # The key bias has zero gradient in exact arithmetic, so Adam scales rounding noise up to full steps.
        norm_tolerance = QKV_BIAS_NORM if name.endswith("qkv.bias") else PARAMETER
        yield Comparison(f"norm of {name}", np.linalg.norm(value), data[f"final_norm/{name}"], norm_tolerance)
        yield Comparison(f"head of {name}", value.ravel()[:8], data[f"final_head/{name}"], PARAMETER)


def to_torch(
    params: Any, weights: Mapping[str, np.ndarray], convert: Callable[[Mapping[str, np.ndarray]], Any]
) -> dict[str, np.ndarray]:
    """Inverts `convert`: returns parameters under PyTorch's names.

    Runs `convert` on arrays of indices to find where it puts each number.
    """
    sizes = [value.size for value in weights.values()]
    starts = np.cumsum([0, *sizes[:-1]])
    indices = {
        name: (start + np.arange(value.size)).reshape(value.shape)
        for start, (name, value) in zip(starts, weights.items(), strict=True)
    }
    flat = np.full(sum(sizes), np.nan)
    jax.tree.map(lambda index, value: flat.__setitem__(index, np.asarray(value)), convert(indices), params)
    return {name: flat[index] for name, index in indices.items()}
