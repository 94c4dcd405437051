"""Speed of the input pipeline: raw files, prepared records, and the overhead of the pipeline around the decoder.

    python benchmarks/data.py [FOLDER] [--seconds 5] [--flat 10000]

FOLDER contains videos, ideally of several formats (avi, webm, mp4), at any depth; without it, sprites are encoded as
test videos. Clips are 16 frames of 224×224, with random crop and flip. Rates per core are of one process with one
thread, pinned to one core if the system supports it. --flat N reads N small batches to check that memory is constant.
"""

import argparse
import collections
import contextlib
import functools
import io
import itertools
import multiprocessing
import os
import pathlib
import pickle
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import av
import cv2
import jax
import machine
import numpy as np
import one_core
import preparing
import simplejpeg
import table
from absl import flags

from jepa_jax import config, data
from jepa_jax.data import augment, faults, sampling, sources, sprites
from jepa_jax.data.decode import display
from jepa_jax.data.decode import videos as decode
from jepa_jax.data.preparation import frames as preparation_frames
from jepa_jax.data.workers import timing

FRAMES, SIZE, BATCH = 16, 224, 32
ENCODED = {"avi": ("mpeg4", 320, 240), "webm": ("libvpx-vp9", 426, 240), "mp4": ("libx264", 480, 360)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=pathlib.Path)
    parser.add_argument("--seconds", type=float, default=5.0, help="duration of each measurement")
    parser.add_argument("--flat", type=int, default=0, help="number of batches of the memory test")
    arguments = parser.parse_args()
    flags.FLAGS.mark_as_parsed()  # grain reads absl's flags
    with tempfile.TemporaryDirectory() as folder:
        temporary = pathlib.Path(folder)
        raw = arguments.folder or encode_sprites(temporary / "sprites")
        prepared = temporary / "prepared"
        print(one_core.run(machine.describe_core, "av", "jax", "grain"))
        preparing.prepare(raw, prepared)
        alone = per_core(raw, prepared, arguments.seconds)
        record_formats(raw, arguments.seconds)
        pipeline(prepared, alone, arguments.seconds)
        start(raw, temporary)
        if arguments.flat:
            flat(prepared, arguments.flat)


def encode_sprites(folder: pathlib.Path, clips: int = 8, length: int = 64) -> pathlib.Path:
    """Writes videos of moving sprites on static noise, in three formats."""
    folder.mkdir(parents=True)
    spec = sprites.SpriteSpec(length, 256, "standard")
    videos = np.asarray(sprites.render(spec, 0, "train", np.arange(clips, dtype=np.int32))[0])
    noise = np.random.default_rng(0).normal(0, 12, (256, 256, 3))
    for (suffix, (codec, width, height)), k in itertools.product(ENCODED.items(), range(clips)):
        with av.open(str(folder / f"{k}.{suffix}"), "w") as container:
            stream: Any = container.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt, stream.bit_rate = width, height, "yuv420p", 800_000
            for frame in videos[k]:
                noisy = cv2.resize(np.clip(frame + noise, 0, 255).astype(np.uint8), (width, height))
                container.mux(stream.encode(av.VideoFrame.from_ndarray(noisy, format="rgb24")))
            container.mux(stream.encode(None))
    return folder


# --- one process, one thread


def rate(make: Callable[[int], Any], seconds: float) -> float:
    """Calls per second, after a few warm-up calls."""
    for number in range(8):
        make(number)
    start, made = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        make(made)
        made += 1
    return made / (time.perf_counter() - start)


def per_core(raw: pathlib.Path, prepared: pathlib.Path, seconds: float) -> float:
    """Prints clips/s per core for every file format and for the prepared set; returns that of the prepared set."""
    kinds = collections.defaultdict(list)
    paths = sources.open_source(config.SourceConfig(path=str(raw)), "raw").paths
    for source_file in paths:
        with contextlib.suppress(faults.DecodeError), decode.open_video(source_file) as (_, stream):
            lines = next((lines for lines in (240, 256, 360, 480) if min(stream.height, stream.width) <= lines), 1080)
            kinds[f"{pathlib.Path(source_file).suffix} {stream.codec_context.name} ≤ {lines}p"].append(source_file)
    rows = []
    for kind, files in sorted(kinds.items()):
        speed, spent = one_core.run(_clips, files, None, seconds)
        rows.append((kind, len(files), f"{speed:.0f}", spent, f"{_megabytes(map(pathlib.Path, files)):.1f}"))
    speed, spent = one_core.run(_clips, None, str(prepared), seconds)
    size = _megabytes(path for path in prepared.rglob("*") if path.is_file())
    total = _megabytes(map(pathlib.Path, paths))
    rows.append(("prepared, all", len(paths), f"{speed:.0f}", spent, f"{size:.1f} prepared, {total:.1f} raw"))
    table.show(("a core", "files", "clips/s", "read, decode, crop and resize (ms)", "MB raw"), rows)
    return speed


def _megabytes(files: Any) -> float:
    return sum(file.stat().st_size for file in files) / 1e6


def _clips(files: Sequence[str] | None, prepared: str | None, seconds: float) -> tuple[float, str]:
    settings = config.SourceConfig(path=prepared or "files")
    if prepared:
        source = sources.open_source(settings, "prepared")
    else:
        source = sources.CLASSES["videos"]("files", settings, len(files or ()), tuple(files or ()))
    spent: collections.Counter[str] = collections.Counter()

    def make(number: int) -> None:
        watch = timing.Stopwatch(timing.READ)
        view = augment.RandomView(SIZE, SIZE, config.AugmentConfig(), np.random.default_rng((number, 1)))

        def transform(frame: np.ndarray) -> np.ndarray:
            watch.switch(timing.AUGMENT)
            seen = view(frame)
            watch.switch(timing.DECODE)
            return seen

        choose = functools.partial(_window, np.random.default_rng(number))
        source.read_clip(number % source.size, choose, transform, watch.switch)
        spent.update({stage: round(1e6 * part) for stage, part in watch.stop().items()} | {"clips": 1})

    speed = rate(make, seconds)
    parts = [f"{spent[stage] / spent['clips'] / 1e3:.1f}" for stage in (timing.READ, timing.DECODE, timing.AUGMENT)]
    return speed, ", ".join(parts)


def _window(rng: np.random.Generator, count: int, fps: float) -> np.ndarray:
    return sampling.random_window(count, FRAMES, 1, rng)


def record_formats(raw: pathlib.Path, seconds: float) -> None:
    """Prints speed, size and PSNR of segments of 32 frames, short side 256, in several formats."""
    stretches = []
    for path in sources.open_source(config.SourceConfig(path=str(raw)), "raw").paths[:12]:
        with contextlib.suppress(faults.DecodeError):
            shrink = functools.partial(preparation_frames.shrink, short_side=256)
            stretch = decode.read_clip(path, lambda count, _: np.minimum(np.arange(32), count - 1), shrink)
            _, height, width, _ = stretch.shape
            stretches.append(stretch[:, : height // 2 * 2, : width // 2 * 2])  # H.264 needs even sides
    rows = []
    for name in FORMATS:
        speed, size, psnr = one_core.run(_format, name, stretches, seconds)
        rows.append((name, f"{speed:.0f}", f"{size:,.0f}", f"{psnr:.1f}"))
    table.show(("record of 32 frames, short side 256", "clips/s a core", "bytes a frame", "PSNR (dB)"), rows)


def _format(name: str, stretches: list[np.ndarray], seconds: float) -> tuple[float, float, float]:
    encode, read = FORMATS[name]
    encoded = [encode(stretch) for stretch in stretches]
    size = np.mean([len(pickle.dumps(record)) / 32 for record in encoded])
    error = [
        np.square(read(record, range(32), decode.unchanged).astype(float) - s).mean()
        for record, s in zip(encoded, stretches, strict=True)
    ]

    def make(number: int) -> None:
        rng = np.random.default_rng(number)
        first = int(rng.integers(17))
        view = augment.RandomView(SIZE, SIZE, config.AugmentConfig(), rng)
        read(encoded[number % len(encoded)], range(first, first + FRAMES), view)

    return rate(make, seconds), float(size), float(10 * np.log10(255**2 / np.mean(error)))


def _stills(encode: Callable[[np.ndarray], bytes], read: Callable[[bytes], np.ndarray]) -> tuple[Any, Any]:
    return lambda frames: [encode(frame) for frame in frames], lambda record, wanted, view: np.stack(
        [view(read(record[i])) for i in wanted]
    )


def _encode_video(stretch: np.ndarray, gop: int) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream: Any = container.add_stream("libx264", rate=25, options={"crf": "18", "preset": "medium", "bf": "0"})
        stream.height, stream.width = stretch.shape[1:3]
        stream.pix_fmt, stream.gop_size = "yuv420p", gop
        for frame in stretch:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode(None))
    return file.getvalue()


def _read_video(record: bytes, wanted: Sequence[int], view: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    with av.open(io.BytesIO(record), "r") as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        times = sorted(packet.pts for packet in container.demux(stream) if packet.pts is not None)
        container.seek(times[wanted[0]], stream=stream)
        to_rgb = display.Screen(stream, lambda: (stream.width, stream.height))
        later = (f for f in container.decode(stream) if f.pts is not None and f.pts >= times[wanted[0]])
        return np.stack([view(to_rgb(frame)) for frame in itertools.islice(later, len(wanted))])


def _webp(quality: int) -> tuple[Any, Any]:
    return _stills(
        lambda frame: cv2.imencode(".webp", frame[..., ::-1], [cv2.IMWRITE_WEBP_QUALITY, quality])[1].tobytes(),
        lambda content: np.asarray(cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB)),
    )


FORMATS = {
    "JPEG, quality 90": _stills(
        lambda frame: preparation_frames.encode(frame, 90), lambda content: simplejpeg.decode_jpeg(content, "RGB")
    ),
    "JPEG, quality 80": _stills(
        lambda frame: preparation_frames.encode(frame, 80), lambda content: simplejpeg.decode_jpeg(content, "RGB")
    ),
    "WebP, quality 80": _webp(80),
    "H.264, key frame every 8": (functools.partial(_encode_video, gop=8), _read_video),
    "H.264, key frame every 32": (functools.partial(_encode_video, gop=32), _read_video),
}

# --- the pipeline


def batches_of(source: config.SourceConfig, workers: int, **changes: Any) -> config.Config:
    clip = {"frames": FRAMES, "size": SIZE} | changes.pop("clip", {})
    return config.Config(
        steps=10**6,
        batch_size=changes.pop("batch_size", BATCH),
        clip=config.ClipConfig(**clip),
        data=config.DataConfig(sources={"videos": source}, workers=workers, max_skip_fraction=0.5),
    )


@contextlib.contextmanager
def running(settings: config.Config) -> Iterator[tuple[data.DevicePrefetch[Any], data.Throughput]]:
    """The input pipeline as in training, including the transfer to the device."""
    throughput = data.Throughput(settings.data.workers, os.cpu_count() or 1)
    batches = data.device_prefetch(
        data.TrainBatches(settings, throughput=throughput),
        lambda batch: jax.block_until_ready(jax.device_put(batch)),
        settings.data.prefetch,
        throughput,
    )
    try:
        yield batches, throughput
    finally:
        batches.close()


def pipeline(prepared: pathlib.Path, alone: float, seconds: float) -> None:
    rows = [("decoding alone, one core", f"{alone:.0f}", "", "")]
    first = None
    for workers in (1, 2):
        with running(batches_of(config.SourceConfig(path=str(prepared)), workers)) as (batches, throughput):
            for _ in range(3 + workers * 3):
                next(batches)
            throughput.metrics()
            start, taken = time.perf_counter(), 0
            while time.perf_counter() - start < 2 * seconds:
                next(batches)
                taken += 1
            speed = taken * BATCH / (time.perf_counter() - start)
            spent = throughput.metrics()
        first = first or speed
        shown = ", ".join(f"{key[5:-3]} {value:.2f}" for key, value in spent.items() if key.endswith("_ms"))
        below = f", {1 - speed / alone:.0%} below decoding alone" if workers == 1 else ""
        rows.append((f"{workers} worker{'s' * (workers > 1)}", f"{speed:.0f}{below}", f"{speed / first:.2f} ×", shown))
    titles = ("pipeline: grain, batches of 32, to the device", "clips/s", "of one worker", "ms a clip in each stage")
    table.show(titles, rows)


def start(raw: pathlib.Path, temporary: pathlib.Path, items: int = 170_000) -> None:
    """Prints the time to the first batch of a large set, listed and prepared, and the memory per item."""
    files = sources.open_source(config.SourceConfig(path=str(raw)), "raw").paths
    lines = (
        f"{pathlib.Path(path).resolve()} {number % 174}" for number, path in zip(range(items), itertools.cycle(files))
    )
    (temporary / "list.csv").write_text("\n".join(lines))
    listed = config.SourceConfig(path=str(temporary / "list.csv"))
    stills = config.SourceConfig(kind="images", path=str(prepare_stills(temporary, items)))
    rows = []
    for name, source in {"listed clips": listed, "prepared stills": stills}.items():
        began = time.perf_counter()
        with running(batches_of(source, 2)) as (batches, _):
            next(batches)
            waited = time.perf_counter() - began
        size = len(pickle.dumps(sources.open_source(source, "many")))
        rows.append((f"{items:,} {name}", f"{waited:.1f}", f"{size / items:.0f}"))
    table.show(("first batch, two workers", "seconds", "bytes an item in each process"), rows)


def prepare_stills(temporary: pathlib.Path, items: int) -> pathlib.Path:
    """Prepares a set of `items` small images, to measure how long its index and records take to open."""
    content = preparation_frames.encode(np.zeros((32, 32, 3), np.uint8), 90)
    for number in range(items):
        file = temporary / "stills" / str(number % 174) / f"{number}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    preparing.prepare(temporary / "stills", temporary / "many", processes=2)
    return temporary / "many"


def flat(prepared: pathlib.Path, count: int) -> None:
    """Prints the memory of this process and its two workers after some of `count` small batches."""
    settings = batches_of(config.SourceConfig(path=str(prepared)), 2, batch_size=4, clip={"frames": 2, "size": 64})
    rows = []
    with running(settings) as (batches, _):
        for number in range(1, count + 1):
            next(batches)
            if number in (count // 10, count // 2, count):
                workers = sorted(child.pid for child in multiprocessing.active_children() if child.pid)
                of_workers = ", ".join(f"{_resident(worker):.0f}" for worker in workers)
                rows.append((f"{number:,}", f"{_resident(os.getpid()):.0f}", of_workers))
    table.show(("after batches", "training process (MB)", "workers (MB)"), rows)


def _resident(process: int) -> float:
    for line in pathlib.Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1e3
    return float("nan")


if __name__ == "__main__":
    main()
