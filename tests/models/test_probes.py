import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jepa_jax.models import probe_heads


def from_torch(golden: dict, prefix: str) -> dict:
    """Converts weights or gradients of the reference to our names and shapes."""
    get = {key.removeprefix(prefix): value for key, value in golden.items() if key.startswith(prefix)}
    return {
        "query": get["cls_token"][0, 0],
        "qkv_kernel": get["attn.in_proj_weight"].T,
        "qkv_bias": get["attn.in_proj_bias"],
        "out": {"kernel": get["attn.out_proj.weight"].T, "bias": get["attn.out_proj.bias"]},
        "norm": {"scale": get["norm.weight"], "bias": get["norm.bias"]},
        "head": {"kernel": get["head.weight"].T, "bias": get["head.bias"]},
    }


def test_attentive_probe_matches_the_reference(golden):
    golden = {name: jnp.asarray(value) for name, value in golden("attentive_probe").items()}
    probe = probe_heads.AttentiveProbe(classes=7, heads=4)
    params = from_torch(golden, "param.")

    def loss(params):
        logits = probe.apply({"params": params}, golden["tokens"])
        return optax.softmax_cross_entropy_with_integer_labels(logits, golden["labels"]).mean(), logits

    with jax.default_matmul_precision("highest"):
        (value, logits), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        pooled = probe.apply({"params": params}, golden["tokens"].mean(1, keepdims=True))
    np.testing.assert_allclose(logits, golden["logits"], atol=2e-6, rtol=0)
    np.testing.assert_allclose(pooled, golden["pooled_logits"], atol=2e-6, rtol=0)
    np.testing.assert_allclose(value, golden["loss"], atol=2e-6, rtol=0)
    expected = from_torch(golden, "grad.")
    assert jax.tree.structure(gradient) == jax.tree.structure(expected)
    jax.tree.map(lambda ours, theirs: np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=0), gradient, expected)


def test_attentive_probe_ignores_the_order_of_tokens():
    tokens = jax.random.normal(jax.random.key(0), (2, 5, 8))
    probe = probe_heads.AttentiveProbe(classes=3, heads=2)
    params = probe.init(jax.random.key(1), tokens)
    np.testing.assert_allclose(probe.apply(params, tokens), probe.apply(params, tokens[:, ::-1]), atol=1e-6)


def test_attentive_probe_initial_values():
    width = 64
    params = probe_heads.AttentiveProbe(classes=10, heads=8).init(jax.random.key(0), jnp.zeros((1, 2, width)))["params"]
    assert 0.012 < params["query"].std() < 0.028
    packed_bound, bound = (6 / (width + 3 * width)) ** 0.5, width**-0.5
    assert 0.98 * packed_bound < jnp.abs(params["qkv_kernel"]).max() <= packed_bound
    assert 0.98 * bound < jnp.abs(params["out"]["kernel"]).max() <= bound
    assert 0.98 * bound < jnp.abs(params["head"]["kernel"]).max() <= bound
    assert 0 < jnp.abs(params["head"]["bias"]).max() <= bound
    assert not params["qkv_bias"].any()
    assert not params["out"]["bias"].any()


@pytest.fixture(scope="module")
def blocks_probe():
    """V-JEPA 2's probe of width 16, its parameters, and two clips of five tokens each."""
    tokens = jax.random.normal(jax.random.key(0), (2, 5, 16))
    probe = probe_heads.AttentiveBlocksProbe(classes=3, heads=2, blocks=4)
    return probe, jax.jit(probe.init)(jax.random.key(1), tokens)["params"], tokens


def attention(params, x, heads):
    """Multi-head self-attention, computed for one head and one query at a time."""
    width = x.shape[-1] // heads
    q, k, v = np.split(x @ params["qkv"]["kernel"] + params["qkv"]["bias"], 3, axis=-1)
    out = np.zeros_like(x)
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        for i in range(len(x)):
            weight = np.exp(k[:, part] @ q[i, part] / np.sqrt(width))
            out[i, part] = weight @ v[:, part] / weight.sum()
    return out @ params["attention_out"]["kernel"] + params["attention_out"]["bias"]


def norm(params, x):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return x * params["scale"] + params["bias"]


def mlp(params, x):
    hidden = x @ params["in"]["kernel"] + params["in"]["bias"]
    gelu = hidden * 0.5 * (1 + np.vectorize(math.erf)(hidden / np.sqrt(2)))
    return gelu @ params["out"]["kernel"] + params["out"]["bias"]


@pytest.mark.slow
def test_blocks_probe_is_three_blocks_and_cross_attention(blocks_probe):
    probe, params, tokens = blocks_probe
    # Initial values are small; with larger ones, every part affects the logits.
    params = jax.tree.map(lambda x: x * 5 + 0.1, params)
    logits = np.asarray(probe.apply({"params": params}, tokens))
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    for clip, expected in zip(np.asarray(tokens, np.float64), logits, strict=True):
        x = clip
        for block in (params[f"block_{i}"] for i in (1, 2, 3)):
            x = x + attention(block, norm(block["norm_attention"], x), 2)
            x = x + mlp(block["mlp"], norm(block["norm_mlp"], x))
        x = norm(params["norm_tokens"], x)
        k, v = np.split(x @ params["key_value"]["kernel"] + params["key_value"]["bias"], 2, axis=-1)
        query = params["query"] @ params["to_query"]["kernel"] + params["to_query"]["bias"]
        mixed = []
        for head in (slice(0, 8), slice(8, 16)):
            weight = np.exp(k[:, head] @ query[head] / np.sqrt(8))
            mixed.append(weight @ v[:, head] / weight.sum())
        q = params["query"] + np.concatenate(mixed)
        q = q + mlp(params["mlp"], norm(params["norm_mlp"], q))
        np.testing.assert_allclose(
            expected, q @ params["head"]["kernel"] + params["head"]["bias"], rtol=2e-4, atol=2e-4
        )


def test_blocks_probe_initial_values(blocks_probe):
    _, params, _ = blocks_probe
    for layer in (1, 2, 3):
        block = params[f"block_{layer}"]
        for matrix in (block["attention_out"]["kernel"], block["mlp"]["out"]["kernel"]):
            assert matrix.std() == pytest.approx(0.02 / (2 * layer) ** 0.5, rel=0.15)
        assert block["qkv"]["kernel"].std() == pytest.approx(0.02, rel=0.1)
        assert not block["qkv"]["bias"].any()
    assert params["mlp"]["out"]["kernel"].std() == pytest.approx(0.02 / 6**0.5, rel=0.15)
    assert jnp.abs(params["head"]["kernel"]).max() <= 0.25


def test_blocks_probe_accepts_one_vector_per_clip(blocks_probe):
    probe, params, tokens = blocks_probe
    one, same = (probe.apply({"params": params}, x) for x in (tokens[:, 0], tokens[:, :1]))
    np.testing.assert_array_equal(one, same)


def test_linear_probe_is_affine_with_default_initial_values():
    features = jax.random.normal(jax.random.key(0), (4, 100))
    probe = probe_heads.LinearProbe(classes=20)
    params = probe.init(jax.random.key(1), features)["params"]
    head = params["head"]
    np.testing.assert_allclose(
        probe.apply({"params": params}, features), features @ head["kernel"] + head["bias"], atol=1e-6
    )
    assert 0.098 < jnp.abs(head["kernel"]).max() <= 0.1
    assert jnp.abs(head["bias"]).max() <= 0.1


def test_heads_that_do_not_divide_the_width_raise():
    for kind in (probe_heads.AttentiveProbe, probe_heads.AttentiveBlocksProbe):
        with pytest.raises(ValueError, match="5 heads cannot divide features of width 32"):
            kind(classes=2, heads=5).init(jax.random.key(0), jnp.zeros((1, 2, 32)))
