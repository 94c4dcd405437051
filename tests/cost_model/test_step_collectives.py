"""On eight devices, the training step communicates gradients and parameters, but no activations."""

import jax
import pytest
from jax.sharding import PartitionSpec

from jepa_jax.config import Config
from jepa_jax.cost_model import collectives, hlo, program
from jepa_jax.cost_model.topology import parse_topology
from jepa_jax.distributed import sharding
from jepa_jax.settings import parse
from jepa_jax.training import step

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
SAMPLES = step.FEATURE_SAMPLES * 2 * 64 * 4  # bytes of the feature samples of a step, which are replicated


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
    """Collectives, other than all-reduce, whose size is not that of a parameter or of one block of it."""
    sizes = {leaf.size * 4 for leaf in jax.tree.leaves(state.params)}
    sizes |= {leaf.size * 4 // leaf.shape[0] for leaf in jax.tree.leaves(state.params) if leaf.ndim > 1}
    return [c for c in found if c.kind != "all-reduce" and c.payload not in (*sizes, SAMPLES)]


@pytest.mark.slow
def test_data_parallel_step_only_reduces_gradients():
    state, found = compiled(fsdp=1)
    totals = collectives.by_kind(found)
    assert set(totals) == {"all-reduce", "all-gather"}
    # With one mask, the gradient of every parameter is reduced once. The rest are a few sums, such as the loss.
    assert totals["all-reduce"].payload == pytest.approx(size(state.params), rel=0.02)
    assert totals["all-gather"].payload == 2 * SAMPLES


@pytest.mark.slow
def test_fsdp_step_gathers_parameters():
    state, found = compiled(fsdp=4)
    assert strays(state, found) == []
    totals = collectives.by_kind(found)
    assert set(totals) <= {"all-reduce", "all-gather", "reduce-scatter"}
    # Encoder: forward passes of target and context encoder, recomputation and backward pass of the context encoder.
    # Predictor: forward pass, recomputation and backward pass.
    passes = 3 * size(state.params["predictor"]) + 4 * size(state.params["encoder"])
    assert totals["all-gather"].payload < passes + 2 * SAMPLES
    assert totals["all-reduce"].payload < 2.5 * size(state.params)
    # Kernels are gathered one block at a time.
    gathered = {c.payload for c in found if c.kind == "all-gather"}
    for path, leaf in jax.tree_util.tree_leaves_with_path(state.params["encoder"]):
        if jax.tree_util.keystr(path[-2:]) in ("['mlp_in']['kernel']", "['mlp_out']['kernel']", "['qkv']['kernel']"):
            assert leaf.size * 4 // leaf.shape[0] in gathered, path


@pytest.mark.slow
def test_gather_of_activations_is_detected(monkeypatch):
    """Checks that the two tests above can fail: a sharding constraint replicates features."""
    normalise = step.normalise_levels

    def everywhere(h_BxNxD, levels):
        return jax.lax.with_sharding_constraint(normalise(h_BxNxD, levels), PartitionSpec())

    monkeypatch.setattr(step, "normalise_levels", everywhere)
    state, found = compiled(fsdp=1)
    batch, tokens, channels = 16, 2 * 8 * 8, 2 * 64
    assert batch * tokens * channels * 4 in [c.payload for c in strays(state, found)]


@pytest.mark.slow
def test_missing_sharding_constraint_of_activations_is_detected(monkeypatch):
    """Without the constraint, the compiler communicates channels of activations where weights are split."""
    monkeypatch.setattr("jepa_jax.models.batch_sharding.shard_batch", lambda x: x)
    state, found = compiled(fsdp=4)
    assert strays(state, found)
