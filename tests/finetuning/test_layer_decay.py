"""Layer-wise learning rates follow their formula, and frozen blocks are not updated."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jepa_jax import models
from jepa_jax.config import EncoderConfig, OptimConfig
from jepa_jax.finetune import layer_decay
from jepa_jax.training import optimizer

ENCODER = models.build_encoder(EncoderConfig(size="16x5x1", patch=8, levels=2))
LAYERS = {  # 2 blocks, then 3; the embeddings are layer 0, norms and head layer 6
    "groups_0": [1, 2],
    "groups_1": [3, 4, 5],
    "patch_embedding": 0,
    "image_patch_embedding": 0,
    "video_modality": 0,
    "image_modality": 0,
    "norms_0": 6,
    "norms_1": 6,
}


@pytest.fixture(scope="module")
def params():
    """Shapes of the parameters."""
    clips = jax.ShapeDtypeStruct((1, 2, 16, 16, 3), jnp.float32)
    encoder = jax.eval_shape(ENCODER.init, jax.random.key(0), clips)["params"]
    return {"encoder": encoder, "head": {"kernel": jax.ShapeDtypeStruct((16, 3), jnp.float32)}}


@pytest.mark.parametrize("decay", [0.65, 0.9, 1.0])
def test_rates_follow_the_formula(params, decay):
    """decay^(L + 1 − l) (arXiv:2111.06377)."""
    factors = layer_decay.multipliers(params, ENCODER, decay, frozen=0)
    assert set(params["encoder"]) == set(LAYERS)
    for name, layers in LAYERS.items():
        for factor, param in zip(
            jax.tree.leaves(factors["encoder"][name]), jax.tree.leaves(params["encoder"][name]), strict=True
        ):
            np.testing.assert_allclose(factor.ravel(), decay ** (6 - np.ravel(layers)), rtol=1e-6)
            assert np.broadcast_shapes(factor.shape, param.shape) == param.shape
    assert factors["head"]["kernel"] == 1


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_frozen_blocks_do_not_change_and_others_do(name):
    """Not even by weight decay, and their gradients do not count in the clipping of the gradient norm."""
    blocks = {"groups_0": np.ones((2, 4, 4)), "groups_1": np.ones((3, 4, 4)), "patch_embedding": np.ones((4, 4))}
    before = {"encoder": {name: {"kernel": x} for name, x in blocks.items()}, "head": {"kernel": np.ones((4, 2))}}
    config = OptimConfig(name=name, start_lr=1e-2, warmup_steps=0, grad_clip_norm=1.0)
    factors = layer_decay.multipliers(before, ENCODER, 0.75, frozen=4)
    transformation = layer_decay.scaled(optimizer.build(config, 10), factors)
    ones = jax.tree.map(np.ones_like, before)
    huge = jax.tree.map(lambda x, f: np.where(f > 0, x, 1e6), ones, factors)

    @jax.jit
    def step(gradient):
        updates, _ = transformation.update(gradient, transformation.init(before), before)
        return optax.apply_updates(before, updates)

    after = step(ones)
    jax.tree.map(np.testing.assert_array_equal, after, step(huge))
    for part in ("patch_embedding", "groups_0"):
        np.testing.assert_array_equal(after["encoder"][part]["kernel"], before["encoder"][part]["kernel"])
    last = after["encoder"]["groups_1"]["kernel"]  # blocks 3, 4 and 5
    np.testing.assert_array_equal(last[:2], 1)
    assert (last[2] != 1).all()
    assert (after["head"]["kernel"] != 1).all()
    # The rate of block 5 of 5 is 0.75 times that of the head. 1 − 1e-4 is rounded by up to 3e-8.
    np.testing.assert_allclose(1 - last[2, 0, 0], 0.75 * (1 - after["head"]["kernel"][0, 0]), atol=6e-8)
