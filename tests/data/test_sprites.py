import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jepa_jax.data import sprites
from jepa_jax.data.sprites.scene import EVENTS, ORDERS, TURN, Pose
from jepa_jax.settings import ConfigError

DIFFICULTIES = ("easy", "standard")
MOTIONS = sprites.CLASSES["motion"]
BACKGROUND = np.array([45, 55, 90], np.int16)

draw = jax.jit(sprites.draw, static_argnums=0)


@functools.partial(jax.jit, static_argnums=(0, 2, 3))
def _scenes(spec, seed, split, count):
    return jax.vmap(lambda item: sprites.scene(spec, seed, split, item))(jnp.arange(count))


def scenes(spec, count, seed=0, split="train"):
    return jax.device_get(_scenes(spec, seed, split, count))


@pytest.fixture(scope="module", params=DIFFICULTIES)
def many(request):
    """States of 12,000 clips of 8 frames."""
    return scenes(sprites.SpriteSpec(8, 32, request.param), 12_000, seed=5)


def wrapped(steps, period=TURN):
    """Returns differences on a circle, in [−1/2, 1/2) of a turn."""
    return ((steps + period // 2) % period - period // 2) / period


def path_of(batch):
    """Returns the path of the sprite: its poses in the frames without an event."""
    clips = len(batch.events)
    quiet = batch.events.max(-1) == 0
    return Pose(*(a[quiet].reshape(clips, -1) for a in batch.sprite))


def track(pose):
    """Returns the path as complex numbers (unit: frame side; up is positive) and the angle in turns, both centred."""
    x_F, y_F, turn_F = (
        np.cumsum(wrapped(np.diff(a, axis=-1, prepend=a[..., :1])), axis=-1) for a in (pose.x, pose.y, pose.angle)
    )
    return tuple(a - a.mean(-1, keepdims=True) for a in (x_F - 1j * y_F, turn_F))


# --- a pure function of its arguments


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_clips_do_not_depend_on_the_batch_or_the_surrounding_program(difficulty):
    spec = sprites.SpriteSpec(8, 32, difficulty)
    video, labels = sprites.render(spec, 3, "test", np.arange(9, dtype=np.int32))
    few, few_labels = sprites.render(spec, 3, "test", jnp.array([7, 2, 4]))
    np.testing.assert_array_equal(few, video[jnp.array([7, 2, 4])])

    @jax.jit
    def step(seed, item):
        clips, _ = jax.vmap(lambda s: sprites.render(spec, s, "test", item))(seed[None])
        return clips[0], clips.astype(jnp.float32).mean()

    inside, mean = step(jnp.int32(3), jnp.arange(9))
    np.testing.assert_array_equal(inside, video)
    assert mean == pytest.approx(np.asarray(video).mean(), rel=1e-5)
    for task in sprites.CLASSES:
        np.testing.assert_array_equal(few_labels[task], labels[task][jnp.array([7, 2, 4])])


@pytest.mark.parametrize(("frames", "size"), [(4, 8), (5, 33), (16, 24)])
def test_rendered_shapes_and_dtypes(frames, size):
    video, labels = sprites.render(sprites.SpriteSpec(frames, size, "standard"), 0, "train", jnp.arange(3))
    assert video.shape == (3, frames, size, size, 3)
    assert video.dtype == jnp.uint8
    assert set(labels) == set(sprites.CLASSES)
    assert all(label.shape == (3,) and label.dtype == jnp.int32 for label in labels.values())


def test_splits_and_seeds_give_independent_clips():
    spec = sprites.SpriteSpec(8, 32)
    draws = [scenes(spec, 3000, *which) for which in [(0, "train"), (0, "test"), (1, "train"), (1, "test")]]
    for one, other in itertools.combinations(draws, 2):
        # Independent streams have equal labels at chance level and (almost) never equal start positions.
        for task, names in sprites.CLASSES.items():
            agree = int((one.labels[task] == other.labels[task]).sum())
            assert stats.binomtest(agree, 3000, 1 / len(names)).pvalue > 1e-4
        same = (one.sprite.x[:, 0] == other.sprite.x[:, 0]) & (one.sprite.y[:, 0] == other.sprite.y[:, 0])
        assert not same.any()
    clips = {(x, y, a) for d in draws for x, y, a in zip(*(p[:, 0].tolist() for p in d.sprite), strict=True)}
    assert len(clips) == 4 * 3000  # no clip occurs twice in a stream


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"frames": 3}, "frames is 3.*at least 4"),
        ({"size": 4}, "size is 4.*at least 8"),
        ({"difficulty": "hard"}, "'hard'.*'easy' or 'standard'"),
    ],
)
def test_invalid_specs_raise(settings, message):
    with pytest.raises(ConfigError, match=message):
        sprites.SpriteSpec(**settings)


def test_unknown_split_raises():
    with pytest.raises(ConfigError, match=r"'validation'.*'train', 'test'"):
        sprites.render(sprites.SpriteSpec(), 0, "validation", jnp.arange(1))


# --- labels


def test_labels_are_uniform_and_independent(many):
    for task, names in sprites.CLASSES.items():
        counts = np.bincount(many.labels[task], minlength=len(names))
        assert len(counts) == len(names)
        assert stats.chisquare(counts).pvalue > 1e-3
    for one, other in itertools.combinations(sprites.CLASSES, 2):
        table = np.zeros((len(sprites.CLASSES[one]), len(sprites.CLASSES[other])))
        np.add.at(table, (many.labels[one], many.labels[other]), 1)
        assert stats.chi2_contingency(table).pvalue > 1e-3


def test_reverse_labels_are_involutions_and_match_the_reversed_names():
    for names, reversal in (("motion", sprites.REVERSE_MOTION), ("order", sprites.REVERSE_ORDER)):
        assert [reversal[label] for label in reversal] == list(range(len(sprites.CLASSES[names])))
    for label, name in enumerate(sprites.CLASSES["order"]):
        mirrored = ", ".join(reversed(name.split(", ")))
        assert sprites.CLASSES["order"][sprites.REVERSE_ORDER[label]] == mirrored


# --- single frames are independent of motion


def test_state_at_any_time_is_uniform_in_every_class(many):
    # 12 motions (then 6 orders) × 8 times × 3 coordinates: the smallest of so many p-values is about 1/300.
    for task in ("motion", "order"):
        for label in range(len(sprites.CLASSES[task])):
            of_class = many.labels[task] == label
            for values in many.sprite:
                for time in range(8):
                    assert stats.kstest((values[of_class, time] + 0.5) / TURN, "uniform").pvalue > 1e-5


def test_state_at_any_time_has_the_same_distribution_in_all_classes(many):
    for one, other in itertools.combinations(range(len(MOTIONS)), 2):
        first, second = (many.labels["motion"] == label for label in (one, other))
        for values in (*many.sprite, *many.distractor[:2]):
            for time in (0, 3, 7):
                assert stats.ks_2samp(values[first, time], values[second, time]).pvalue > 1e-5


def test_state_during_each_event_is_uniform(many):
    for event in range(len(EVENTS)):
        clip, time = np.nonzero(many.events[..., event])
        first = np.unique(clip, return_index=True)[1]  # one frame per clip: frames of one clip are dependent
        for values in many.sprite:
            assert stats.kstest((values[clip[first], time[first]] + 0.5) / TURN, "uniform").pvalue > 1e-4


def test_frames_depend_only_on_their_own_state():
    spec = sprites.SpriteSpec(8, 32, "standard")
    batch = scenes(spec, 128)
    shuffled = np.array([3, 6, 0, 7, 1, 5, 4, 2])
    sprite, distractor, events = jax.tree.map(lambda a: a[:, shuffled], (batch.sprite, batch.distractor, batch.events))
    other = batch._replace(sprite=sprite, distractor=distractor, events=events)
    np.testing.assert_array_equal(draw(spec, other), np.asarray(draw(spec, batch))[:, shuffled])


# --- motion is predictable from several frames


@pytest.mark.parametrize(("frames", "difficulty"), [(8, "easy"), (8, "standard"), (16, "easy"), (16, "standard")])
def test_motion_is_predictable_from_true_states(difficulty, frames):
    """Nearest neighbour on features that are invariant to rotation, translation and speed."""

    def features(split, count):
        batch = scenes(sprites.SpriteSpec(frames, 32, difficulty), count, split=split)
        x_F, y_F, turn_F = (wrapped(np.diff(a)) for a in path_of(batch))
        steps_F = x_F - 1j * y_F
        products_FxF = steps_F[:, :, None] * steps_F[:, None].conj()
        products = np.concatenate([products_FxF.real, products_FxF.imag], -1).reshape(count, -1)
        products /= np.linalg.norm(products, axis=1, keepdims=True) + 1e-6
        turn_F = turn_F / (np.linalg.norm(turn_F, axis=1, keepdims=True) + 1e-6)
        return np.concatenate([products, turn_F], 1), batch.labels["motion"]

    known, known_labels = features("train", 600)
    seen, labels = features("test", 600)
    nearest = ((known**2).sum(1) - 2 * seen @ known.T).argmin(1)
    assert (known_labels[nearest] == labels).mean() >= 0.99


def test_motions_match_their_names():
    batch = scenes(sprites.SpriteSpec(16, 32), 400)
    path, turned = track(path_of(batch))
    steps = np.diff(path)
    pace = np.abs(steps)
    bend = np.angle(steps[:, 1:] * steps[:, :-1].conj()) * (pace[:, 1:] > 1e-3) * (pace[:, :-1] > 1e-3)
    moving = pace > 1e-3

    def of(name):
        return batch.labels["motion"] == MOTIONS.index(name)

    for name in MOTIONS:
        assert (np.abs(turned[of(name)]).max() > 0.1) == name.startswith("spin")
        assert moving[of(name)].any() != name.startswith("spin")
    assert (np.diff(pace[of("accelerate")]) > 0).all()
    assert (np.diff(pace[of("decelerate")]) < 0).all()
    assert (np.ptp(pace[of("linear")], axis=1) < 1e-3).all()
    assert (np.diff(turned[of("spin_ccw")]) > 0).all()
    assert (np.diff(turned[of("spin_cw")]) < 0).all()
    assert (bend[of("orbit_ccw")] > 0.1).all()
    assert (bend[of("orbit_cw")] < -0.1).all()
    assert bend[of("turn_left")].sum(1) == pytest.approx(np.pi / 2, abs=0.02)
    assert bend[of("turn_right")].sum(1) == pytest.approx(-np.pi / 2, abs=0.02)
    assert np.abs(path[of("out_and_back")][:, 0] - path[of("out_and_back")][:, -1]).max() < 1e-3
    assert (np.abs(bend[of("zigzag")]).max(1) > 0.5).all()
    assert np.abs(bend[of("zigzag")].sum(1)).max() < 0.02
    stops = moving[of("stop_and_go")]
    assert stops[:, [0, -1]].all()
    assert not stops[:, 3:6].any()


def test_angles_increase_counterclockwise_on_the_screen():
    """A rotation of the state by 90° rotates the image by 90°."""
    spec = sprites.SpriteSpec(8, 32)
    batch = scenes(spec, 128)
    centre = np.full_like(batch.sprite.x, TURN // 2)
    angle = np.broadcast_to(np.arange(8, dtype=np.int32) * (TURN // 4) % TURN, centre.shape)
    still = batch._replace(sprite=Pose(centre, centre, angle), events=np.zeros_like(batch.events))
    video = np.asarray(draw(spec, still)).astype(int)
    for quarter in range(1, 5):
        turned = np.rot90(video[:, 0], quarter, axes=(1, 2))
        assert np.abs(turned - video[:, quarter]).mean() < 0.5  # grey levels; edges may be rounded differently


# --- order


@pytest.mark.parametrize("frames", [4, 5, 8, 16])
def test_every_clip_has_each_event_once_in_the_order_of_its_label(frames):
    batch = scenes(sprites.SpriteSpec(frames, 32), 600)
    on = batch.events
    assert set(np.unique(on)) == {0.0, 1.0}
    assert on.sum(-1).max() == 1  # one at a time
    lasting = max(1, frames // 8)
    np.testing.assert_array_equal(on.sum(1), lasting)
    first, last = on.argmax(1), frames - 1 - on[:, ::-1].argmax(1)
    np.testing.assert_array_equal(last - first + 1, lasting)  # in one piece
    np.testing.assert_array_equal(first.argsort(1), np.array(ORDERS)[batch.labels["order"]])


@pytest.mark.parametrize("frames", [5, 8, 16])
def test_nothing_moves_from_the_first_event_to_the_last(frames):
    batch = scenes(sprites.SpriteSpec(frames, 32, "standard"), 600)
    on = batch.events.max(-1) == 1
    during = np.maximum.accumulate(on, 1) & np.maximum.accumulate(on[:, ::-1], 1)[:, ::-1]
    for values in (*batch.sprite, *batch.distractor):
        values = np.where(during, values, values[np.arange(600), on.argmax(1), None])
        assert (np.ptp(values, axis=1) == 0).all()
    # The number of frames before the first event does not depend on the order.
    places = frames - on[0].sum()
    before = (np.cumsum(on, 1) == 0).sum(1)
    by_order = np.zeros((len(ORDERS), places + 1))
    np.add.at(by_order, (batch.labels["order"], before), 1)
    assert stats.chi2_contingency(by_order).pvalue > 1e-3


@pytest.mark.parametrize(("frames", "difficulty"), [(8, "easy"), (8, "standard"), (16, "standard")])
def test_bag_of_frames_does_not_depend_on_the_order_label(frames, difficulty):
    """After permuting the events, the video has the same frames and another order label."""
    spec = sprites.SpriteSpec(frames, 24, difficulty)
    batch = scenes(spec, 128)

    def bags(clips):
        return [sorted(frame.tobytes() for frame in clip) for clip in np.asarray(draw(spec, clips))]

    expected = bags(batch)
    for order in ORDERS[1:]:
        other = batch._replace(events=batch.events[..., np.array(order)])
        assert (other.events != batch.events).any((1, 2)).all()
        assert bags(other) == expected


@pytest.mark.parametrize("frames", [5, 8])
def test_schedules_and_their_mirror_images_are_equally_likely_for_every_order(frames):
    batch = scenes(sprites.SpriteSpec(frames, 32), 12_000)
    first = np.sort(batch.events.argmax(1), axis=1)
    mirrored = np.sort(batch.events[:, ::-1].argmax(1), axis=1)
    code, mirrored_code = (np.ravel_multi_index(tuple(a.T), (frames,) * 3) for a in (first, mirrored))
    _, code = np.unique(np.concatenate([code, mirrored_code]), return_inverse=True)
    code, mirrored_code = np.split(code, 2)
    kinds = code.max() + 1
    assert kinds > 1
    assert set(code) == set(mirrored_code)  # mirrored schedules are valid schedules
    half = len(code) // 2  # compare independent clips
    table = [np.bincount(code[:half], minlength=kinds), np.bincount(mirrored_code[half:], minlength=kinds)]
    assert stats.chi2_contingency(table).pvalue > 1e-3
    by_order = np.zeros((len(ORDERS), kinds))
    np.add.at(by_order, (batch.labels["order"], code), 1)
    assert stats.chi2_contingency(by_order).pvalue > 1e-3


def test_events_are_visible():
    """The order is determined from the colours of each frame, on a plain background."""
    spec = sprites.SpriteSpec(8, 64)
    video, labels = (jax.device_get(x) for x in sprites.render(spec, 0, "test", jnp.arange(100)))
    red, green, blue = np.moveaxis(video.astype(int), -1, 0)
    sprite = red - blue > 60
    area = sprite.sum((2, 3))
    light = (green * sprite).sum((2, 3)) / area
    # In the order of EVENTS: each score is highest during its event.
    scores = np.stack([-light, -area, np.median(blue, (2, 3))], -1)
    onset = np.argsort(np.argsort(-scores, axis=1, kind="stable"), axis=1)
    when = onset.argmin(1)  # an event lasts one frame here
    np.testing.assert_array_equal(when.argsort(1), np.array(ORDERS)[labels["order"]])


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_order_is_linearly_predictable_from_frame_sequences_but_not_from_their_mean(difficulty):
    spec = sprites.SpriteSpec(8, 16, difficulty)
    video, labels = (jax.device_get(x) for x in sprites.render(spec, 0, "train", jnp.arange(4000)))
    pixels = video.reshape(*video.shape[:2], -1) / 255.0
    averaged = pixels.mean(1)
    in_sequence = np.concatenate([pixels.mean(2), video.mean((2, 3)).reshape(4000, -1) / 255], 1)
    wanted = np.eye(6)[labels["order"]]

    def accuracy(features):
        features = np.concatenate([features, np.ones((4000, 1))], 1)
        gram = features[:2500].T @ features[:2500] + 1e-3 * np.eye(features.shape[1])
        weights = np.linalg.solve(gram, features[:2500].T @ wanted[:2500])
        return ((features[2500:] @ weights).argmax(1) == labels["order"][2500:]).mean()

    assert abs(accuracy(averaged) - 1 / 6) < 4 * np.sqrt(5 / 36 / 1500)
    assert accuracy(in_sequence) > 0.6


# --- time reversal


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
@pytest.mark.parametrize(("frames", "size"), [(8, 32), (5, 24)])
def test_reversed_states_give_the_reversed_video_exactly(frames, size, difficulty):
    spec = sprites.SpriteSpec(frames, size, difficulty)
    batch = scenes(spec, 128)
    assert set(batch.labels["motion"]) == set(range(len(MOTIONS)))
    assert set(batch.labels["order"]) == set(range(len(ORDERS)))
    backwards = jax.vmap(sprites.reverse)(batch)
    np.testing.assert_array_equal(draw(spec, backwards), np.asarray(draw(spec, batch))[:, ::-1])
    jax.tree.map(np.testing.assert_array_equal, jax.vmap(sprites.reverse)(backwards), batch)
    np.testing.assert_array_equal(
        backwards.labels["order"], [ORDERS.index(ORDERS[label][::-1]) for label in batch.labels["order"]]
    )
    np.testing.assert_array_equal(backwards.labels["appearance"], batch.labels["appearance"])


@pytest.mark.parametrize("frames", [8, 11, 16])
def test_reversed_path_matches_the_reverse_motion_and_no_other(frames):
    batch = scenes(sprites.SpriteSpec(frames, 32), 150)
    path, turned = track(path_of(batch))
    example = [int(np.flatnonzero(batch.labels["motion"] == label)[0]) for label in range(len(MOTIONS))]
    for label, clip in enumerate(example):
        back, back_turned = path[clip, ::-1], turned[clip, ::-1]
        matches = []
        for other in example:
            along = np.vdot(path[other], back)
            rotation = along / abs(along) if abs(along) > 1e-9 else 1
            gap = max(np.abs(back - rotation * path[other]).max(), np.abs(back_turned - turned[other]).max())
            assert gap < 3 / TURN or gap > 0.02
            matches.append(gap < 3 / TURN)
        assert [MOTIONS[i] for i in np.flatnonzero(matches)] == [MOTIONS[sprites.REVERSE_MOTION[label]]]


# --- appearance


@pytest.fixture(scope="module")
def rotated():
    """Each appearance, plain and inverted, at 48 angles in the centre of a frame: [16, 2, 48, Y, X, 3]."""
    spec = sprites.SpriteSpec(48, 40)
    one = scenes(spec, 1)
    look, sprite, distractor = (
        jax.tree.map(lambda a: np.repeat(a, 32, axis=0), part) for part in (one.look, one.sprite, one.distractor)
    )
    appearance, inverted = np.divmod(np.arange(32), 2)
    centre = np.full_like(sprite.x, TURN // 2)
    angle = np.broadcast_to((np.arange(48) * TURN // 48).astype(np.int32), centre.shape)
    events = np.zeros((32, 48, 3), np.float32)
    events[:, :, EVENTS.index("invert")] = inverted[:, None]
    look = look._replace(appearance=appearance.astype(np.int32))
    video = draw(
        spec, one._replace(sprite=Pose(centre, centre, angle), distractor=distractor, events=events, look=look)
    )
    return np.asarray(video).reshape(16, 2, 48, 40, 40, 3).astype(np.int16)


def test_shapes_differ_at_every_rotation_and_have_no_rotational_symmetry(rotated):
    masks = (np.abs(rotated[::4, 0] - BACKGROUND).max(-1) > 40).reshape(4, 48, -1)
    area = masks.sum(-1)
    assert np.ptp(area.mean(1)) < 0.05 * area.mean()  # the size does not reveal the shape
    for one in range(4):
        overlap = (masks[one, 0] & masks).sum(-1) / (masks[one, 0] | masks).sum(-1)
        assert overlap[one, 0] == 1
        assert overlap[one, 4:-3].max() < 0.8  # the same shape rotated by 30° or more
        assert np.delete(overlap, one, axis=0).max() < 0.8


def test_appearances_differ_at_every_rotation_and_when_inverted(rotated):
    sprite = (np.abs(rotated - BACKGROUND).max(-1) > 40).mean()  # fraction of the frame
    for one, inverted in itertools.product(range(16), range(2)):
        different = (np.abs(rotated[one, inverted, 0] - rotated).max(-1) > 60).mean((-1, -2)) / sprite
        assert different[one, inverted, 0] == 0
        assert different[one, inverted, 4:-3].min() > 0.1
        assert np.delete(different, one, axis=0).min() > 0.1


def test_appearance_is_not_predictable_from_colours_alone(rotated):
    """All appearances have similar fractions of light and dark pixels; inverting shifts the balance."""
    sprite = np.abs(rotated - BACKGROUND).max(-1) > 40
    light = ((rotated[..., 1] > 127) & sprite).sum((2, 3, 4)) / sprite.sum((2, 3, 4))
    assert light[:, 0].min() > 0.55
    assert light[:, 0].max() < 0.85
    assert light[:, 1].max() < 0.45


# --- the torus


def test_moving_the_start_by_whole_pixels_rolls_the_image():
    spec = sprites.SpriteSpec(8, 32)
    batch = scenes(spec, 128)
    video = np.asarray(draw(spec, batch))
    pixel = TURN // 32
    for right, down in ((1, 0), (13, 30), (16, 16)):
        x, y = (batch.sprite.x + right * pixel) % TURN, (batch.sprite.y + down * pixel) % TURN
        moved = draw(spec, batch._replace(sprite=batch.sprite._replace(x=x, y=y)))
        np.testing.assert_array_equal(moved, np.roll(video, (down, right), axis=(2, 3)))


def test_sprite_on_an_edge_wraps_to_the_opposite_side():
    spec = sprites.SpriteSpec(8, 32)
    batch = scenes(spec, 128)
    corner = np.zeros_like(batch.sprite.x)
    video = draw(spec, batch._replace(sprite=batch.sprite._replace(x=corner, y=corner), events=batch.events * 0))
    sprite = np.abs(np.asarray(video).astype(np.int16) - BACKGROUND).max(-1) > 40
    for axis, side in itertools.product((2, 3), (range(8), range(-8, 0))):
        assert sprite.take(side, axis).any((2, 3)).all()
    assert not sprite[:, :, 15:17, 15:17].any()
