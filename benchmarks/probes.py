"""Cost of probes: the time of a grid of linear probes relative to one, and the memory of an attentive probe.

    python benchmarks/probes.py [--clips 512 10000] [--width 192] [--epochs 20] [--repeats 3]

Grid: 3 learning rates × 3 weight decays × 3 seeds on mean tokens, batch 256, compared with a single probe; seconds with
and without compilation. Attentive: 256 float16 tokens per clip, read from a file batch by batch; peak memory of the
whole process. Features are random, which affects neither.
"""

import argparse
import multiprocessing
import pathlib
import resource
import statistics
import sys
import tempfile
import time

import table

TOKENS = 256
CLASSES = 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--clips", type=int, nargs="+", default=[512, 10_000], help="the attentive probe uses the largest number"
    )
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    # Separate processes, so that memory and compiled programs are not shared.
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        arguments.file = str(pathlib.Path(folder) / "tokens.npy")
        for work in (measure_grid, write_tokens, measure_attentive):
            process = context.Process(target=work, args=(arguments,))
            process.start()
            process.join()
            if process.exitcode:
                sys.exit(process.exitcode)


def measure_grid(arguments: argparse.Namespace) -> None:
    import jax
    import machine
    import numpy as np

    from jepa_jax.evaluation.eval_config import ProbeConfig
    from jepa_jax.evaluation.probes import fitting

    caption, rows = machine.describe(), []
    rng = np.random.default_rng(0)
    one = ProbeConfig(epochs=arguments.epochs)
    grid = ProbeConfig(epochs=arguments.epochs, lr=(1e-2, 1e-3, 1e-4), weight_decay=(0.0, 0.01, 0.1), seeds=3)

    for clips in arguments.clips:
        features = rng.normal(size=(clips, arguments.width)).astype(np.float16)
        labels = rng.integers(CLASSES, size=clips).astype(np.int32)

        def seconds(config: ProbeConfig, features: np.ndarray, labels: np.ndarray) -> float:
            start = time.perf_counter()
            fitting.run(config, features, labels, {"test": features[:1000]}, CLASSES, jax.random.key(0))
            return time.perf_counter() - start

        times = {}
        for name, config in {"one probe": one, "grid of 27": grid}.items():
            first = seconds(config, features, labels)
            again = statistics.median(seconds(config, features, labels) for _ in range(arguments.repeats))
            times[name] = first, again
        for number, when in enumerate(("compilation included", "compiled before")):
            one_s, grid_s = (times[name][number] for name in ("one probe", "grid of 27"))
            form = f"{clips:,} clips, {arguments.epochs} epochs, {when}"
            rows.append((form, f"{one_s:.2f} s", f"{grid_s:.2f} s", f"{grid_s / one_s:.1f}"))
    table.show(("", "one linear probe", "grid of 27", "ratio"), rows, caption)


def measure_attentive(arguments: argparse.Namespace) -> None:
    import jax
    import numpy as np

    from jepa_jax.evaluation.eval_config import ProbeConfig
    from jepa_jax.evaluation.probes import fitting

    labels = np.random.default_rng(0).integers(CLASSES, size=max(arguments.clips)).astype(np.int32)
    features = np.load(arguments.file, mmap_mode="r")
    config = ProbeConfig(kind="attentive", tokens="all", batch_size=16, epochs=1)
    start = time.perf_counter()
    fitting.run(config, features, labels, {"test": features[:500]}, CLASSES, jax.random.key(0))
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    form = " × ".join(map(str, features.shape))
    titles = ("attentive probe, float16 tokens in a file", "seconds an epoch", "peak memory of the process (GiB)")
    table.show(titles, [(f"{form} ({features.nbytes / 2**30:.2f} GiB)", f"{seconds:.0f}", f"{peak:.2f}")])


def write_tokens(arguments: argparse.Namespace) -> None:
    import numpy as np

    shape = (max(arguments.clips), TOKENS, arguments.width)
    features = np.lib.format.open_memmap(arguments.file, mode="w+", dtype=np.float16, shape=shape)
    rows = np.random.default_rng(0).normal(size=(100, *shape[1:])).astype(np.float16)
    for first in range(0, shape[0], 100):
        features[first : first + 100] = rows[: shape[0] - first]


if __name__ == "__main__":
    main()
