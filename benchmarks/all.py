"""Reruns the benchmarks and writes their tables into docs/measurements.md.

    python benchmarks/all.py [--only=step,probes] [--videos FOLDER] [--page docs/measurements.md]

Benchmarks run one after another, each in a process of its own, so nothing else should run on the machine. Standard
output of a benchmark is Markdown and replaces what is between `<!-- benchmarks/NAME.py -->` and `<!-- end -->`; the
text around these lines is kept. A benchmark that fails, or that needs something this machine lacks, keeps what the page
has and is named at the end. The exit code is 1 if one failed.
"""

import argparse
import dataclasses
import difflib
import pathlib
import subprocess
import sys
import time
from collections.abc import Sequence

HERE = pathlib.Path(__file__).parent
PAGE = HERE.parent / "docs" / "measurements.md"
END = "<!-- end -->"


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """A script in this folder.

    Attributes:
        name: of the file, without its suffix.
        minutes: about how long it takes on two cores.
        videos: whether it needs a folder of videos, its argument.
        accelerator: whether it needs an accelerator.
        flags: passed to it.
    """

    name: str
    minutes: float
    videos: bool = False
    accelerator: bool = False
    flags: tuple[str, ...] = ()


BENCHMARKS = (
    Benchmark("step", 2),
    Benchmark("objectives", 15),
    Benchmark("sprites", 1),
    Benchmark("supervised_sprites", 5),
    Benchmark("direction_leak", 1),
    Benchmark("start", 4),
    Benchmark("data", 5, videos=True),
    Benchmark("records", 3, videos=True, flags=("--rounds=6",)),
    Benchmark("evaluate", 3),
    Benchmark("api", 2),
    Benchmark("probes", 3),
    Benchmark("accelerator", 5, accelerator=True),
)


class BenchmarkError(Exception):
    """A benchmark cannot be run or its result cannot be written. The message says why."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=choose, default=BENCHMARKS, help="names, separated by commas; default: all")
    parser.add_argument("--videos", type=pathlib.Path, help="folder of videos, for data and records")
    parser.add_argument("--page", type=pathlib.Path, default=PAGE)
    flags = parser.parse_args(arguments)
    return rerun(flags.only, flags.page, flags.videos)


def choose(names: str) -> tuple[Benchmark, ...]:
    """The benchmarks with these names, separated by commas.

    Raises:
        ArgumentTypeError: a name is unknown.
    """
    known = {benchmark.name: benchmark for benchmark in BENCHMARKS}
    chosen = []
    for name in names.split(","):
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise argparse.ArgumentTypeError(f"unknown benchmark {name!r}.{hint} Known: {', '.join(known)}.")
        chosen.append(known[name])
    return tuple(chosen)


def rerun(
    benchmarks: Sequence[Benchmark], page: pathlib.Path, videos: pathlib.Path | None = None, folder: pathlib.Path = HERE
) -> int:
    """Runs benchmarks of `folder` and writes each result into the page. Returns the exit code."""
    reasons = {benchmark.name: missing(benchmark, videos) for benchmark in benchmarks}
    possible = [benchmark for benchmark in benchmarks if not reasons[benchmark.name]]
    minutes = sum(benchmark.minutes for benchmark in possible)
    print(f"{len(possible)} of {len(benchmarks)} benchmarks run, for about {minutes:.0f} min on two cores.")
    code = 0
    for number, benchmark in enumerate(possible, 1):
        title = f"{benchmark.name} ({number} of {len(possible)})"
        print(f"{title}: about {benchmark.minutes:.0f} min", flush=True)
        start = time.perf_counter()
        try:
            replaced(page.read_text(), benchmark.name, "")  # before it runs for minutes
            result = output(benchmark, videos, folder)
            page.write_text(replaced(page.read_text(), benchmark.name, result))
        except BenchmarkError as error:
            reasons[benchmark.name], code = str(error), 1
        print(f"{title}: {time.perf_counter() - start:.0f} s", flush=True)
    kept = [f"{name} is as before: {reason}" for name, reason in reasons.items() if reason]
    print("\n".join(kept or [f"All results are in {page}."]))
    return code


def missing(benchmark: Benchmark, videos: pathlib.Path | None) -> str:
    """What a benchmark needs and the machine or command line lacks, with how to provide it; empty if it can run."""
    if benchmark.videos and videos is None:
        return "it needs a folder of videos; use --videos=FOLDER."
    if benchmark.accelerator and not has_accelerator():
        return f"it needs an accelerator; use --only={benchmark.name} on a machine that has one."
    return ""


def output(benchmark: Benchmark, videos: pathlib.Path | None, folder: pathlib.Path) -> str:
    """Runs a benchmark and returns its standard output.

    Raises:
        BenchmarkError: it failed or printed no table.
    """
    arguments = [str(videos)] if benchmark.videos else []
    command = [sys.executable, str(folder / f"{benchmark.name}.py"), *arguments, *benchmark.flags]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if ended.returncode:
        raise BenchmarkError(f"it failed with exit code {ended.returncode}; its messages are above.")
    if "|---" not in ended.stdout:
        raise BenchmarkError("it printed no table.")
    return ended.stdout


def has_accelerator() -> bool:
    """Whether JAX finds one, asked in another process, so that this one uses no device."""
    program = "import jax, sys; sys.exit(jax.default_backend() == 'cpu')"
    return not subprocess.run([sys.executable, "-c", program], check=False).returncode


def replaced(page: str, name: str, text: str) -> str:
    """The page with `text` between the markers of a benchmark.

    Raises:
        BenchmarkError: the page does not have the markers, each once.
    """
    begin = f"<!-- benchmarks/{name}.py -->"
    before, *after = page.split(begin)
    if len(after) != 1 or END not in after[0] or "<!-- benchmarks/" in after[0].partition(END)[0]:
        raise BenchmarkError(f"the page must have the line {begin} once, followed by {END}.")
    return f"{before}{begin}\n\n{text.strip()}\n\n{END}{after[0].partition(END)[2]}"


if __name__ == "__main__":
    sys.exit(main())
