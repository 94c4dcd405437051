"""Five AdamW steps from the study's weights, clip and masks give the study's losses and parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jepa_jax import pixels
from jepa_jax.config import Config, parse
from jepa_jax.models import torch_weights
from jepa_jax.training import step
from jepa_jax.training.state import TrainState

LOSS, PARAMETER, QKV_BIAS_NORM = 2e-6, 2e-5, 1e-4
# PyTorch leaves a parameter without gradient alone, weight decay included; ours decays it.
UNUSED = ("img_mod_embed", "patch_embed_img", "mask_tokens.1")
CONFIG = {
    "steps": 5,
    "batch_size": 2,
    "dtype": "float32",
    "clip": {"frames": 8, "size": 64},
    "encoder": {"size": "32x12x2"},
    "predictor": {"size": "16x4x2"},
    "optim": {"warmup_steps": 3},
    "ema": {"decay": 0.99},
    "objectives": {"prediction": {}, "context_prediction": {"start": 0.0, "end": 0.0}},
}


def to_torch(params, weights, convert):
    """Parameters under PyTorch's names: `convert` is run on an array of addresses to learn where each number went."""
    sizes = [value.size for value in weights.values()]
    starts = np.cumsum([0, *sizes[:-1]])
    addresses = {
        name: (start + np.arange(value.size)).reshape(value.shape)
        for start, (name, value) in zip(starts, weights.items(), strict=True)
    }
    flat = np.full(sum(sizes), np.nan)
    jax.tree.map(lambda at, value: flat.__setitem__(at, np.asarray(value)), convert(addresses), params)
    return {name: flat[at] for name, at in addresses.items()}


def test_five_steps(golden):
    weights, clip, data = golden("weights"), golden("encoder"), golden("trajectory_baseline")
    learner = step.build_learner(parse(Config, CONFIG))
    of_encoder = {name: value for name, value in weights.items() if name.startswith("encoder.")}
    of_predictor = {name: value for name, value in weights.items() if name.startswith("predictor.")}

    def encoder(weights):
        return torch_weights.vjepa_encoder(weights, (3, 6, 9, 12))

    def predictor(weights):
        return torch_weights.vjepa_predictor(weights, 4)

    params = {
        "encoder": encoder(of_encoder),
        "predictor": predictor(of_predictor),
        "heads": {"prediction": {}, "context_prediction": {}},
    }
    params = jax.tree.map(jnp.asarray, params)
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        target_params=params["encoder"],
        opt_state=learner.optimizer.init(params),
        key=jax.random.key_data(jax.random.key(0)),
    )
    clips = pixels.normalise(clip["video_uint8"])
    masks = [
        tuple(jnp.asarray(data[f"in/mask_{part}{i}"], jnp.int32) for part in ("context", "target")) for i in (0, 1)
    ]
    update = jax.jit(lambda state: step.update(learner, state, clips, masks, jax.random.key(0)))
    for loss, rate in zip(data["losses"], data["lrs"], strict=True):
        state, metrics = update(state)
        assert float(metrics["loss"]) == pytest.approx(loss, abs=LOSS)
        assert float(metrics["learning_rate"]) == pytest.approx(rate, rel=1e-6)

    final = to_torch(state.params["encoder"], of_encoder, encoder)
    final |= to_torch(state.params["predictor"], of_predictor, predictor)
    target = to_torch(state.target_params, of_encoder, encoder)
    final |= {f"target_{name}": value for name, value in target.items()}
    checked = 0
    for name, value in final.items():
        if any(part in name for part in UNUSED):
            continue
        # The key part of a qkv bias has no true gradient: Adam turns its rounding noise into steps of full size.
        atol = QKV_BIAS_NORM if name.endswith("qkv.bias") else PARAMETER
        assert np.linalg.norm(value) == pytest.approx(float(data[f"final_norm/{name}"]), abs=atol), name
        np.testing.assert_allclose(value.ravel()[:8], data[f"final_head/{name}"], atol=PARAMETER, rtol=0, err_msg=name)
        checked += 1
    assert checked == 370
