"""What networks learn from frames without their times: of motion and order nothing, and of what is there, much."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
import pytest
from scipy import stats

from jepa_jax.data import sprites

pytestmark = pytest.mark.slow

SPEC = sprites.SpriteSpec(8, 32, "easy")
TEST = 5_000
BATCH = 100


class BagOfFrames(nn.Module):
    """A small convolutional network on each frame, its output averaged over frames, two layers; one head a task."""

    @nn.compact
    def __call__(self, video_BxFxYxXxC):
        x = video_BxFxYxXxC / 64 - 2
        for channels in (16, 32, 64):
            x = nn.relu(nn.Conv(channels, (4, 4), strides=4 if channels == 16 else 2, padding="CIRCULAR")(x))
        x = nn.relu(nn.Dense(128)(x.mean((-3, -2))))  # every place alike: positions are uniform
        x = nn.relu(nn.Dense(128)(x.mean(1)))
        return {task: nn.Dense(len(names))(x) for task, names in sprites.CLASSES.items()}


@functools.partial(jax.jit, static_argnums=(0, 1))
def pictures(split, frames, item_B):
    """Of each clip so many frames at random times, and the labels."""
    scenes = jax.vmap(lambda item: sprites.scene(SPEC, 1, split, item))(item_B)
    keys = jax.vmap(lambda item: jax.random.fold_in(jax.random.key(2), item))(item_B)
    time_BxS = jax.vmap(lambda key: jax.random.permutation(key, SPEC.frames)[:frames])(keys)

    def at(values_BxFx):
        return jax.vmap(lambda values, time: values[time])(values_BxFx, time_BxS)

    sprite, distractor, events = jax.tree.map(at, (scenes.sprite, scenes.distractor, scenes.events))
    some = scenes._replace(sprite=sprite, distractor=distractor, events=events)
    return sprites.draw(SPEC, some), time_BxS, scenes.labels


def collect(split, frames, clips, tell_time):
    """`pictures` of all clips as arrays; the time as a fourth colour if told."""
    parts = [pictures(split, frames, jnp.arange(first, first + 500)) for first in range(0, clips, 500)]
    video, time, labels = jax.tree.map(lambda *a: np.concatenate(a), *parts)
    if tell_time:
        colour = np.broadcast_to((time * 32)[..., None, None, None], (*video.shape[:-1], 1)).astype(np.uint8)
        video = np.concatenate([video, colour], -1)
    return video, labels


def right_answers(train, test, epochs):
    """On how many of the test clips a network is right that was trained on the others, by task."""
    (video, labels), (test_video, test_labels) = train, test
    steps = epochs * len(video) // BATCH
    model, optimizer = BagOfFrames(), optax.adam(optax.cosine_decay_schedule(2e-3, steps))

    @jax.jit
    def step(params, state, video, labels):
        def loss_of(params):
            logits = model.apply({"params": params}, video)
            return sum(
                optax.softmax_cross_entropy_with_integer_labels(logits[task], labels[task]).mean() for task in logits
            )

        updates, state = optimizer.update(jax.grad(loss_of)(params), state, params)
        return optax.apply_updates(params, updates), state

    @jax.jit
    def right(params, video, labels):
        logits = model.apply({"params": params}, video)
        return {task: (logits[task].argmax(-1) == labels[task]).sum() for task in logits}

    params = model.init(jax.random.key(0), video[:1])["params"]
    state = optimizer.init(params)
    random = np.random.default_rng(0)
    for _ in range(epochs):
        for rows in random.permutation(len(video)).reshape(-1, BATCH):
            params, state = step(params, state, video[rows], {task: a[rows] for task, a in labels.items()})
    parts = [
        right(params, test_video[rows], {task: a[rows] for task, a in test_labels.items()})
        for rows in np.arange(len(test_video)).reshape(-1, 500)
    ]
    return {task: int(sum(part[task] for part in parts)) for task in labels}


def chance_is_inside(right, task):
    interval = stats.binomtest(right, TEST).proportion_ci(0.99)
    return interval.low <= 1 / len(sprites.CLASSES[task]) <= interval.high


def test_single_frames_tell_a_network_appearance_and_neither_motion_nor_order():
    train, test = (collect(split, 1, clips, False) for split, clips in (("train", 20_000), ("test", TEST)))
    right = right_answers(train, test, epochs=5)
    assert chance_is_inside(right["motion"], "motion"), right
    assert chance_is_inside(right["order"], "order"), right
    assert right["appearance"] > 0.4 * TEST, right


def test_a_bag_of_frames_tells_a_network_nothing_about_order_and_frames_with_their_times_do():
    def right(tell_time):
        train, test = (collect(split, 8, clips, tell_time) for split, clips in (("train", 6_000), ("test", TEST)))
        return right_answers(train, test, epochs=3)

    bag, timed = right(False), right(True)
    assert chance_is_inside(bag["order"], "order"), bag
    assert timed["order"] > 0.5 * TEST, timed
