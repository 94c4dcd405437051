"""Cost of a frozen evaluation on this machine: features extracted per second, compared with the encoder alone.

    python benchmarks/evaluate.py [--clips 512]

ViT width 192, depth 12, 3 heads; sprite clips 8×112×112; float32 unless the device is an accelerator (bfloat16).
"""

import argparse
import functools
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any, cast

import jax
import machine
import numpy as np
import table

from jepa_jax import models
from jepa_jax.cli import command_line
from jepa_jax.config import ClipConfig, Config, EncoderConfig, SourceConfig
from jepa_jax.data import EvaluationSet
from jepa_jax.evaluation import frozen_encoder
from jepa_jax.evaluation.features import extractor, feature_set
from jepa_jax.evaluation.features.cache import Cache
from jepa_jax.evaluation.features.storage import StorageDtype
from jepa_jax.models import pixels

CLIP = ClipConfig(frames=8, size=112)
CONFIG = Config(clip=CLIP, encoder=EncoderConfig(size="192x12x3"))
BATCH_SIZES = (1, 2, 4, 8, 16, 32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=512)
    parser.add_argument("--dtype", default="float32" if jax.default_backend() == "cpu" else "bfloat16")
    arguments = parser.parse_args()
    command_line.reuse_memory()
    caption = machine.describe()
    table.show(("", f"clips/s, {arguments.dtype}"), extraction(arguments.clips, arguments.dtype), caption)


def extraction(count: int, dtype: str) -> list[tuple[str, str]]:
    """Rows: clips/s of the jitted encoder alone, of one clip at a time, and of `features.extract` into files."""
    init = jax.jit(models.build_encoder(CONFIG.encoder).init)
    params = init(jax.random.key(0), np.zeros((1, *CLIP.shape), np.float32))["params"]
    clips = EvaluationSet(SourceConfig(kind="sprites", difficulty="standard", clips=count), clip=CLIP)
    video = np.concatenate([batch["video"] for batch in clips.batches(64)])[:count]

    rates = {size: bare_rate(params, video[: max(96, 2 * size)], size, dtype) for size in BATCH_SIZES}
    rows = [(f"bare jitted encoder, batches of {size}", f"{rate:.1f}") for size, rate in rates.items()]
    best = max(rates, key=lambda size: rates[size])
    alone = one_at_a_time_rate(params, video[: max(32, count // 8)])
    rows.append(("one clip at a time in float32, its features fetched (the study's way)", f"{alone:.1f}"))

    encode = extractor.of_encoder(frozen_encoder.FrozenEncoder(CONFIG, params, "random", "", 0), dtype)
    for form in ("float16", "int8"):
        extraction_rate(encode, clips, form)  # compiles
        # In turn, so that a slower moment of the machine meets both.
        pairs = [(bare_rate(params, video, best, dtype), extraction_rate(encode, clips, form)) for _ in range(3)]
        bare, whole = (statistics.median(rates) for rates in zip(*pairs, strict=True))
        ratio = f"{whole / bare:.2f} × the bare encoder in batches of {best}, measured in turn ({bare:.1f})"
        rows.append((f"extraction to {form} files, drawing the clips included", f"{whole:.1f}, {ratio}"))
    return rows


def bare_rate(params: Any, video: np.ndarray, size: int, dtype: str) -> float:
    """Clips a second through the jitted encoder, nothing done with the result; compilation not counted."""
    encode = jitted_encoder(dtype)
    jax.block_until_ready(encode(params, video[:size]))
    start = time.perf_counter()
    results = [encode(params, video[first : first + size]) for first in range(0, len(video) - size + 1, size)]
    jax.block_until_ready(results)
    return len(results) * size / (time.perf_counter() - start)


def one_at_a_time_rate(params: Any, video: np.ndarray) -> float:
    """The way of the study's code: one clip is encoded and its features are copied out before the next is begun."""
    encode = jitted_encoder("float32")
    np.asarray(encode(params, video[:1]))
    start = time.perf_counter()
    for clip in video:
        np.asarray(encode(params, clip[None]))
    return len(video) / (time.perf_counter() - start)


def extraction_rate(encode: extractor.FeatureExtractor, clips: EvaluationSet, form: StorageDtype) -> float:
    """Clips a second from drawing the clips to features on disk."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        feature_set.extract({"one": encode}, clips, ("mean", "all"), Cache(pathlib.Path(folder), form))
        return clips.rows / (time.perf_counter() - start)


@functools.cache
def jitted_encoder(dtype: str) -> Callable[[Any, np.ndarray], jax.Array]:
    encoder = models.build_encoder(CONFIG.encoder, dtype)

    def encode(params: Any, video: jax.Array) -> jax.Array:
        return cast(jax.Array, encoder.apply({"params": params}, pixels.normalise(video)))

    return jax.jit(encode)


if __name__ == "__main__":
    main()
