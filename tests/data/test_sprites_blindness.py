"""Networks that see frames without times predict appearance, but neither motion nor order."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from jepa_jax.data import sprites

pytestmark = pytest.mark.slow

SPEC = sprites.SpriteSpec(8, 32, "easy")
BATCH = 100


class BagOfFrames(nn.Module):
    """A small convolutional network on each frame, a mean over frames, two dense layers, and one head per task.

    Strides equal kernel sizes, so convolutions are matrix products, which are fast without compiler optimisations.
    """

    @nn.compact
    def __call__(self, video_BxFxYxXxC):
        x = video_BxFxYxXxC / 64 - 2
        for kernel, channels in ((4, 48), (2, 96), (2, 128)):
            *lead, height, width, colours = x.shape
            x = x.reshape(*lead, height // kernel, kernel, width // kernel, kernel, colours)
            x = nn.relu(nn.DenseGeneral(channels, axis=(-4, -2, -1))(x))
        x = nn.relu(nn.Dense(128)(x.mean((-3, -2))))  # mean over positions, which are uniform
        x = nn.relu(nn.Dense(128)(x.mean(1)))
        return {task: nn.Dense(len(names))(x) for task, names in sprites.CLASSES.items()}


@functools.partial(jax.jit, static_argnums=(0, 1))
def pictures(split, frames, item_B):
    """Returns `frames` frames of each clip at random times, their times, and the labels."""
    scenes = jax.vmap(lambda item: sprites.scene(SPEC, 1, split, item))(item_B)
    keys = jax.vmap(lambda item: jax.random.fold_in(jax.random.key(2), item))(item_B)
    time_BxS = jax.vmap(lambda key: jax.random.permutation(key, SPEC.frames)[:frames])(keys)

    def at(values_BxFx):
        return jax.vmap(lambda values, time: values[time])(values_BxFx, time_BxS)

    sprite, distractor, event = jax.tree.map(at, (scenes.sprite, scenes.distractor, scenes.event))
    some = scenes._replace(sprite=sprite, distractor=distractor, event=event)
    return sprites.draw(SPEC, some), time_BxS, scenes.labels


def collect(split, frames, clips):
    """Returns the `pictures` of many clips as arrays."""
    parts = [pictures(split, frames, jnp.arange(first, first + 500)) for first in range(0, clips, 500)]
    return jax.tree.map(lambda *a: np.concatenate(a), *parts)


def tell_time(video_BxSxYxXxC, time_BxS):
    """Adds the time of each frame as a fourth channel."""
    colour = np.broadcast_to((time_BxS * 32)[..., None, None, None], (*video_BxSxYxXxC.shape[:-1], 1))
    return np.concatenate([video_BxSxYxXxC, colour.astype(np.uint8)], -1)


def right_answers(train, test, epochs):
    """Trains a network and returns the number of correctly classified test clips by task."""
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


def chance_is_inside(right, clips, task):
    interval = stats.binomtest(right, clips).proportion_ci(0.99)
    return interval.low <= 1 / len(sprites.CLASSES[task]) <= interval.high


def test_network_predicts_only_appearance_from_single_frames():
    (train, _, labels), (test, _, test_labels) = collect("train", 1, 20_000), collect("test", 1, 5_000)
    right = right_answers((train, labels), (test, test_labels), epochs=5)
    assert chance_is_inside(right["motion"], 5_000, "motion"), right
    assert chance_is_inside(right["order"], 5_000, "order"), right
    assert right["appearance"] > 0.3 * 5_000, right


def test_network_predicts_order_only_from_frames_with_times():
    (train, time, labels), (test, test_time, test_labels) = collect("train", 8, 4_000), collect("test", 8, 2_000)
    bag = right_answers((train, labels), (test, test_labels), epochs=6)
    assert chance_is_inside(bag["order"], 2_000, "order"), bag
    timed = right_answers((tell_time(train, time), labels), (tell_time(test, test_time), test_labels), epochs=6)
    assert timed["order"] > 0.5 * 2_000, timed
