"""Attention `auto`: a kernel only where there is one for the inputs, and only if it agrees with XLA's attention."""

import functools

import jax
import jax.numpy as jnp
import pytest

from jepa_jax.models import attention
from jepa_jax.models.attention import Choice, Shape, kernels, self_check

interpreted = functools.partial(kernels.splash_attention, interpret=True)
xla = jax.nn.dot_product_attention
SHAPES = {Shape(130, 16), Shape(64, 16), Shape(20, 8)}


@pytest.mark.parametrize(
    ("platform", "dtype", "tokens", "head_width", "expected"),
    [
        ("cpu", "float32", 196, 64, "xla"),
        ("cpu", "bfloat16", 196, 64, "xla"),
        ("tpu", "float32", 196, 64, "fused"),
        ("tpu", "bfloat16", 196, 64, "fused"),
        ("tpu", "bfloat16", 197, 20, "fused"),
        ("gpu", "bfloat16", 196, 64, "fused"),
        ("gpu", "bfloat16", 196, 128, "fused"),
        ("gpu", "float32", 196, 64, "xla"),
        ("gpu", "bfloat16", 197, 64, "xla"),
        ("gpu", "bfloat16", 196, 20, "xla"),
        ("gpu", "bfloat16", 196, 136, "xla"),
    ],
)
def test_kernel_is_chosen_where_device_dtype_and_shape_allow(platform, dtype, tokens, head_width, expected):
    choice = attention.choose(platform, dtype, {Shape(tokens, head_width)})
    assert choice.kind == expected


def test_one_supported_shape_is_enough():
    assert attention.choose("gpu", "bfloat16", {Shape(197, 64), Shape(98, 64)}).kind == "fused"


@pytest.mark.parametrize(
    ("platform", "dtype", "shape", "reason"),
    [
        ("cpu", "bfloat16", Shape(196, 64), "the platform cpu has no attention kernel"),
        ("gpu", "float32", Shape(196, 64), "needs 16-bit floats, and dtype is float32"),
        ("gpu", "bfloat16", Shape(197, 64), "needs an even number of tokens, and there are 197"),
        ("gpu", "bfloat16", Shape(196, 136), "needs heads of 8, 16, … 128 channels, and they have 136"),
    ],
)
def test_choice_of_xla_has_a_reason(platform, dtype, shape, reason):
    assert str(attention.choose(platform, dtype, {shape})).startswith("xla, because ")
    assert reason in str(attention.choose(platform, dtype, {shape}))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_correct_kernel_is_chosen(dtype):
    """Splash attention, with tokens that need padding."""
    choice = attention.choose("tpu", dtype, {Shape(130, 16)}, interpreted)
    assert choice.kind == "fused"
    assert "splash attention, within " in str(choice)
    assert "of XLA's" in str(choice)


def wrong_values(q, k, v):
    return 1.2 * xla(q, k, v)


def wrong_last_token(q, k, v):
    return xla(q, k, v).at[:, -1].set(0)


def wrong_gradient(q, k, v):
    return xla(q, jax.lax.stop_gradient(k), v)


def not_a_number(q, k, v):
    return xla(q, k, v).at[0, 0, 0, 0].set(jnp.nan)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kernel", [wrong_values, wrong_last_token, wrong_gradient, not_a_number])
def test_wrong_kernel_falls_back_with_one_line(kernel, dtype):
    choice = attention.choose("tpu", dtype, SHAPES, kernel)
    assert choice.kind == "xla"
    assert str(choice).startswith("xla, because splash attention differs from XLA's by ")
    assert "\n" not in str(choice)


def test_kernel_that_fails_falls_back_with_one_line():
    def broken(q, k, v):
        raise RuntimeError("INTERNAL: no engine\nand a long dump")

    choice = attention.choose("gpu", "bfloat16", SHAPES, broken)
    assert choice == Choice("xla", "cuDNN's attention failed: RuntimeError: INTERNAL: no engine")


def test_kernel_is_compared_once_for_each_head_width_in_the_dtype_of_the_run():
    seen = set()

    def kernel(q, k, v):
        seen.add((q.shape[1], q.shape[3], q.dtype.name))
        return xla(q, k, v)

    attention.choose("gpu", "bfloat16", SHAPES | {Shape(133, 16), Shape(10**6, 32)}, kernel)
    assert seen == {(130, 16, "bfloat16"), (20, 8, "bfloat16"), (self_check.MOST_TOKENS, 32, "bfloat16")}


def test_processes_use_a_kernel_only_if_all_of_them_chose_it():
    fused, failed = Choice("fused", "cuDNN's attention"), Choice("xla", "cuDNN's attention failed")
    assert attention.agree([fused, fused]) == fused
    assert attention.agree([failed]) == attention.agree([failed, fused]) == failed
    assert attention.agree([fused, failed]) == Choice("xla", "cuDNN's attention failed (in process 1)")
