"""Properties of the training step that hold for any values of its inputs."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jepa_jax import data
from jepa_jax.config import Config
from jepa_jax.settings import parse
from jepa_jax.training import optimizer, step
from jepa_jax.training.setup import build_setup, init_state

SETTINGS = {
    "steps": 10,
    "batch_size": 8,
    "dtype": "float32",
    "clip": {"frames": 4, "size": 16},
    "encoder": {"size": "32x2x2", "patch": 4, "levels": 2},
    "predictor": {"size": "16x1x2"},
    "optim": {"warmup_steps": 0},
    "ema": {"decay": 0.9},
    "masks": {"short": {}},
    "objectives": {"prediction": {}, "context_prediction": {"schedule": {"shape": "constant"}}},
}

# Without compiler optimizations, a tiny step compiles in half the time.
fast_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": "0"})


def build(**changes):
    return build_setup(parse(Config, SETTINGS | changes))


@pytest.fixture(scope="module")
def setup():
    return build()


@pytest.fixture(scope="module")
def state(setup):
    return fast_jit(functools.partial(init_state, setup))(0)


@pytest.fixture(scope="module")
def batch():
    video = np.random.default_rng(0).integers(0, 256, (8, 4, 16, 16, 3), dtype=np.uint8)
    return {"video": jnp.asarray(video)}


@pytest.fixture(scope="module")
def jitted(setup):
    return fast_jit(functools.partial(step.train_step, setup))


def latents_of(setup, state, batch, params=None, target_params=None):
    clips = step.pixels.normalise(batch["video"])
    indices = step.masks.draw_all(setup.masks, jax.random.key(0), clips)
    return step.make_latents(
        setup,
        state.params if params is None else params,
        state.target_params if target_params is None else target_params,
        clips,
        indices,
    )


def loss_of(setup, latents):
    context = step.base.StepContext(step=jnp.zeros((), jnp.int32), key=jax.random.key(0), steps=10)
    return step.base.total_loss(
        setup.config.objectives, {name: {} for name in setup.config.objectives}, latents, context
    )[0]


def test_no_gradient_reaches_the_target_encoder(setup, state, batch):
    gradient = fast_jit(jax.grad(lambda target: loss_of(setup, latents_of(setup, state, batch, target_params=target))))(
        state.target_params
    )
    assert all(not np.asarray(leaf).any() for leaf in jax.tree.leaves(gradient))


@pytest.mark.slow
def test_targets_carry_gradient_without_ema(state, batch):
    """The loss equals that with a copy of the encoder as target, but the gradient differs."""

    def gradient(setup):
        return fast_jit(
            jax.value_and_grad(lambda params: loss_of(setup, latents_of(setup, state, batch, params=params)))
        )(state.params)

    (with_ema, of_ema), (without, of_online) = gradient(build()), gradient(build(ema={"enabled": False}))
    assert float(with_ema) == pytest.approx(float(without), abs=1e-6)
    difference = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), of_ema["encoder"], of_online["encoder"])
    assert max(map(float, jax.tree.leaves(difference))) > 1e-3
    assert not jax.eval_shape(functools.partial(init_state, build(ema={"enabled": False})), 0).target_params


def test_context_features_do_not_depend_on_target_pixels(setup, state, batch):
    clips = step.pixels.normalise(batch["video"])
    context_BxK, target_BxM = step.masks.draw_all(setup.masks, jax.random.key(0), clips)[0]
    tokens = np.asarray(setup.encoder.patches(clips))
    changed = tokens.copy()
    np.put_along_axis(changed, np.asarray(target_BxM)[..., None], 7.0, axis=1)
    seen = tokens.copy()
    np.put_along_axis(seen, np.asarray(context_BxK)[:, :1, None], 7.0, axis=1)

    def clips_of(tokens):
        time, height, width = setup.grid
        x = tokens.reshape(8, time, height, width, 2, 4, 4, 3).transpose(0, 1, 4, 2, 5, 3, 6, 7)
        return jnp.asarray(x.reshape(clips.shape))

    np.testing.assert_array_equal(clips_of(tokens), clips)
    encode = fast_jit(functools.partial(setup.encoder.apply, all_levels=True))
    z, z_changed, z_seen = (
        np.asarray(encode({"params": state.params["encoder"]}, clips_of(x), context_BxK))
        for x in (tokens, changed, seen)
    )
    np.testing.assert_array_equal(z, z_changed)
    assert np.abs(z - z_seen).max(axis=(1, 2)).min() > 1e-2


@pytest.mark.slow
def test_target_encoder_is_the_moving_average(jitted, state, batch):
    decay, encoders, now = 0.9, [], state
    for _ in range(3):
        now, _ = jitted(now, batch)
        encoders.append(now.params["encoder"])
    expected = jax.tree.map(
        lambda first, a, b, c: decay**3 * first + (1 - decay) * (decay**2 * a + decay * b + c),
        state.target_params,
        *encoders,
    )
    chex.assert_trees_all_close(now.target_params, expected, atol=1e-6)


def test_step_is_a_pure_function_of_state_and_batch(jitted, state, batch):
    (a, metrics), (b, _) = jitted(state, batch), jitted(state, batch)
    chex.assert_trees_all_equal(a, b)
    later, other = jitted(dataclasses.replace(state, step=state.step + 1), batch)
    assert float(other["loss"]) != float(metrics["loss"])  # other masks
    assert int(later.step) == 2


@pytest.mark.slow
def test_weight_decay_applies_to_all_but_biases_and_scales(state, batch):
    """Steps with and without a huge decay differ by −lr·decay·p, or not at all."""
    rate, decay = 1e-3, 1e3
    # Rounding of a gradient changes the update by at most lr/ε times as much. With Adam's default ε it can flip the
    # update of a weight with almost no gradient.
    optim = {"warmup_steps": 0, "peak_lr": rate, "final_lr": rate, "epsilon": 0.1}
    setup = build(optim=optim | {"weight_decay": 0.0, "final_weight_decay": 0.0})
    decaying = build(optim=optim | {"weight_decay": decay, "final_weight_decay": decay})
    # Mask tokens are initialized to zero, where decay has no effect.
    state = dataclasses.replace(state, params=jax.tree.map(lambda p: p + 0.01, state.params))
    after = [fast_jit(functools.partial(step.train_step, x))(state, batch)[0].params for x in (setup, decaying)]
    leaves = jax.tree_util.tree_leaves_with_path(state.params)
    undecayed = set()
    for (path, p), without, with_decay in zip(leaves, *map(jax.tree.leaves, after), strict=True):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        pulled = name.rsplit("/")[-1] not in ("bias", "scale")
        if not pulled:
            undecayed.add(name.rsplit("/")[-1])
        expected = without - rate * decay * p if pulled else without
        np.testing.assert_allclose(with_decay, expected, atol=1e-6, err_msg=name)
    assert undecayed == {"bias", "scale"}
    decayed = optimizer.decayed(state.params)
    assert decayed["encoder"]["video_modality"]
    assert decayed["predictor"]["mask_tokens"]


@pytest.mark.slow
def test_bfloat16_keeps_float32_parameters(jitted, state, batch):
    after, metrics = fast_jit(functools.partial(step.train_step, build(dtype="bfloat16")))(state, batch)
    chex.assert_trees_all_equal_dtypes(after, state)
    assert {x.dtype for x in jax.tree.leaves(after.params)} == {jnp.dtype("float32")}
    reference = jitted(state, batch)[1]
    assert float(metrics["loss"]) == pytest.approx(float(reference["loss"]), rel=0.02)


@pytest.mark.parametrize("kind", ["sprites", "directions", "moving_discs"])
def test_all_seeds_share_one_compiled_step(kind):
    def lowered(seed):
        setup = build(seed=seed, data={"sources": {"rendered": {"kind": kind}}})
        state = jax.eval_shape(functools.partial(init_state, setup), seed)
        return (
            jax.jit(functools.partial(step.train_step, setup)).lower(state, data.batch_shapes(setup.config)).as_text()
        )

    assert lowered(1) == lowered(2)


def test_training_lowers_the_loss(jitted, state, batch):
    now, losses = state, []
    for _ in range(10):
        now, metrics = jitted(now, batch)
        losses.append(float(metrics["loss/prediction"]))
    assert losses[-1] < losses[0]
    assert all(np.isfinite(losses))
