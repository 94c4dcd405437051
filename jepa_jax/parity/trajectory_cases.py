"""Five AdamW steps from the study's weights, clip and masks: losses, learning rates and final parameters."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jepa_jax.config import Config
from jepa_jax.models import pixels
from jepa_jax.parity import model_cases
from jepa_jax.parity.comparison import PARAMETER, QKV_BIAS_NORM, TRAJECTORY_LOSS, Case, Comparison, Folder
from jepa_jax.parity.objective_cases import head_arrays, head_params
from jepa_jax.settings import parse
from jepa_jax.training import step
from jepa_jax.training.setup import TrainState, build_setup
from jepa_jax.weights import assemble

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
    heads = {name: {} for name in setup.config.objectives} | head_params(data, "init")
    params = jax.tree.map(jnp.asarray, {**model_cases.params(folder), "heads": heads})
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

    modules = model_cases.modules(folder)
    final = assemble.tensors(modules["encoder"], state.params["encoder"])
    if state.target_params:
        target = assemble.tensors(modules["encoder"], state.target_params)
        final |= {f"target_{name}": value for name, value in target.items()}
    final |= assemble.tensors(modules["predictor"], state.params["predictor"])
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
