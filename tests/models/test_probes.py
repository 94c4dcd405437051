import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jepa_jax.models import probes


def from_torch(golden: dict, prefix: str) -> dict:
    """The reference's weights (or gradients) under our names: Linear kernels transposed, the query without its axes."""
    get = {key.removeprefix(prefix): value for key, value in golden.items() if key.startswith(prefix)}
    return {
        "query": get["cls_token"][0, 0],
        "qkv_kernel": get["attn.in_proj_weight"].T,
        "qkv_bias": get["attn.in_proj_bias"],
        "out": {"kernel": get["attn.out_proj.weight"].T, "bias": get["attn.out_proj.bias"]},
        "norm": {"scale": get["norm.weight"], "bias": get["norm.bias"]},
        "head": {"kernel": get["head.weight"].T, "bias": get["head.bias"]},
    }


def test_attentive_probe_agrees_with_the_reference(golden):
    golden = {name: jnp.asarray(value) for name, value in golden("attentive_probe").items()}
    probe = probes.AttentiveProbe(classes=7, heads=4)
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
    probe = probes.AttentiveProbe(classes=3, heads=2)
    params = probe.init(jax.random.key(1), tokens)
    np.testing.assert_allclose(probe.apply(params, tokens), probe.apply(params, tokens[:, ::-1]), atol=1e-6)


def test_attentive_probe_initial_values():
    width = 64
    params = probes.AttentiveProbe(classes=10, heads=8).init(jax.random.key(0), jnp.zeros((1, 2, width)))["params"]
    assert 0.012 < params["query"].std() < 0.028
    packed_bound, bound = (6 / (width + 3 * width)) ** 0.5, width**-0.5
    assert 0.98 * packed_bound < jnp.abs(params["qkv_kernel"]).max() <= packed_bound
    assert 0.98 * bound < jnp.abs(params["out"]["kernel"]).max() <= bound
    assert 0.98 * bound < jnp.abs(params["head"]["kernel"]).max() <= bound
    assert 0 < jnp.abs(params["head"]["bias"]).max() <= bound
    assert not params["qkv_bias"].any()
    assert not params["out"]["bias"].any()


def test_linear_probe_is_affine_with_the_default_initial_values():
    features = jax.random.normal(jax.random.key(0), (4, 100))
    probe = probes.LinearProbe(classes=20)
    params = probe.init(jax.random.key(1), features)["params"]
    head = params["head"]
    np.testing.assert_allclose(
        probe.apply({"params": params}, features), features @ head["kernel"] + head["bias"], atol=1e-6
    )
    assert 0.098 < jnp.abs(head["kernel"]).max() <= 0.1
    assert jnp.abs(head["bias"]).max() <= 0.1


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match="5 heads cannot divide features of width 32"):
        probes.AttentiveProbe(classes=2, heads=5).init(jax.random.key(0), jnp.zeros((1, 2, 32)))
