import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from jepa_jax import data
from jepa_jax.config import ClipConfig, SourceConfig
from jepa_jax.data import directions, sources
from jepa_jax.settings import ConfigError

STUDY = directions.DiscSpec(32, 160)  # the clips that the study encoded as files
SMALL = {motion: directions.DiscSpec(8, 48, motion) for motion in directions.MOTIONS}
ITEMS = np.arange(16, dtype=np.int32)


@functools.partial(jax.jit, static_argnums=(0, 2, 3))
def _states(spec, seed, split, count):
    return jax.vmap(lambda item: directions.disc(spec, seed, split, item)._replace(noise_key=0))(jnp.arange(count))


def states(spec, count, seed=0, split="train"):
    return jax.device_get(_states(spec, seed, split, count))


def centres(discs):
    """Centres [B, F, 2]."""
    return np.stack([discs.x, discs.y], -1)


@pytest.fixture(scope="module")
def clamped():
    """8,000 clips of the study."""
    return states(STUDY, 8000)


@pytest.fixture(scope="module")
def wrapped():
    return states(directions.DiscSpec(32, 160, "wrapped"), 8000)


@pytest.fixture(scope="module", params=directions.MOTIONS)
def rendered(request):
    """Spec, video (int) and states of 16 small clips."""
    spec = SMALL[request.param]
    video, _ = directions.render(spec, 0, "train", ITEMS)
    return spec, np.asarray(video).astype(int), states(spec, len(ITEMS))


# --- a pure function of its arguments


@pytest.mark.parametrize("motion", directions.MOTIONS)
def test_clips_do_not_depend_on_the_batch_the_number_of_frames_or_the_surrounding_program(motion):
    spec = SMALL[motion]
    video, labels = directions.render(spec, 3, "test", ITEMS)
    few, short = np.array([7, 2, 4]), directions.DiscSpec(3, 48, motion)
    some, some_labels = jax.jit(lambda seed, item: directions.render(short, seed, "test", item))(3, jnp.asarray(few))
    np.testing.assert_array_equal(some, np.asarray(video)[few, :3])
    for task, values in labels.items():
        np.testing.assert_array_equal(some_labels[task], np.asarray(values)[few])


def test_splits_and_seeds_give_different_clips():
    looks = set()
    for seed, split in [(0, "train"), (0, "test"), (1, "train"), (1, "test")]:
        discs = states(SMALL["clamped"], 500, seed, split)
        looks |= set(zip(discs.colour.tolist(), discs.background.tolist(), strict=True))
    assert len(looks) == 2000


# --- the study's description


def test_labels_are_the_item_modulo_eight():
    for split, count in (("train", 160), ("test", 40)):
        labels = states(STUDY, count, split=split).labels["direction"]
        np.testing.assert_array_equal(labels, np.arange(count) % 8)
        assert (np.bincount(labels) == count // 8).all()


def test_discs_move_as_their_direction_says_until_the_border(clamped):
    place, label = centres(clamped), clamped.labels["direction"]
    velocity = np.array([(0, -4), (3, -3), (4, 0), (3, 3), (0, 4), (-3, 3), (-4, 0), (-3, -3)])[label]
    least = clamped.radius[:, None, None]
    free = place[:, :1] + np.arange(32)[:, None] * velocity[:, None]
    np.testing.assert_array_equal(place, np.clip(free, least, 159 - least))
    moved = np.diff(place, axis=1)
    inside = (free[:, 1:] == place[:, 1:]).all(-1)
    np.testing.assert_array_equal(moved[inside], np.broadcast_to(velocity[:, None], moved.shape)[inside])
    assert 0.2 < inside.mean() < 0.9
    for name, (right, down) in zip(directions.DIRECTIONS, directions.VELOCITIES, strict=True):
        assert ("N" in name, "S" in name, "W" in name, "E" in name) == (down < 0, down > 0, right < 0, right > 0)


def test_radii_and_starts_are_uniform(clamped):
    assert (clamped.radius.min(), clamped.radius.max()) == (10, 39)
    assert stats.chisquare(np.bincount(clamped.radius)[10:]).pvalue > 1e-3
    span = 160 - 2 * clamped.radius
    for start in (clamped.x[:, 0], clamped.y[:, 0]):
        assert ((start >= clamped.radius) & (start <= 159 - clamped.radius)).all()
        assert stats.kstest((start - clamped.radius + 0.5) / span, "uniform").pvalue > 1e-3


def test_random_velocities_are_uniform_and_labelled():
    discs = states(SMALL["random"], 4000)
    for values, task in ((discs.x, "velocity_x"), (discs.y, "velocity_y")):
        names = directions.classes("random")[task]
        assert names == ("-4", "-3", "-2", "-1", "+0", "+1", "+2", "+3", "+4")
        assert stats.chisquare(np.bincount(discs.labels[task], minlength=9)).pvalue > 1e-3
        step = values[:, 1] - values[:, 0]
        away = (values[:, 1] > discs.radius) & (values[:, 1] < 47 - discs.radius)
        np.testing.assert_array_equal(step[away], np.array([int(name) for name in names])[discs.labels[task]][away])


def test_pixels_show_the_disc_on_grey_noise(rendered):
    spec, video, discs = rendered
    channels = np.arange(3) * 8
    colour, background = ((packed[:, None] >> channels) & 255 for packed in (discs.colour, discs.background))
    assert ((colour >= 120) & (background <= 79)).all()
    inside = (video == colour[:, None, None, None]).all(-1)
    noise = video - background[:, None, None, None]
    assert (noise[~inside] == noise[~inside][:, :1]).all()  # grey
    levels = np.bincount(noise[~inside][:, 0])
    assert len(levels) == 30
    assert np.ptp(levels) < 0.1 * levels.mean()
    assert (noise[:, 1:] != noise[:, :-1])[~inside[:, 1:] & ~inside[:, :-1]].mean() > 0.9  # drawn for each frame
    if spec.motion != "wrapped":
        for axis, centre in ((3, discs.x), (2, discs.y)):
            place = np.arange(spec.size).reshape(-1, 1) if axis == 2 else np.arange(spec.size)
            np.testing.assert_allclose((inside * place).sum((2, 3)) / inside.sum((2, 3)), centre)
    area = inside.sum((2, 3))
    assert (area == area[:, :1]).all()  # also across the border of a torus
    np.testing.assert_allclose(area[:, 0], np.pi * discs.radius**2, rtol=0.1, atol=4)


# --- what positions tell


def predict_from_position(discs, frame):
    """Correct predictions of logistic regression on radius and position in one frame, for half of 4,000 clips."""
    features = StandardScaler().fit_transform(np.column_stack([discs.radius, centres(discs)[:, frame]]))
    features, label = features[:4000], discs.labels["direction"][:4000]
    model = LogisticRegression().fit(features[:2000], label[:2000])
    return stats.binomtest(int((model.predict(features[2000:]) == label[2000:]).sum()), 2000, 1 / 8)


@pytest.mark.parametrize(("frame", "least"), [(7, 0.2), (31, 0.7)])
def test_late_positions_at_the_border_predict_the_direction(clamped, frame, least):
    assert predict_from_position(clamped, frame).proportion_ci().low > least


def test_first_position_does_not_predict_the_direction(clamped):
    assert predict_from_position(clamped, 0).pvalue > 1e-3


@pytest.mark.parametrize("frame", [0, 7, 31])
def test_wrapped_positions_carry_no_direction(wrapped, frame):
    assert predict_from_position(wrapped, frame).pvalue > 1e-3
    for label in range(8):
        of_class = centres(wrapped)[wrapped.labels["direction"] == label, frame]
        for values in of_class.T:
            assert stats.chisquare(np.bincount(values // 10, minlength=16)).pvalue > 1e-4


def test_wrapped_discs_never_stop(wrapped):
    moved = (np.diff(centres(wrapped), axis=1) + 80) % 160 - 80
    expected = np.array(directions.VELOCITIES)[wrapped.labels["direction"]][:, None]
    np.testing.assert_array_equal(moved, np.broadcast_to(expected, moved.shape))


# --- as a source


@pytest.mark.parametrize(
    ("kind", "motion"),
    [("directions", "clamped"), ("directions_wrapped", "wrapped"), ("moving_discs", "random")],
)
def test_evaluation_sets_yield_clips_and_labels(kind, motion):
    clips = data.EvaluationSet(SourceConfig(kind=kind, split="test", clips=10), clip=ClipConfig(frames=8, size=48))
    video, labels = directions.render(SMALL[motion], 0, "test", ITEMS)
    assert clips.classes == directions.classes(motion)
    assert clips.names[9] == f"directions-{directions.VERSION}/{motion}/test/0/9"
    (batch,) = clips.batches(len(ITEMS))
    assert batch["valid"].sum() == 10
    np.testing.assert_array_equal(batch["video"][:10], video[:10])
    for task, values in labels.items():
        np.testing.assert_array_equal(batch["labels"][task][:10], values[:10])


def test_identities_differ_between_motions():
    names = ("directions", "directions_wrapped", "moving_discs")
    opened = [sources.open_source(SourceConfig(kind=kind, clips=3), "a") for kind in names]
    assert len({str(source.cache_key(0, np.zeros(0, np.int32))) for source in opened}) == 3
    assert len({name for source in opened for name in source.addresses(0)}) == 9
    assert sources.rendered_versions()["directions"] == directions.VERSION


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: directions.DiscSpec(8, 15), "size is 15 pixels; expected at least 16"),
        (lambda: directions.DiscSpec(motion="round"), "'round'; expected one of clamped, wrapped, random"),
        (lambda: directions.spec_of(ClipConfig(size=(32, 48)), "clamped"), r"size is \(32, 48\), but clips are square"),
        (lambda: directions.render(directions.DiscSpec(), 0, "validation", ITEMS), "'validation'.*'train', 'test'"),
    ],
)
def test_invalid_settings_raise(call, message):
    with pytest.raises(ConfigError, match=message):
        call()


def test_validation_split_raises():
    with pytest.raises(ValueError, match="'validation', which moving discs do not have"):
        SourceConfig(kind="directions", split="validation")
