import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jepa_jax.data import sprites
from jepa_jax.data.sprites.glyphs import GLYPHS, SIDE
from jepa_jax.data.sprites.scene import DIRECTIONS, EVENTS, MOTIONS, ORDERS, Position
from jepa_jax.settings import ConfigError

DIFFICULTIES = ("easy", "standard")

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


def counts_of(values, batch):
    """How often each possible position occurs in clips of 32 pixels: multiples of half a cell in easy clips, or any."""
    lattice = 1 if batch.look.pattern.any() else 4
    assert not (values % lattice).any()
    return np.bincount(values // lattice, minlength=32 // lattice)


def steps_of(batch, spec):
    """Steps along x and y from frame to frame, in half cells, [B, F − 1, 2]."""
    half = spec.size // 2
    steps = np.stack([(np.diff(a) + half) % spec.size - half for a in batch.sprite], -1)
    return steps / spec.half_cell


def path_of(batch, spec):
    """Steps between the positions of the path, one per frame without the pause, [B, P − 1, 2]."""
    frames = batch.event.shape[1]
    pause = (batch.event[0] > 0).sum() + 1
    steps = steps_of(batch, spec)
    first = (batch.event > 0).argmax(1) - 1  # the plain frame before the events
    kept = (np.arange(frames - 1) < first[:, None]) | (np.arange(frames - 1) >= first[:, None] + pause)
    return steps[kept].reshape(len(steps), frames - 1 - pause, 2)


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


@pytest.mark.parametrize(("frames", "size"), [(4, 16), (5, 48), (16, 32)])
def test_rendered_shapes_and_dtypes(frames, size):
    video, labels = sprites.render(sprites.SpriteSpec(frames, size, "standard"), 0, "train", jnp.arange(3))
    assert video.shape == (3, frames, size, size, 3)
    assert video.dtype == jnp.uint8
    assert set(labels) == set(sprites.CLASSES)
    assert all(label.shape == (3,) and label.dtype == jnp.int32 for label in labels.values())


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_splits_and_seeds_give_independent_clips(difficulty):
    spec = sprites.SpriteSpec(8, 32, difficulty)
    draws = [scenes(spec, 3000, *which) for which in [(0, "train"), (0, "test"), (1, "train"), (1, "test")]]
    for one, other in itertools.combinations(draws, 2):
        # Independent streams have equal labels at chance level.
        for task, names in sprites.CLASSES.items():
            agree = int((one.labels[task] == other.labels[task]).sum())
            assert stats.binomtest(agree, 3000, 1 / len(names)).pvalue > 1e-4
    states = np.concatenate(
        [
            np.concatenate(
                [d.look.middle, d.look.contrast, d.sprite.x, d.sprite.y, np.stack([*d.labels.values()], 1)], 1
            )
            for d in draws
        ]
    )
    assert len(np.unique(states, axis=0)) == 4 * 3000  # no clip occurs twice


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"frames": 3}, "frames is 3.*at least 4"),
        ({"size": 4}, "size is 4.*a multiple of 16, such as 16"),
        ({"size": 33}, "size is 33.*a multiple of 16, such as 32"),
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
    opposite = sprites.CLASSES["motion"].index("left decelerate")
    assert sprites.REVERSE_MOTION[sprites.CLASSES["motion"].index("right accelerate")] == opposite


# --- single frames are independent of motion


def test_position_at_any_time_is_uniform_in_every_class(many):
    # 22 classes × 8 times × 2 coordinates: the smallest of so many p-values is about 1/300.
    for task, names in sprites.CLASSES.items():
        for label in range(len(names)):
            of_class = many.labels[task] == label
            for values in many.sprite:
                for time in range(8):
                    assert stats.chisquare(counts_of(values[of_class, time], many)).pvalue > 1e-5


def test_distractor_has_the_same_distribution_in_all_classes(many):
    for values in many.distractor:
        for time in (0, 3, 7):
            table = np.zeros((len(MOTIONS), 32))
            np.add.at(table, (many.labels["motion"], values[:, time]), 1)
            assert stats.chi2_contingency(table).pvalue > 1e-4


def test_looks_do_not_depend_on_the_labels(many):
    look = many.look
    values = np.concatenate(
        [look.middle, look.contrast, look.stripes.reshape(-1, 6), look.wave, look.phase[:, None]], 1
    )
    for task, names in sprites.CLASSES.items():
        for column in values.T:
            if np.ptp(column):
                groups = [column[many.labels[task] == label] for label in range(len(names))]
                assert stats.kruskal(*groups).pvalue > 1e-4


def test_position_during_each_event_is_uniform(many):
    for event in range(len(EVENTS)):
        clip, time = np.nonzero(many.event == event + 1)
        for values in many.sprite:
            assert stats.chisquare(counts_of(values[clip, time], many)).pvalue > 1e-4


def test_frames_depend_only_on_their_own_state():
    spec = sprites.SpriteSpec(8, 32, "standard")
    batch = scenes(spec, 128)
    shuffled = np.array([3, 6, 0, 7, 1, 5, 4, 2])
    sprite, distractor, event = jax.tree.map(lambda a: a[:, shuffled], (batch.sprite, batch.distractor, batch.event))
    other = batch._replace(sprite=sprite, distractor=distractor, event=event)
    np.testing.assert_array_equal(draw(spec, other), np.asarray(draw(spec, batch))[:, shuffled])


# --- motion


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
@pytest.mark.parametrize("frames", [7, 8, 11, 16])
def test_motions_match_their_names(frames, difficulty):
    spec = sprites.SpriteSpec(frames, 32, difficulty)
    batch = scenes(spec, 400)
    steps = path_of(batch, spec)
    length = np.abs(steps).sum(-1)
    assert set(np.unique(length)) == {1.0, 2.0}
    for label, (direction, pace) in enumerate(MOTIONS):
        of_class = batch.labels["motion"] == label
        assert of_class.any()
        along = steps[of_class] @ np.array(DIRECTIONS[direction])
        np.testing.assert_array_equal(along, length[of_class])
        growth = np.diff(length[of_class])
        assert (growth >= 0).all() if pace == "accelerate" else (growth <= 0).all()
        assert (np.abs(growth).sum(1) == 1).all()


@pytest.mark.parametrize("frames", [7, 8, 11, 16])
def test_reversed_path_matches_the_reverse_motion_and_no_other(frames):
    spec = sprites.SpriteSpec(frames, 32)
    batch = scenes(spec, 400)
    example = [path_of(batch, spec)[np.argmax(batch.labels["motion"] == label)] for label in range(len(MOTIONS))]
    for label, steps in enumerate(example):
        matches = [np.array_equal(-steps[::-1], other) for other in example]
        assert np.flatnonzero(matches).tolist() == [sprites.REVERSE_MOTION[label]]


# --- order


@pytest.mark.parametrize("frames", [4, 5, 8, 16])
def test_every_clip_has_each_event_once_in_the_order_of_its_label(frames):
    batch = scenes(sprites.SpriteSpec(frames, 32), 600)
    lasting = max(1, frames // 8)
    during = batch.event > 0
    first = during.argmax(1)
    assert (during.sum(1) == 3 * lasting).all()
    events = batch.event[np.arange(600)[:, None], first[:, None] + np.arange(3 * lasting)]
    expected = np.repeat(np.array(ORDERS)[batch.labels["order"]] + 1, lasting, axis=1)
    np.testing.assert_array_equal(events, expected)


@pytest.mark.parametrize("frames", [5, 8, 16])
def test_nothing_moves_between_the_plain_frames_around_the_events(frames):
    batch = scenes(sprites.SpriteSpec(frames, 32, "standard"), 600)
    events = (batch.event[0] > 0).sum()
    first = (batch.event > 0).argmax(1)
    assert (first > 0).all()
    around = (np.arange(600)[:, None], first[:, None] + np.arange(-1, events + 1))  # raises beyond the last frame
    assert (batch.event[around][:, [0, -1]] == 0).all()
    for values in (*batch.sprite, *batch.distractor):
        assert (np.ptp(values[around], axis=1) == 0).all()
    # When the events begin does not depend on the order.
    by_order = np.zeros((len(ORDERS), frames))
    np.add.at(by_order, (batch.labels["order"], first), 1)
    if frames > 5:
        assert stats.chi2_contingency(by_order[:, by_order.any(0)]).pvalue > 1e-3


@pytest.mark.parametrize(("frames", "difficulty"), [(8, "easy"), (8, "standard"), (16, "standard")])
def test_bag_of_frames_does_not_depend_on_the_order_label(frames, difficulty):
    """After permuting the events, the video has the same frames and another order label."""
    spec = sprites.SpriteSpec(frames, 32, difficulty)
    batch = scenes(spec, 128)

    def bags(clips):
        return [sorted(frame.tobytes() for frame in clip) for clip in np.asarray(draw(spec, clips))]

    expected = bags(batch)
    for order in ORDERS[1:]:
        other = batch._replace(event=np.array([0, *(1 + event for event in order)], np.int32)[batch.event])
        assert (other.event != batch.event).any(1).all()
        assert bags(other) == expected


@pytest.mark.parametrize("frames", [4, 8])
def test_schedules_and_their_mirror_images_are_equally_likely_for_every_order(frames):
    batch = scenes(sprites.SpriteSpec(frames, 32), 12_000)
    first = (batch.event > 0).argmax(1)
    mirrored = (batch.event[:, ::-1] > 0).argmax(1)
    kinds = np.unique(first)
    assert len(kinds) > 1
    np.testing.assert_array_equal(kinds, np.unique(mirrored))  # mirrored schedules are valid schedules
    table = np.zeros((len(ORDERS), frames))
    np.add.at(table, (batch.labels["order"], first), 1)
    assert stats.chi2_contingency(table[:, kinds]).pvalue > 1e-3
    # Independent clips.
    table = [np.bincount(first[:6000], minlength=frames), np.bincount(mirrored[6000:], minlength=frames)]
    assert stats.chi2_contingency(np.array(table)[:, kinds]).pvalue > 1e-3


# --- statistics of colour and change


@pytest.mark.parametrize(("frames", "size"), [(8, 32), (16, 48)])
def test_all_frames_of_easy_clips_have_the_same_histogram(frames, size):
    spec = sprites.SpriteSpec(frames, size)
    batch = scenes(spec, 64)
    video = np.asarray(draw(spec, batch)).astype(int)
    colours = np.sort((video @ [1, 256, 65536]).reshape(64, frames, -1), axis=-1)
    assert (colours == colours[:, :1]).all()
    assert (video.mean((2, 3)) == batch.look.middle[:, None]).all()


def test_glyphs_have_the_same_histogram_in_all_frames_of_a_standard_clip():
    spec = sprites.SpriteSpec(8, 32, "standard")
    batch = scenes(spec, 64)
    plain = batch._replace(
        look=batch.look._replace(pattern=np.zeros(64, np.int32)),
        distractor=batch.sprite,  # hidden
    )
    colours = np.sort((np.asarray(draw(spec, plain)).astype(int) @ [1, 256, 65536]).reshape(64, 8, -1), axis=-1)
    assert (colours == colours[:, :1]).all()


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_energy_of_changes_depends_on_steps_and_events_alone(difficulty):
    spec = sprites.SpriteSpec(8, 32, difficulty)
    batch = scenes(spec, 512)
    # Without what varies in standard clips; the distractor is hidden.
    batch = batch._replace(look=batch.look._replace(pattern=np.zeros(512, np.int32)), distractor=batch.sprite)
    change = np.diff(np.asarray(draw(spec, batch)).astype(int), axis=1)
    energy = np.square(change).sum((2, 3, 4)) / np.square(batch.look.contrast).sum(-1)[:, None]
    length = np.abs(steps_of(batch, spec)).sum(-1).astype(int)
    glyph = (2 * SIDE * spec.half_cell) ** 2  # pixels
    changed = np.diff(batch.event) != 0
    # Half of the pixels change from light to dark or back, by twice the contrast, when an event begins or ends and in a
    # step of a cell; a step of half a cell has half the energy.
    expected = np.select([changed, length == 2, length == 1], [2 * glyph, 2 * glyph, glyph], 0)
    np.testing.assert_array_equal(energy, expected)


def test_glyphs_have_the_properties_that_hide_them():
    cells = {name: np.array([[1 if c == "#" else -1 for c in row] for row in rows]) for name, rows in GLYPHS.items()}
    moves = list(itertools.product(range(SIDE), repeat=2))
    moved = {np.roll(glyph, move, (0, 1)).tobytes() for glyph in cells.values() for move in moves}
    assert len(moved) == len(GLYPHS) * len(moves)  # distinct, wherever they are on the torus
    for glyph in cells.values():
        assert glyph.shape == (SIDE, SIDE)
        assert glyph.sum() == 0
        for axis in (0, 1):
            product = glyph * np.roll(glyph, 1, axis)
            assert product.sum() == 0
            assert np.delete(product, 0, axis).sum() == 0  # on a background of 0
    upright = cells["0°"]
    for name, glyph in cells.items():
        turn, _, mirrored = name.partition("° ")
        expected = np.rot90(upright[:, ::-1] if mirrored else upright, int(turn.rstrip("°")) // 90)
        np.testing.assert_array_equal(glyph, expected)


# --- time reversal


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
@pytest.mark.parametrize(("frames", "size"), [(8, 32), (5, 16)])
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


# --- drawing


def of_state(spec, x, y, event, appearance):
    """The first clip of the set with another state: position, events and glyph."""
    one = scenes(spec, 1)
    as_array = functools.partial(np.broadcast_to, shape=(1, spec.frames))
    look = one.look._replace(appearance=np.array([appearance], np.int32))
    return one._replace(
        sprite=Position(*(as_array(np.int32(a)) for a in (x, y))), event=as_array(np.int32(event)), look=look
    )


@pytest.mark.parametrize(("difficulty", "side"), [("easy", 32), ("standard", 16)])
def test_frames_show_the_glyph_where_the_state_says(difficulty, side):
    spec = sprites.SpriteSpec(4, 32, difficulty)
    for appearance, rows in enumerate(GLYPHS.values()):
        state = of_state(spec, 16, 12, 0, appearance)
        state = state._replace(
            look=state.look._replace(pattern=np.zeros(1, np.int32)),
            distractor=state.sprite,  # hidden
        )
        sign = np.sign(np.asarray(draw(spec, state))[0, 0].astype(int) - state.look.middle[0])
        glyph = np.array([[1 if c == "#" else -1 for c in row] for row in rows])
        expected = np.zeros((32, 32), int)
        expected[:side, :side] = np.kron(glyph, np.ones((side // SIDE, side // SIDE), int))
        expected = np.roll(expected, (12 - side // 2, 16 - side // 2), (0, 1))
        np.testing.assert_array_equal(sign, expected[..., None].repeat(3, -1))


def test_glyph_wraps_around_the_frame():
    spec = sprites.SpriteSpec(4, 32)
    centred, shifted = (np.asarray(draw(spec, of_state(spec, x, y, 0, 2))) for x, y in ((16, 16), (31, 5)))
    np.testing.assert_array_equal(np.roll(centred, (5 - 16, 31 - 16), (2, 3)), shifted)


def test_glyph_becomes_the_stripes_of_the_event():
    spec = sprites.SpriteSpec(4, 32)
    state = of_state(spec, 16, 16, [0, *(1 + EVENTS.index(name) for name in ("rows", "columns", "checks"))], 0)
    phase = state.look.stripes[0]
    _, rows, columns, checks = np.asarray(draw(spec, state))[0, ..., 0] > state.look.middle[0, 0]

    def light(event, axis):
        return (np.arange(32) + phase[EVENTS.index(event), axis]) % 8 < 4

    np.testing.assert_array_equal(rows, np.broadcast_to(light("rows", 1)[:, None], (32, 32)))
    np.testing.assert_array_equal(columns, np.broadcast_to(light("columns", 0), (32, 32)))
    np.testing.assert_array_equal(checks, light("checks", 1)[:, None] == light("checks", 0))


def test_colours_vary_in_standard_only():
    easy, standard = (scenes(sprites.SpriteSpec(8, 64, name), 500).look for name in DIFFICULTIES)
    assert np.ptp(easy.middle, axis=0).max() <= 3
    assert np.ptp(easy.contrast, axis=0).max() <= 3
    assert not easy.pattern.any()
    assert np.ptp(standard.middle, axis=0).min() > 50
    assert np.ptp(standard.contrast, axis=0).min() > 25
    assert standard.pattern.min() >= 4
    for look in (easy, standard):  # no colour is cut off
        largest = np.maximum(look.contrast, look.pattern[:, None])
        assert (look.middle - largest > 0).all()
        assert (look.middle + largest < 255).all()


def test_distractor_and_pattern_are_visible_in_standard():
    spec = sprites.SpriteSpec(8, 64, "standard")
    batch = scenes(spec, 16)
    video = np.asarray(draw(spec, batch)).astype(int)
    dark = (batch.look.middle - batch.look.contrast)[:, None]
    x, y = batch.distractor
    at_centre = video[np.arange(16)[:, None], np.arange(8), y, x]
    sprite_x, sprite_y = ((a - b + 32) % 64 - 32 for a, b in zip(batch.distractor, batch.sprite, strict=True))
    hidden = (np.abs(sprite_x) <= 16) & (np.abs(sprite_y) <= 16)
    assert (~hidden).sum() > 20
    assert (at_centre == dark).all(-1)[~hidden].all()
    still = video.std(1).max(-1) == 0  # background that nothing passes
    assert all(np.ptp(clip[shown][:, 0]) >= 4 for clip, shown in zip(video[:, 0], still, strict=True))
