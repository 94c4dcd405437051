"""What networks learn from frames without their times: of motion and order nothing, and of what is there, much."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
import pytest
from scipy import stats

from jepa_jax.data import sprites

pytestmark = pytest.mark.slow

SPEC = sprites.SpriteSpec(8, 32, "easy")
TRAIN, TEST = 20_000, 5_000
BATCH = 100


class BagOfFrames(nn.Module):
    """A small convolutional network on each frame, its output averaged over frames, two layers; one head a task."""

    @nn.compact
    def __call__(self, video_BxFxYxXxC):
        x = video_BxFxYxXxC / 64 - 2
        for channels in (16, 32, 64):
            x = nn.gelu(nn.Conv(channels, (3, 3), strides=2, padding="CIRCULAR")(x))
        x = nn.gelu(nn.Dense(128)(x.mean((-3, -2))))  # every place alike: positions are uniform
        x = nn.gelu(nn.Dense(128)(x.mean(1)))
        return {task: nn.Dense(len(names))(x) for task, names in sprites.CLASSES.items()}


def see(split, item, times_BxS=None, tell_time=False):
    """Frames of these clips, all or those at `times`, and the labels; the time as a fourth colour if told."""
    video, labels = sprites.render(SPEC, 1, split, item)
    video = video.astype(jnp.float32)
    if tell_time:
        time = jnp.broadcast_to(jnp.linspace(0, 255, SPEC.frames)[:, None, None, None], (*video.shape[:-1], 1))
        video = jnp.concatenate([video, time], -1)
    return (video if times_BxS is None else video[jnp.arange(len(item))[:, None], times_BxS]), labels


def accuracies(epochs, frames=None, tell_time=False):
    """Share of the test clips a trained network is right on, by task; `frames`: it sees so many, at random times."""
    model, optimizer = BagOfFrames(), optax.adamw(optax.cosine_decay_schedule(2e-3, epochs * TRAIN // BATCH))

    def clips(key, split, item):
        times = None if frames is None else jax.random.randint(key, (len(item), frames), 0, SPEC.frames)
        return see(split, item, times, tell_time)

    @jax.jit
    def train(key):
        def step(carry, batch):
            params, state = carry
            index, item = batch
            # The times of an item's frames are the same in every epoch: these are TRAIN pictures, not more.
            video, labels = clips(jax.random.fold_in(key, index), "train", item)

            def loss_of(params):
                logits = model.apply({"params": params}, video)
                losses = [optax.softmax_cross_entropy_with_integer_labels(logits[t], labels[t]).mean() for t in logits]
                return sum(losses)

            updates, state = optimizer.update(jax.grad(loss_of)(params), state, params)
            return (optax.apply_updates(params, updates), state), None

        start = model.init(key, clips(key, "train", jnp.arange(1))[0])["params"]
        number = jnp.arange(TRAIN // BATCH)
        items = jnp.arange(TRAIN, dtype=jnp.int32).reshape(-1, BATCH)

        def epoch(carry, key):
            order = jax.random.permutation(key, len(number))
            return jax.lax.scan(step, carry, (number[order], items[order]))

        return jax.lax.scan(epoch, (start, optimizer.init(start)), jax.random.split(key, epochs))[0][0]

    @jax.jit
    def right(params, key, item):
        video, labels = clips(key, "test", item)
        logits = model.apply({"params": params}, video)
        return {task: (logits[task].argmax(-1) == labels[task]).sum() for task in logits}

    params = train(jax.random.key(0))
    parts = [
        right(params, jax.random.key(1 + part), jnp.arange(start, start + 500, dtype=jnp.int32))
        for part, start in enumerate(range(0, TEST, 500))
    ]
    return {task: int(sum(part[task] for part in parts)) for task in sprites.CLASSES}


def chance_is_inside(right, task):
    interval = stats.binomtest(right, TEST).proportion_ci(0.99)
    return interval.low <= 1 / len(sprites.CLASSES[task]) <= interval.high


def test_single_frames_tell_a_network_appearance_and_neither_motion_nor_order():
    right = accuracies(epochs=8, frames=1)
    assert chance_is_inside(right["motion"], "motion"), right
    assert chance_is_inside(right["order"], "order"), right
    assert right["appearance"] > 0.4 * TEST, right


def test_a_bag_of_frames_tells_a_network_nothing_about_order_and_frames_with_their_times_do():
    bag = accuracies(epochs=2)
    assert chance_is_inside(bag["order"], "order"), bag
    timed = accuracies(epochs=2, tell_time=True)
    assert timed["order"] > 0.5 * TEST, timed
