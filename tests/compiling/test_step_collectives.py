"""The step that training runs, on eight devices, sends gradients and parameters, and no activations."""

import re

import jax
import pytest
from jax.sharding import PartitionSpec

from jepa_jax.compiling import collectives, hlo, program
from jepa_jax.compiling.topology import parse_topology
from jepa_jax.config import Config, parse
from jepa_jax.training import sharding, step

SETTINGS = {
    "steps": 10,
    "batch_size": 16,
    "dtype": "float32",
    "clip": {"frames": 4, "size": 32},
    "encoder": {"size": "64x4x2", "patch": 4, "levels": 2, "remat": "dots"},
    "predictor": {"size": "32x2x2"},
    "masks": {"short": {}},
    "objectives": {"prediction": {}, "context_prediction": {}, "latent_dynamics": {}},
}
SAMPLES = step.FEATURE_SAMPLES * 2 * 64 * 4  # bytes of a step's feature samples, which every device gets


@pytest.fixture(autouse=True)
def tiny_arrays_are_split(monkeypatch):
    monkeypatch.setattr(sharding, "LARGE", 1024)


def compiled(fsdp):
    config = parse(Config, SETTINGS | {"mesh": {"fsdp": fsdp}})
    built = program.compile_step(config, parse_topology("cpu:8"))
    assert built.text is not None
    parsed = hlo.parse(built.text)
    assert parsed.unknown_loops == 0
    return built.state, collectives.find(parsed, 8)


def size(tree):
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def strays(state, found):
    """What neither reduces gradients nor gathers a parameter: arrays of another size than any, or than a block's."""
    sizes = {leaf.size * 4 for leaf in jax.tree.leaves(state.params)}
    sizes |= {leaf.size * 4 // leaf.shape[0] for leaf in jax.tree.leaves(state.params) if leaf.ndim > 1}
    return [c for c in found if c.kind != "all-reduce" and c.payload not in (*sizes, SAMPLES)]


def test_split_over_data_only_gradients_are_reduced():
    state, found = compiled(fsdp=1)
    totals = collectives.by_kind(found)
    assert set(totals) == {"all-reduce", "all-gather"}
    # One mask: every parameter has one gradient, reduced once. The rest are a few sums, such as the loss.
    assert totals["all-reduce"].payload == pytest.approx(size(state.params), rel=0.02)
    assert totals["all-gather"].payload == 2 * SAMPLES


def test_split_over_fsdp_parameters_are_gathered():
    state, found = compiled(fsdp=4)
    assert strays(state, found) == []
    totals = collectives.by_kind(found)
    assert set(totals) <= {"all-reduce", "all-gather", "reduce-scatter"}
    # Target encoder and context encoder forward, what of the latter is computed again, and its backward pass; the
    # predictor forward, again and backward.
    passes = 3 * size(state.params["predictor"]) + 4 * size(state.params["encoder"])
    assert totals["all-gather"].payload < passes + 2 * SAMPLES
    assert totals["all-reduce"].payload < 2.5 * size(state.params)
    gathered = {match.group(1) for c in found if (match := re.search(r"block/(\w+)/dot_general", c.source))}
    assert {"mlp_in", "mlp_out", "qkv"} <= gathered


@pytest.mark.slow
def test_a_stray_gather_of_activations_is_found(monkeypatch):
    """The two tests above can fail: features that one line asks for on every device."""
    normalise = step.normalise_levels

    def everywhere(h_BxNxD, levels):
        return jax.lax.with_sharding_constraint(normalise(h_BxNxD, levels), PartitionSpec())

    monkeypatch.setattr(step, "normalise_levels", everywhere)
    state, found = compiled(fsdp=1)
    batch, tokens, channels = 16, 2 * 8 * 8, 2 * 64
    assert batch * tokens * channels * 4 in [c.payload for c in strays(state, found)]


@pytest.mark.slow
def test_weights_split_without_care_for_activations_are_found(monkeypatch):
    """What the compiler does of itself where weights are split: channels of activations go round."""
    monkeypatch.setattr("jepa_jax.models.by_clip.split", lambda x: x)
    state, found = compiled(fsdp=4)
    assert strays(state, found)
