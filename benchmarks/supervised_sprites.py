"""Accuracy on sprites of an encoder trained with labels: what an encoder of this size can learn at all.

    python benchmarks/supervised_sprites.py [--difficulty easy] [--encoder 128x4x4] [--steps 1500] [--batch 64]

The encoder of configs/quickstart.py is trained on new clips in every step, with a linear head for each label on the
mean of its tokens, and tested on clips of the test split. Compilation is not measured. Seconds are wall time; core
seconds are processor time of all threads, which other programs on the machine change less.
"""

import argparse
import sys
import time
from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import machine
import numpy as np
import optax
import table

from jepa_jax import models
from jepa_jax.config import EncoderConfig
from jepa_jax.data import sprites
from jepa_jax.models import pixels

ROWS = 10  # of the table
WEIGHT_DECAY = 0.01


class Classifier(nn.Module):
    """An encoder, and a linear head for each label on the mean of its tokens."""

    encoder: models.Encoder

    @nn.compact
    def __call__(self, video_BxFxYxXxC: jax.Array) -> dict[str, jax.Array]:
        """Returns the logits of each task."""
        z_BxE = self.encoder(pixels.normalise(video_BxFxYxXxC)).mean(axis=1)
        return {task: nn.Dense(len(names), name=task)(z_BxE) for task, names in sprites.CLASSES.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--difficulty", choices=("easy", "standard"), default="easy")
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--encoder", default="128x4x4")
    parser.add_argument("--patch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--test", type=int, default=2048, help="number of test clips")
    arguments = parser.parse_args()
    caption = machine.describe("flax", "optax")
    columns = ("steps", "clips", "seconds", "core seconds", *(f"{task} %" for task in sprites.CLASSES))
    table.show(columns, train(arguments), caption)


def train(arguments: argparse.Namespace) -> list[tuple[str, ...]]:
    """Trains an encoder; returns the times and test accuracies after each of ROWS parts of the training."""
    spec = sprites.SpriteSpec(arguments.frames, arguments.size, arguments.difficulty)
    encoder = EncoderConfig(size=arguments.encoder, patch=arguments.patch, scan=False)
    model = Classifier(models.build_encoder(encoder, "float32"))
    schedule = optax.warmup_cosine_decay_schedule(0.0, arguments.lr, arguments.steps // 20, arguments.steps)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=WEIGHT_DECAY))
    test_video, test_labels = sprites.render(spec, 0, "test", np.arange(arguments.test, dtype=np.int32))

    def logits_of(params: dict, video: jax.Array) -> dict[str, jax.Array]:
        logits = model.apply({"params": params}, video)
        assert isinstance(logits, dict)
        return logits

    @jax.jit
    def take_step(params: dict, state: optax.OptState, number: jax.Array) -> tuple[dict, optax.OptState]:
        item_B = number * arguments.batch + jnp.arange(arguments.batch)
        video, labels = sprites.render(spec, 0, "train", item_B)

        def loss_of(params: dict) -> jax.Array:
            losses = [
                optax.softmax_cross_entropy_with_integer_labels(logits, labels[task]).mean()
                for task, logits in logits_of(params, video).items()
            ]
            return jnp.stack(losses).sum()

        updates, state = optimizer.update(jax.grad(loss_of)(params), state, params)
        return cast(dict, optax.apply_updates(params, updates)), state

    @jax.jit
    def percent_correct(params: dict) -> dict[str, jax.Array]:
        logits = logits_of(params, test_video)
        return {task: 100 * (logits[task].argmax(-1) == label).mean() for task, label in test_labels.items()}

    params = model.init(jax.random.key(0), test_video[:1])["params"]
    state = optimizer.init(params)
    compiled = take_step.lower(params, state, jnp.int32(0)).compile()
    rows, seconds, core_seconds, done = [], 0.0, 0.0, 0
    for part in range(1, ROWS + 1):
        start, core_start = time.perf_counter(), time.process_time()
        while done < arguments.steps * part // ROWS:
            params, state = compiled(params, state, jnp.int32(done))
            done += 1
        jax.block_until_ready(params)
        seconds += time.perf_counter() - start
        core_seconds += time.process_time() - core_start
        correct = percent_correct(params)
        accuracies = [f"{float(correct[task]):.1f}" for task in sprites.CLASSES]
        rows.append((f"{done:,}", f"{done * arguments.batch:,}", f"{seconds:.0f}", f"{core_seconds:.0f}", *accuracies))
        print(*rows[-1], file=sys.stderr, flush=True)
    return rows


if __name__ == "__main__":
    main()
