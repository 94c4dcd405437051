"""Cases of schedules, motion-guided masks, mask statistics and evaluation clips."""

import functools
import json
import re
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jepa_jax.config import OptimConfig
from jepa_jax.data import augment, sampling
from jepa_jax.masks import block, motion_guided
from jepa_jax.models import pixels
from jepa_jax.objectives.prediction import ContextPrediction
from jepa_jax.parity.comparison import Case, Comparison, Folder
from jepa_jax.training import schedules

RATE, SCHEDULE = 1e-5, 1e-6
STATISTICS_GRID = (8, 14, 14)
STATISTIC = 0.02  # sampling error of 8,000 draws
STUDY_STEPS = 30_000


def cases(folder: Folder) -> Iterator[Case]:
    """Yields the cases of each file in the folder."""
    if folder.has("schedules.npz"):
        yield Case("schedules", functools.partial(_compare_schedules, folder))
    if folder.has("motion_guided.npz"):
        yield Case("motion_guided", functools.partial(_compare_motion, folder))
    if folder.has("eval_preprocessing.npz"):
        for name in folder.arrays("eval_preprocessing"):
            if name.startswith("clip_"):
                case = name.removeprefix("clip_")
                yield Case(f"eval_preprocessing/{case}", functools.partial(_compare_evaluation_clip, folder, case))
    if folder.has("mask_statistics.json"):
        statistics = json.loads((folder.path / "mask_statistics.json").read_text())
        for name, expected in statistics.items():
            yield Case(f"mask_statistics/{name}", functools.partial(_compare_statistics, name, expected))


def _compare_schedules(folder: Folder) -> Iterator[Comparison]:
    data = folder.arrays("schedules")
    short = OptimConfig(peak_lr=1e-3, final_lr=1e-6, warmup_steps=10, final_weight_decay=0.4)
    for name, curve, config, steps in (
        ("paper_lr_warmup300_start1e4_ref6e4_final6e4_T30000_first1000", "learning_rate", OptimConfig(), STUDY_STEPS),
        ("cosine_lr_warmup10_start1e4_ref1e3_final1e6_T100", "learning_rate", short, 100),
        ("cosine_wd_ref0p04_final0p4_T100", "weight_decay", short, 100),
    ):
        got = getattr(schedules, curve)(config, steps, jnp.arange(1, len(data[name]) + 1))
        yield Comparison(name, got, data[name], share=RATE)
    # The study's context weight keeps rising after the end of the run; ours is defined within the run.
    within = data["context_lambda_0p5_steps"] <= STUDY_STEPS
    got = ContextPrediction().weight(jnp.asarray(data["context_lambda_0p5_steps"][within]) / STUDY_STEPS)
    yield Comparison("context weight", got, data["context_lambda_0p5_values"][within], SCHEDULE)


def _compare_motion(folder: Folder) -> Iterator[Comparison]:
    data = folder.arrays("motion_guided")
    motion_BxTxHxW = motion_guided.motion_map(pixels.normalise(data["video_uint8"]), folder.grid)
    yield Comparison("motion_map", motion_BxTxHxW, data["motion_map"])
    for name in data:
        parsed = re.fullmatch(r"origin_probability/block(\d+)x(\d+)x(\d+)/strength(\d+)", name)
        if parsed:
            t, h, w, strength = map(int, parsed.groups())
            got = motion_guided.origin_probabilities(motion_BxTxHxW, (t, h, w), float(strength))
            got = got[:, :, : folder.grid[1] - h + 1, : folder.grid[2] - w + 1]
            yield Comparison(name, got.reshape(len(got), -1), data[name])


def _compare_evaluation_clip(folder: Folder, case: str) -> Iterator[Comparison]:
    data = folder.arrays("eval_preprocessing")
    count, frames, crop = map(int, re.findall(r"\d+", case))
    window = sampling.spread_window(count, frames)
    yield Comparison("indices", window, data[f"indices_{case.split('_')[0]}"], 0.0)
    clip = augment.centre_view(data["frames_uint8"][:count][window], crop, crop)
    expected_FxYxXxC = np.moveaxis(data[f"clip_{case}"], 0, -1)
    yield Comparison("clip", pixels.normalise(clip[None])[0], expected_FxYxXxC)


def _compare_statistics(name: str, expected: dict[str, Any]) -> Iterator[Comparison]:
    """Compares masks before the token budget is applied: number of visible tokens and their distribution over rows."""
    kind, blocks, scale = re.fullmatch(r"([a-z]+)_(\d+)x([\d.]+)", name).groups()  # pyright: ignore[reportOptionalMemberAccess]
    keep = 0.5 if kind == "future" else 1.0
    mask = block.BlockMask(blocks=int(blocks), spatial_scale=float(scale), temporal_keep=keep)
    plan = mask.plan(STATISTICS_GRID)

    def visible(key: jax.Array) -> jax.Array:
        block_key, _ = jax.random.split(key)
        cover = block.cover_counts(mask, STATISTICS_GRID, block_key, 8)
        return block.first_valid(mask, STATISTICS_GRID, cover) == 0

    free = jax.jit(lambda keys: jax.lax.map(visible, keys))(jax.random.split(jax.random.key(1), 1000))
    free = np.broadcast_to(np.asarray(free).reshape(8000, *free.shape[2:]), (8000, *STATISTICS_GRID))
    kept = np.arange(STATISTICS_GRID[0])[:, None, None] < STATISTICS_GRID[0] * keep
    free = free & kept
    mean = expected["context_tokens"]["mean"]
    yield Comparison("visible tokens", free.sum((1, 2, 3)).mean(), mean, np.inf, share=STATISTIC)
    yield Comparison("by row", free.mean((0, 1, 3)), expected["context_probability_by_row"], STATISTIC)
    yield Comparison("context budget", plan.context, mean, np.inf, share=STATISTIC)
    yield Comparison("target budget", plan.target, expected["target_tokens"]["mean"], np.inf, share=STATISTIC)
