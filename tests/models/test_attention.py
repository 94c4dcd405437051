import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run

from jepa_jax import models
from jepa_jax.config import Config
from jepa_jax.cost_model import flops, hlo, program, topology, traffic
from jepa_jax.distributed import sharding
from jepa_jax.models.attention import kernels
from jepa_jax.settings import parse

interpreted = functools.partial(kernels.splash_attention, interpret=True)


def tokens(batch, count, heads=2, width=16):
    keys = jax.random.split(jax.random.key(count), 3)
    return tuple(2 * jax.random.normal(key, (batch, count, heads, width)) for key in keys)


def values_and_gradients(function, qkv):
    """Values, and gradients of a loss that weights every token differently."""

    def loss(qkv):
        values = function(*qkv)
        return jnp.sum(values * jnp.cos(jnp.arange(values.size).reshape(values.shape))), values

    (_, values), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(qkv)
    return values, *gradients


@pytest.mark.parametrize("count", [128, 130])
def test_tpu_kernel_matches_dot_product_attention(count):
    """Forward and backward, with complete and with padded blocks of tokens."""
    qkv = tokens(1, count)
    expected = values_and_gradients(jax.nn.dot_product_attention, qkv)
    for actual, desired in zip(values_and_gradients(interpreted, qkv), expected, strict=True):
        np.testing.assert_allclose(actual, desired, atol=2e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-5), (jnp.bfloat16, 0.05)])
def test_xla_attention_matches_dot_product_attention(dtype, tolerance):
    qkv = tuple(x.astype(dtype) for x in tokens(2, 20, heads=3))
    expected = values_and_gradients(jax.nn.dot_product_attention, qkv)
    for actual, desired in zip(values_and_gradients(kernels.by_xla, qkv), expected, strict=True):
        assert actual.dtype == dtype
        np.testing.assert_allclose(*(x.astype(jnp.float32) for x in (actual, desired)), atol=tolerance)


def test_each_device_of_a_mesh_computes_only_its_clips():
    """Without `per_device` the compiler would gather all clips on every device."""
    qkv = tokens(4, 128)
    mesh = sharding.make_mesh(parse(Config, {"mesh": {"fsdp": 2}}).mesh, 4, jax.devices()[:4])
    split = sharding.batch_sharding(mesh)
    function = jax.jit(sharding.on_mesh(mesh, interpreted), in_shardings=split, out_shardings=split)
    compiled = function.lower(*qkv).compile()
    assert "all-gather" not in compiled.as_text()
    np.testing.assert_allclose(compiled(*jax.device_put(qkv, split)), jax.nn.dot_product_attention(*qkv), atol=2e-5)


@pytest.mark.parametrize("count", [128, 384, 1664, 2048, 18_432])
def test_block_sizes_divide_the_tokens_and_fit_on_the_chip(count):
    blocks = kernels.blocks(count)
    for size in (blocks.block_q, blocks.block_kv):
        assert count % size == size % kernels.LANES == 0
    assert kernels.LANES <= blocks.block_kv <= kernels.LONGEST
    assert blocks.block_q * blocks.block_kv <= kernels.AREA


def config(kind, **changes):
    return parse(Config, tiny_run.SETTINGS | {"encoder": tiny_run.SETTINGS["encoder"] | {"attention": kind}} | changes)


@pytest.mark.slow
def test_fused_attention_without_a_kernel_equals_xla():
    """Features, gradients and counted FLOPs are equal."""
    clips = jnp.linspace(-1, 1, 4 * 16 * 16 * 3).reshape(1, 4, 16, 16, 3)

    def features_and_gradients(kind):
        encoder = models.build_encoder(config(kind).encoder)
        params = jax.jit(encoder.init)(jax.random.key(0), clips)
        return jax.jit(jax.value_and_grad(lambda params: jnp.sum(encoder.apply(params, clips) ** 3)))(params)

    found = [features_and_gradients(kind) for kind in ("xla", "fused", "auto")]
    for other in found[1:]:
        jax.tree.map(np.testing.assert_array_equal, found[0], other)
    assert flops.program_flops(config("fused")) == flops.program_flops(config("xla"))


@pytest.mark.slow
def test_fused_attention_reduces_memory_traffic_on_tpus():
    pytest.importorskip("libtpu", reason="the TPU compiler is not installed (extra `tpu`)")
    devices = topology.parse_topology("v5e:2x2")
    shape = {"clip": {"frames": 16, "size": 128}, "dtype": "bfloat16"}  # 2,048 tokens
    moved = {}
    # Not fused as well: it is the same program as auto, and libtpu without a TPU cannot read the compilation cache.
    for kind, expected in {"xla": "xla", "auto": "fused"}.items():
        compiled = program.compile_step(config(kind, **shape), devices)
        assert compiled.attention.kind == expected
        assert ("splash" in compiled.text) == (expected == "fused")
        moved[kind] = traffic.traffic(hlo.parse(compiled.text))
    assert moved["auto"] < 0.2 * moved["xla"]
