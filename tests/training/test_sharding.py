"""All meshes train the same model. Tests which arrays are split, and the log of large arrays that are not."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from jepa_jax import objectives
from jepa_jax.checkpoints import tree_paths
from jepa_jax.config import Config
from jepa_jax.distributed import sharding
from jepa_jax.settings import parse
from jepa_jax.training import step
from jepa_jax.training.setup import build_setup, init_state

STEPS = 10
SETTINGS = {
    "steps": STEPS,
    "batch_size": 8,
    "dtype": "float32",
    "clip": {"frames": 4, "size": 16},
    "encoder": {"size": "32x2x2", "patch": 4, "levels": 2},
    "predictor": {"size": "16x1x2"},
    "ema": {"decay": 0.9},
    "masks": {"short": {}},
}


def mesh_of(data, fsdp):
    return jax.make_mesh(
        (data, fsdp), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2, devices=jax.devices()[: data * fsdp]
    )


def train(data, fsdp):
    """Returns the losses of ten steps and the final state."""
    setup, mesh = build_setup(parse(Config, SETTINGS)), mesh_of(data, fsdp)
    init = functools.partial(init_state, setup)
    shardings = sharding.state_shardings(jax.eval_shape(init, 0), mesh)
    state = jax.jit(init, out_shardings=shardings)(0)
    kernel = state.params["encoder"]["groups_0"]["block"]["qkv"]["kernel"]
    assert len({str(shard.index) for shard in kernel.addressable_shards}) == fsdp
    assert state.opt_state[0].mu["encoder"]["groups_0"]["block"]["qkv"]["kernel"].sharding == kernel.sharding
    assert state.target_params["groups_0"]["block"]["qkv"]["kernel"].sharding == kernel.sharding
    update = jax.jit(
        functools.partial(step.train_step, setup),
        donate_argnums=0,
        out_shardings=(shardings, sharding.replicated(mesh)),
    )
    random, losses = np.random.default_rng(0), []
    for _ in range(STEPS):
        video = random.integers(0, 256, (8, 4, 16, 16, 3), dtype=np.uint8)
        state, metrics = update(state, sharding.put_batch({"video": video}, mesh))
        losses.append(float(metrics["loss"]))
    return losses, jax.device_get(state)


@pytest.fixture(scope="module", autouse=True)
def split_small_arrays():
    """Lowers the size limit so that this tiny model is split."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharding, "LARGE", 256)
        yield


@pytest.fixture(scope="module")
def one_device():
    return train(1, 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "fsdp"),
    [(2, 4), (2, 1), (1, 2), (4, 1), (2, 2), (1, 4), (8, 1), (4, 2), (1, 8)],
)
def test_training_does_not_depend_on_the_mesh(one_device, data, fsdp):
    losses, state = train(data, fsdp)
    np.testing.assert_allclose(losses, one_device[0], atol=1e-5)
    for part in ("params", "target_params"):
        expected = tree_paths.by_name(getattr(one_device[1], part))
        for name, leaf in tree_paths.by_name(getattr(state, part)).items():
            np.testing.assert_allclose(leaf, expected[name], atol=1e-4, err_msg=f"{part}/{name}")


def test_every_array_of_every_objective_has_a_rule():
    every = {name: {"coefficient": 1.0} for name in objectives.CLASSES}
    setup = build_setup(parse(Config, SETTINGS | {"objectives": every}))
    abstract = jax.eval_shape(functools.partial(init_state, setup), 0)
    names = tree_paths.by_name({"params": abstract.params, "target_params": abstract.target_params})
    assert len(names) > 60
    assert [name for name in names if sharding.axes_to_split(name) is None] == []


def spec(name, shape, fsdp=4):
    group, _, last = name.rpartition("/")
    abstract = {group: {last: jax.ShapeDtypeStruct(shape, jnp.float32)}}
    return sharding.state_shardings(abstract, mesh_of(2, fsdp))[group][last].spec


def test_kernels_are_split_by_output_or_input_channels_but_not_by_block():
    assert spec("params/a/kernel", (12, 24, 32)) == PartitionSpec(None, None, "fsdp")
    assert spec("params/a/kernel", (12, 24, 30)) == PartitionSpec(None, "fsdp")
    assert spec("opt_state/0/mu/a/kernel", (24, 32)) == PartitionSpec(None, "fsdp")


def test_large_replicated_arrays_are_logged_with_their_size(caplog):
    assert spec("params/a/kernel", (512, 30, 30)) == PartitionSpec()
    assert spec("params/a/bias", (512, 128)) == PartitionSpec()
    assert spec("params/a/strange", (512, 128)) == PartitionSpec()
    text = " ".join(caplog.text.split())
    assert re.search(r"1\.76 MiB on every device: params/a/kernel \(512, 30, 30\): 1\.76 MiB, 4 divides none", text)
    assert "params/a/bias (512, 128): 0.25 MiB, by rule" in text
    assert "params/a/strange (512, 128): 0.25 MiB, no rule matches" in text


def test_small_arrays_are_replicated_silently(caplog):
    assert spec("params/a/kernel", (4, 4)) == PartitionSpec()
    assert spec("params/a/kernel", (64, 64), fsdp=1) == PartitionSpec()
    assert caplog.text == ""
