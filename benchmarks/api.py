"""Clips per second of `encoder(clips)` in Python, compared with the extraction job.

    python benchmarks/api.py [--clips 64] [--rounds 3]

ViT width 192, depth 12, 3 heads; clips of 8×112×112; float32 unless the device is an accelerator (bfloat16). Frames are
arrays of sprite clips; files are videos of them (MPEG-4, 128×128). The extraction job writes float16 features of all
tokens; from files it decodes with two worker processes, as by default.
"""

import argparse
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence

import av
import jax
import machine
import numpy as np
import table
from absl import flags

import jepa_jax
from jepa_jax import models
from jepa_jax.cli import command_line
from jepa_jax.config import ClipConfig, Config, EncoderConfig, SourceConfig
from jepa_jax.data import EvaluationSet
from jepa_jax.evaluation import frozen_encoder
from jepa_jax.evaluation.features import extractor, feature_set
from jepa_jax.evaluation.features.cache import Cache

CLIP = ClipConfig(frames=8, size=112)
WORKERS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    flags.FLAGS.mark_as_parsed()  # grain's
    command_line.reuse_memory()
    caption = machine.describe()
    with tempfile.TemporaryDirectory() as folder:
        rows = compare(arguments.clips, arguments.rounds, pathlib.Path(folder))
    table.show(("", "encoder(clips), clips/s", "extraction job, clips/s", "ratio"), rows, caption)


def compare(count: int, rounds: int, folder: pathlib.Path) -> list[tuple[str, str, str, str]]:
    dtype = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    config = Config(clip=CLIP, encoder=EncoderConfig(size="192x12x3"), dtype=dtype)
    init = jax.jit(models.build_encoder(config.encoder).init)
    params = init(jax.random.key(0), np.zeros((1, *CLIP.shape), np.float32))["params"]
    encoder = jepa_jax.VideoEncoder(params=params, settings=config.encoder, clip=CLIP, dtype=dtype)
    job = extractor.of_encoder(frozen_encoder.FrozenEncoder(config, params, "random", "", 0), dtype)

    drawn = SourceConfig(kind="sprites", difficulty="standard", clips=count)
    rendered = EvaluationSet(drawn, clip=CLIP, keep_bytes=2**31)
    frames = np.concatenate([batch["video"] for batch in rendered.batches(64)])[:count].astype(np.uint8)
    list(rendered.batches(extractor.Device().batch_size(0, count, job.tokens(rendered.clip_shape))))  # kept from now on
    paths = write_videos(folder / "videos", count)
    source = SourceConfig(path=str(folder / "videos"))
    files = EvaluationSet(source, clip=CLIP, name="files", setting="--videos", labelled=False)
    rows = []
    for name, clips, found, workers in (("frames", list(frames), rendered, 0), ("video files", paths, files, WORKERS)):
        pairs = []
        for number in range(-1, rounds):  # in turn, so that a slower moment of the machine meets both
            pair = (
                count / seconds(lambda clips=clips: encoder(clips)),
                count / seconds(lambda found=found, workers=workers: extract(job, found, workers)),
            )
            if number >= 0:  # the first round compiles
                pairs.append(pair)
        api, extraction = (statistics.median(rates) for rates in zip(*pairs, strict=True))
        ratio = statistics.median(one / other for one, other in pairs)
        rows.append((f"{count} clips, {name}", f"{api:.1f}", f"{extraction:.1f}", f"{ratio:.2f}"))
    return rows


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def extract(encode: extractor.FeatureExtractor, clips: EvaluationSet, workers: int) -> None:
    """Extracts features of all tokens into files, from clips that are in memory or decoded."""
    with tempfile.TemporaryDirectory() as folder:
        feature_set.extract({"one": encode}, clips, ("all",), Cache(pathlib.Path(folder)), workers=workers)


def write_videos(folder: pathlib.Path, count: int) -> Sequence[str]:
    """Writes one MPEG-4 file of 32 frames for each clip and returns their paths."""
    folder.mkdir()
    clip = ClipConfig(frames=32, size=128)
    sprites = EvaluationSet(SourceConfig(kind="sprites", difficulty="standard", clips=count), clip=clip)
    paths = []
    for batch in sprites.batches(16):
        for video, valid in zip(batch["video"].astype(np.uint8), batch["valid"], strict=True):
            if valid:
                paths.append(str(folder / f"{len(paths):04}.mp4"))
                with av.open(paths[-1], "w") as container:
                    stream = container.add_stream("mpeg4", rate=25)
                    stream.width, stream.height, stream.pix_fmt = 128, 128, "yuv420p"
                    for frame in video:
                        container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
                    container.mux(stream.encode(None))
    return paths


if __name__ == "__main__":
    main()
