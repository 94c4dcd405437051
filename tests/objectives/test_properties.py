"""Properties of all objectives for any features: invariances, bounds, and inputs with nothing to average."""

import dataclasses
import functools
import operator

import chex
import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from jax.sharding import AxisType

from jepa_jax import objectives
from jepa_jax.objectives import (
    base,
    factorization,
    hamiltonian,
    hard_region,
    kinematic,
    prediction,
    sigreg,
    temporal_contrastive,
    temporal_pairs,
    velocity_gate,
)
from jepa_jax.objectives.channel_split import ChannelSplit
from jepa_jax.settings import parse

few = hypothesis.settings(max_examples=8, suppress_health_check=list(hypothesis.HealthCheck))
seeds = st.integers(0, 2**31 - 1)
GRID = (4, 2, 3)
# Objectives on visible tokens at two or more time steps.
TEMPORAL = {"factorization_static", "latent_dynamics", "delta", "spectral", "temporal_contrastive", "action"} | {
    "velocity_gate",
    "hamiltonian",
}
OF_TARGETS = {"kinematic"}


def name_of(objective):
    return next(name for name, kind in objectives.CLASSES.items() if type(objective) is kind)


def is_finite(tree):
    return all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))


def is_zero(tree):
    return not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(tree))


@few
@hypothesis.given(seed=seeds)
def test_permuting_clips_permutes_gradients(objective, make_latents, evaluate, seed):
    latents = make_latents(seed % 1000, batch=3)
    order = np.random.default_rng(seed).permutation(3)
    permuted = jax.tree.map(lambda x: x[order], latents)
    loss, (of_features, of_head) = evaluate(objective, latents)
    loss_after, (of_features_after, of_head_after) = evaluate(objective, permuted)
    np.testing.assert_allclose(loss, loss_after, rtol=2e-5, atol=1e-7)
    chex.assert_trees_all_close(jax.tree.map(lambda x: x[order], of_features), of_features_after, atol=2e-6, rtol=2e-5)
    chex.assert_trees_all_close(of_head, of_head_after, atol=2e-6, rtol=2e-5)


@few
@hypothesis.given(seed=seeds)
def test_coefficient_0_gives_no_loss_and_no_gradient(objective, make_latents, evaluate, seed):
    latents = make_latents(seed % 1000)
    off = type(objective)(**{f: getattr(objective, f) for f in objective.__dataclass_fields__} | {"coefficient": 0.0})
    loss, gradients = evaluate(off, latents)
    assert float(loss) == 0
    assert is_zero(gradients)


@pytest.mark.parametrize("grid", [(1, 2, 3), (2, 2, 3), (3, 1, 1), (1, 1, 2)])
def test_short_clips_and_images_give_finite_losses(objective, make_latents, evaluate, grid):
    loss, gradients = evaluate(objective, make_latents(grid=grid))
    assert is_finite((loss, gradients))
    name = name_of(objective)
    shortest = 4 if name == "spectral" else 3 if getattr(objective, "kind", "") == "acceleration" else 2
    if name in TEMPORAL | OF_TARGETS and grid[0] < shortest:
        assert float(loss) == 0
        assert is_zero(gradients)


@pytest.mark.parametrize("context", [[0, 1, 2, 3], [1, 6 + 2, 12 + 4, 18 + 0], [5]], ids=["first", "scattered", "one"])
def test_temporal_objectives_are_zero_without_pairs_of_tokens(objective, make_latents, evaluate, context):
    loss, gradients = evaluate(objective, make_latents(grid=GRID, context=[context, context[::-1]]))
    assert is_finite((loss, gradients))
    if name_of(objective) in TEMPORAL:
        assert float(loss) == 0
        assert is_zero(gradients)


@pytest.mark.parametrize("factor", [1e-2, 1.0, 1e2])
def test_relative_static_loss_does_not_depend_on_the_scale_or_offset_of_a_channel(make_latents, evaluate, factor):
    relative, absolute = factorization.Static(relative=True), factorization.Static()
    latents = make_latents(grid=GRID)
    scale_D = jnp.asarray([factor, 1.0] * (latents.target_BxNxD.shape[-1] // 2))
    views = tuple(
        dataclasses.replace(view, context_BxKxD=view.context_BxKxD * scale_D + scale_D) for view in latents.views
    )
    scaled = dataclasses.replace(latents, views=views)
    np.testing.assert_allclose(evaluate(relative, scaled)[0], evaluate(relative, latents)[0], rtol=1e-3)
    changes = float(evaluate(absolute, scaled)[0] / evaluate(absolute, latents)[0])
    assert (changes < 0.7) == (factor < 1)
    assert (changes > 2) == (factor > 1)


def test_orthogonality_of_a_single_token_is_zero(make_latents, evaluate):
    latents = make_latents(grid=GRID, batch=1, context=[[5]])
    loss, gradients = evaluate(factorization.Orthogonality(), latents)
    assert float(loss) == 0
    assert is_zero(gradients)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_clips_without_motion_give_finite_gradients(objective, make_latents, evaluate, value):
    """All latents are equal, so norms are exactly zero, where square roots are not differentiable."""
    latents = make_latents(grid=GRID)
    latents = jax.tree.map(lambda x: jnp.full_like(x, value) if x.dtype == jnp.float32 else x, latents)
    loss, gradients = evaluate(objective, latents)
    assert is_finite((loss, gradients))
    still = {"factorization_static", "factorization_orthogonality", "delta", "spectral", "kinematic", "velocity_gate"}
    if name_of(objective) in still:
        assert float(loss) == pytest.approx(0, abs=1e-12)


@few
@hypothesis.given(seed=seeds, scale=st.sampled_from([0.0, 1e-12, 1.0, 1e6]), margin=st.floats(0, 1))
def test_temporal_contrastive_loss_is_bounded(make_latents, seed, scale, margin):
    latents = jax.tree.map(lambda x: x * scale if x.dtype == jnp.float32 else x, make_latents(seed % 1000))
    now = base.StepContext(jnp.zeros((), jnp.int32), jax.random.key(0), 1)
    loss, _ = temporal_contrastive.TemporalContrastive(coefficient=1.0, margin=margin)({}, latents, now)
    assert 0 <= float(loss) <= margin + 2 + 1e-5


@few
@hypothesis.given(seed=seeds, quantile=st.floats(0, 1))
def test_velocity_gates_are_open_for_slow_tokens(make_latents, seed, quantile):
    h_BxNxD = make_latents(seed % 1000).target_BxNxD
    gate = np.asarray(velocity_gate.gates(h_BxNxD, GRID, quantile)).reshape(2, *GRID)
    assert set(np.unique(gate)) <= {0.0, 1.0}
    assert not gate[:, -1].any()
    opened = gate[:, :-1].reshape(2, 3, -1)
    assert (opened.sum(-1) == np.floor(np.float32(quantile) * np.float32(5) + 1e-6) + 1).all()
    h = np.asarray(h_BxNxD).reshape(2, 4, 6, -1)
    speed = np.linalg.norm(np.diff(h, axis=1), axis=-1)
    fastest_open = np.where(opened > 0, speed, -np.inf).max(-1)
    slowest_closed = np.where(opened > 0, np.inf, speed).min(-1)
    assert (fastest_open <= slowest_closed).all()


@few
@hypothesis.given(seed=seeds)
def test_hard_region_loss_increases_as_temperature_decreases(make_latents, evaluate, seed):
    """It increases from the plain mean to the mean over clips of the worst token."""
    latents = make_latents(seed % 1000)
    at_most = []
    for view in latents.views:
        h = temporal_pairs.at(latents.target_BxNxD, view.target_index_BxM)
        at_most.append(np.abs(view.predicted_target_BxMxD - h).mean(-1).max(-1).mean())
    plain, *rising = (
        float(evaluate(o, latents)[0])
        for o in (
            prediction.Prediction(),
            *(hard_region.HardRegion(coefficient=1.0, temperature=t) for t in (1.0, 1e-3)),
        )
    )
    assert plain <= rising[0] <= rising[1] <= np.mean(at_most) + 1e-6
    assert rising[1] == pytest.approx(np.mean(at_most), rel=1e-2)


@pytest.mark.parametrize("split", ["levels", "per_level"])
def test_constant_appearance_features_are_orthogonal(make_latents, evaluate, split):
    """Appearance that is constant over tokens has zero covariance with the dynamics."""
    objective = factorization.Orthogonality(coefficient=1.0, channel_split=ChannelSplit(split=split))
    latents = make_latents()
    cut = {"levels": np.arange(4), "per_level": np.array([0, 1, 4, 5])}[split]
    views = tuple(
        base.View(
            v.context_index_BxK,
            v.target_index_BxM,
            v.context_BxKxD.at[..., cut].set(jnp.arange(4.0)),
            v.predicted_target_BxMxD,
            v.predicted_context_BxKxD,
        )
        for v in latents.views
    )
    constant = base.Latents(views, latents.target_BxNxD, latents.colour_BxNxC, latents.grid, latents.levels)
    assert float(evaluate(objective, latents)[0]) > 1e-3
    assert float(evaluate(objective, constant)[0]) == pytest.approx(0, abs=1e-12)


def test_channel_split_divides_the_levels_or_each_level():
    z = jnp.arange(8.0)[None, None]
    whole, each = (ChannelSplit(split=s) for s in ("levels", "per_level"))
    assert [np.ravel(part).tolist() for part in whole.parts(z, 2)] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert [np.ravel(part).tolist() for part in each.parts(z, 2)] == [[0, 1, 4, 5], [2, 3, 6, 7]]
    uneven = ChannelSplit(split="per_level", appearance_share=0.3)
    assert uneven.dynamics_width(8, 2) == uneven.parts(z, 2)[1].shape[-1] == 6


@few
@hypothesis.given(seed=seeds, visible=st.sampled_from([1, 12, 23]))
def test_temporal_pairs_match_the_grid(make_latents, seed, visible):
    """Compares with tokens put back on the grid, and the gradient with that of plain indexing."""
    view = make_latents(seed % 1000, visible=visible).views[0]
    pairs = temporal_pairs.pairs(view, GRID)
    index, z = np.asarray(view.context_index_BxK), np.asarray(view.context_BxKxD)
    valid, later = np.asarray(pairs.valid), np.asarray(pairs.later(view.context_BxKxD))
    for b in range(2):
        on_grid = {position: z[b, k] for k, position in enumerate(index[b])}
        for k, position in enumerate(index[b]):
            assert valid[b, k] == (position + 6 in on_grid)
            np.testing.assert_array_equal(later[b, k], on_grid.get(position + 6, np.zeros(8)))

    def plain(z):
        found = z[jnp.arange(2)[:, None], jnp.maximum(pairs.successor_BxK, 0)]
        return (jnp.where(pairs.valid[..., None], found, 0) ** 3).sum()

    np.testing.assert_allclose(
        jax.grad(lambda z: (pairs.later(z) ** 3).sum())(view.context_BxKxD),
        jax.grad(plain)(view.context_BxKxD),
        rtol=1e-6,
    )


def test_spectral_loss_matches_the_fourier_transform(make_latents, evaluate):
    """Compares with NumPy on a completely visible grid."""
    everything = np.tile(np.arange(24), (2, 1))
    latents = make_latents(grid=GRID, context=everything)
    losses = []
    for view in latents.views:
        error = np.asarray(view.context_BxKxD - latents.target_BxNxD).reshape(2, 4, 6, 8)
        weight = np.linspace(0.1, 1.0, 3)[:, None, None]
        losses.append(np.abs(weight * np.fft.rfft(error, axis=1)).mean())
    loss, _ = evaluate(objectives.CLASSES["spectral"](), latents)
    assert float(loss) == pytest.approx(np.mean(losses), rel=1e-5)


def test_constant_energy_predicts_unchanged_tokens(make_latents, evaluate):
    latents = make_latents()
    objective = hamiltonian.Hamiltonian()
    head = jax.tree.map(jnp.zeros_like, objective.init(jax.random.key(0), base.Dims(8, 2)))
    losses = []
    for view in latents.views:
        pairs = temporal_pairs.pairs(view, GRID)
        error = np.abs(view.context_BxKxD - pairs.at_later(latents.target_BxNxD))[np.asarray(pairs.valid)]
        losses.append(2 * error.mean())
    assert float(evaluate(objective, latents, head)[0]) == pytest.approx(np.mean(losses), rel=1e-5)


def test_sigreg_on_a_mesh_equals_one_device(make_latents):
    """Statistics are those of the global batch, along the same directions on all devices."""
    latents = make_latents(batch=16)
    objective = sigreg.SIGReg(directions=64)
    context = base.StepContext(jnp.zeros((), jnp.int32), jax.random.key(3), 1)
    one = jax.jit(jax.value_and_grad(functools.partial(_sigreg_of, objective, context), allow_int=True))
    loss, gradient = one(latents)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    spread = jax.device_put(latents, jax.NamedSharding(mesh, jax.P("data")))
    loss_on_mesh, gradient_on_mesh = one(spread)
    assert len(spread.target_BxNxD.sharding.device_set) == 8
    assert float(loss) == pytest.approx(float(loss_on_mesh), rel=1e-5)
    for view, view_on_mesh in zip(gradient.views, gradient_on_mesh.views, strict=True):
        np.testing.assert_allclose(view.context_BxKxD, view_on_mesh.context_BxKxD, atol=1e-7, rtol=1e-5)
    shares = [jax.tree.map(operator.itemgetter(slice(i, i + 2)), latents) for i in range(0, 16, 2)]
    alone = np.mean([float(_sigreg_of(objective, context, share)) for share in shares])
    assert abs(alone - float(loss)) > 1e-2  # averaging over the clips of each device would give another loss


def _sigreg_of(objective, context, latents):
    return objective({}, latents, context)[0]


def test_sigreg_samples_unit_directions_and_is_small_for_normal_features():
    objective = sigreg.SIGReg(directions=256)
    first, second = (objective.draw_directions(jax.random.key(i), 8) for i in (0, 1))
    np.testing.assert_allclose(jnp.linalg.norm(first, axis=0), 1, rtol=1e-5)
    assert np.abs(first - second).max() > 0.1
    normal = jax.random.normal(jax.random.key(2), (4, 500, 8))
    assert sigreg.statistic(normal @ first) < 0.1 * sigreg.statistic(3 * normal @ first)


@pytest.mark.parametrize(("kind", "expected"), [("l1", 1.0), ("huber", 0.1 * (1.0 - 0.05)), ("acceleration", 0.0)])
def test_kinematic_penalties_of_uniform_motion(make_latents, evaluate, kind, expected):
    latents = make_latents()
    even = jnp.broadcast_to(jnp.repeat(jnp.arange(4.0), 6)[None, :, None], latents.target_BxNxD.shape)
    even = base.Latents(latents.views, even, latents.colour_BxNxC, latents.grid, latents.levels)
    assert float(evaluate(kinematic.Kinematic(kind=kind), even)[0]) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("hard_region", {"temperature": 0.0}, r"temperature is 0\.0; expected more than 0"),
        ("latent_dynamics", {"temperature": -1.0}, r"temperature is -1\.0"),
        ("factorization_static", {"appearance_share": 1.5}, r"appearance_share is 1\.5; expected a share"),
        ("latent_dynamics", {"appearance_share": -0.5}, r"appearance_share is -0\.5"),
        ("kinematic", {"share": 0.0}, r"share is 0\.0"),
        ("velocity_gate", {"quantile": 2.0}, r"quantile is 2\.0"),
    ],
)
def test_settings_out_of_range_raise(name, settings, message):
    with pytest.raises(ValueError, match=message):
        parse(objectives.CLASSES[name], settings)
