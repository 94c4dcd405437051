import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jepa_jax import models
from jepa_jax.config import ClipConfig, Config, EncoderConfig, PredictorConfig
from jepa_jax.evaluation import representation
from jepa_jax.evaluation.features.extractor import FeatureExtractor
from jepa_jax.evaluation.features.feature_set import Features
from jepa_jax.evaluation.representation import APPEARANCE, DYNAMICS
from jepa_jax.masks.block import BlockMask
from jepa_jax.objectives import factorization
from jepa_jax.objectives.channel_split import ChannelSplit

CONFIG = Config(
    dtype="float32",
    clip=ClipConfig(frames=4, size=16),
    encoder=EncoderConfig(size="8x2x2", patch=4, levels=2),
    predictor=PredictorConfig(size="8x1x2"),
)


def features(**tokens):
    count = len(next(iter(tokens.values())))
    return Features({kind: np.float16(rows) for kind, rows in tokens.items()}, {}, np.arange(count), 0.0)


@pytest.mark.parametrize("rank", [1, 3, 6])
def test_lidar_counts_directions_that_separate_clips(rank):
    rng = np.random.default_rng(0)
    base = np.linalg.qr(rng.normal(size=(400, rank)))[0] * np.sqrt(400)
    clips = np.zeros((400, 1, 6))
    clips[:, 0, :rank] = 10 * (base - base.mean(0))
    views = clips + rng.normal(size=(400, 8, 6)) * 0.5
    assert representation.lidar(views) == pytest.approx(rank, rel=0.05)


def test_lidar_ignores_variance_between_views_of_a_clip():
    """A direction with as much variance as the first counts only if it separates clips."""
    rng = np.random.default_rng(0)
    clips = rng.normal(size=(500, 1, 2))
    same = clips + 0.01 * rng.normal(size=(500, 8, 2))
    noisy = same + np.array([0, 5.0]) * rng.normal(size=(500, 8, 2))
    assert representation.lidar(same) == pytest.approx(2, rel=0.05)
    assert representation.lidar(noisy) == pytest.approx(1, abs=0.02)


def test_lidar_matches_its_definition():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(30, 4, 5)) + rng.normal(size=(30, 1, 5)) * np.array([3, 2, 1, 0.5, 0.1])
    means = x.mean(1)
    between = np.cov(means.T, bias=True)
    within = np.einsum("iqa,iqb->ab", x - means[:, None], x - means[:, None]) / 120 + 1e-4 * np.eye(5)
    values = np.linalg.eigvals(np.linalg.solve(within, between)).real
    share = values / values.sum() + 1e-7
    assert representation.lidar(x) == pytest.approx(np.exp(-(share * np.log(share)).sum()), rel=1e-6)


def test_straightness_of_lines_corners_and_noise():
    line = np.linspace(0, 1, 6)[None, :, None] * np.array([1.0, 2.0, -1.0])
    assert representation.straightness(line) == pytest.approx(1)
    there_and_back = np.array([[[0.0], [1.0], [0.0], [1.0]]])
    assert representation.straightness(there_and_back) == pytest.approx(-1)
    corner = np.array([[[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]]])
    assert representation.straightness(corner) == pytest.approx(0, abs=1e-9)
    noise = np.random.default_rng(0).normal(size=(500, 8, 50))
    assert representation.straightness(noise) == pytest.approx(-0.5, abs=0.01)


def test_straightness_is_undefined_without_two_steps():
    assert representation.straightness(np.zeros((3, 5, 2))) is None
    assert representation.straightness(np.random.default_rng(0).normal(size=(3, 2, 2))) is None


def test_channel_halves_follow_the_channel_split_of_the_run():
    halves = representation.channel_halves(CONFIG)
    np.testing.assert_array_equal(halves[APPEARANCE], np.arange(8))
    np.testing.assert_array_equal(halves[DYNAMICS], np.arange(8, 16))
    static = factorization.Static(channel_split=ChannelSplit(appearance_share=0.25, split="per_level"))
    config = dataclasses.replace(CONFIG, objectives={**CONFIG.objectives, "static": static})
    halves = representation.channel_halves(config)
    np.testing.assert_array_equal(halves[APPEARANCE], [0, 1, 8, 9])
    np.testing.assert_array_equal(np.sort(np.concatenate(list(halves.values()))), np.arange(16))


def test_measures_of_a_factorized_representation():
    """Two appearance channels vary only between clips, and two dynamics channels only within clips."""
    rng = np.random.default_rng(0)
    levels = np.concatenate(
        [3 * rng.normal(size=(300, 1, 2)).repeat(4, axis=1), np.sqrt(3) * rng.normal(size=(300, 4, 2))], -1
    )
    levels[..., 2:] -= levels[..., 2:].mean(1, keepdims=True)
    plain = rng.normal(size=(300, 4, 3))
    seen = features(mean=plain.mean(1), frames=plain, mean_levels=levels.mean(1), frames_levels=levels)
    views = features(frames=rng.normal(size=(300, 1, 3)) + 0.01 * rng.normal(size=(300, 8, 3)))
    halves = {APPEARANCE: np.arange(2), DYNAMICS: np.arange(2, 4)}
    found = representation.measure(seen, views, halves)
    assert found["appearance_change"] == pytest.approx(0, abs=1e-6)
    assert found["dynamics_change"] == pytest.approx(1, abs=1e-6)
    assert found["appearance_variance"] == pytest.approx(9 / (9 + 3 * 0.75), abs=0.05)
    assert found["feature_std"] == pytest.approx(0.5, abs=0.05)
    assert found["lidar"] == pytest.approx(3, abs=0.1)
    assert 1 < found["rankme"] <= 3.001

    nothing = representation.measure(seen, views, {APPEARANCE: np.arange(0), DYNAMICS: np.arange(4)})
    assert (nothing["appearance_variance"], nothing["appearance_change"]) == (0, None)
    half = representation.half(seen, halves[DYNAMICS])
    np.testing.assert_array_equal(half.tokens["mean"], np.float16(levels.mean(1))[:, 2:])


@pytest.mark.slow
def test_masked_views_use_the_masks_of_the_run():
    masks = {"few": BlockMask(blocks=1, spatial_scale=0.3), "many": BlockMask(blocks=2, spatial_scale=0.6)}
    config = dataclasses.replace(CONFIG, masks=masks)
    encoder = models.build_encoder(config.encoder)
    video = jax.random.uniform(jax.random.key(0), (3, 4, 16, 16, 3)) * 255
    params = encoder.init(jax.random.key(1), video)["params"]
    params = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(jax.random.key(x.size), x.shape), params)
    encode = representation.masked_views(
        FeatureExtractor(lambda *_: {}, params, {"params": "x"}), config, CONFIG.clip, "float32"
    )
    row = jnp.array([4, 5, 6], jnp.int32)
    views = jax.jit(encode.apply)(params, video, row)["frames"]
    assert views.shape == (3, representation.VIEWS, 8)
    assert len(np.unique(np.asarray(views[0]).round(4), axis=0)) > 2  # the masks differ
    alone = encode.apply(params, video[1:2], row[1:2])["frames"]
    np.testing.assert_allclose(alone[0], views[1], atol=1e-5)
    assert encode.identity["params"] == "x"
    assert encode.identity != representation.masked_views(encode, CONFIG, CONFIG.clip, "float32").identity
