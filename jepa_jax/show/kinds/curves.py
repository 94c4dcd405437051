"""Loss, rank, learning rate, speed and probes of one or several runs: curves.png."""

import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jepa_jax.files import jsonl
from jepa_jax.pictures import film
from jepa_jax.settings import ConfigError
from jepa_jax.show import plots
from jepa_jax.show.request import Request

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANELS = {  # metric → title and unit
    "loss": ("loss", "loss"),
    "rank/target": ("effective rank of the target's features", "dimensions"),
    "learning_rate": ("learning rate", "learning rate"),
    "clips_per_second": ("speed", "clips / s"),
}
TRAINED = "trained"
WIDTH, HEIGHT = 420, 250  # pixels of a panel


@dataclasses.dataclass(frozen=True)
class Run:
    """The records of a run, ascending by step.

    Attributes:
        metrics: lines of metrics.jsonl.
        probes: lines of evaluation.jsonl; empty if the run was not watched.
    """

    metrics: Sequence[Mapping[str, Any]]
    probes: Sequence[Mapping[str, Any]] = ()


def draw(request: Request) -> Sequence[pathlib.Path]:
    """Writes curves.png.

    Raises:
        ConfigError: no runs, a folder without metrics, or matplotlib is not installed.
    """
    folders = request.paths or ((request.checkpoint,) if request.checkpoint else ())
    if not folders:
        raise ConfigError("curves needs runs: name their folders, as in `curves runs/a runs/b`.")
    with plots.style():
        runs = {name: read(pathlib.Path(folder)) for name, folder in zip(names(folders), folders, strict=True)}
        file = request.out / "curves.png"
        film.write_png(file, plots.pixels(figure(runs)))
    return [file]


def names(folders: Sequence[str]) -> list[str]:
    """Returns the folders without what all of them begin with."""
    absolute = [os.path.abspath(folder) for folder in folders]
    if len(set(absolute)) < len(absolute):
        raise ConfigError(f"a run is named twice: {', '.join(folders)}.")
    common = os.path.commonpath([os.path.dirname(folder) for folder in absolute])
    return [os.path.relpath(folder, common) for folder in absolute]


def read(folder: pathlib.Path) -> Run:
    """Reads the records of a run.

    Raises:
        ConfigError: the folder has no metrics.
    """
    file = folder / "metrics.jsonl"
    if not file.is_file():
        raise ConfigError(f"{folder} has no metrics.jsonl; name the --workdir of a training run.")
    metrics = _lines(file)
    if not metrics:
        raise ConfigError(f"{file} is empty: the run has not reached step config.log.every yet.")
    probes = folder / "evaluation.jsonl"
    by_step = {line["checkpoint"]["step"]: line for line in _lines(probes)} if probes.is_file() else {}
    return Run(metrics, [by_step[step] for step in sorted(by_step)])


def _lines(file: pathlib.Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in jsonl.whole_lines(file)]
    except ValueError as error:
        raise ConfigError(f"{file} has a line that is not JSON: {error}.") from error


def figure(runs: Mapping[str, Run]) -> "Figure":
    """Returns a panel for each metric that a run has, a line for each run; call it inside of `plots.style`."""
    panels = list(_panels(runs))
    rows = math.ceil(len(panels) / 2)
    drawn = plots.figure(2 * WIDTH, rows * HEIGHT + 20 * len(runs))
    axes = drawn.subplots(rows, 2, squeeze=False).ravel()
    for (title, unit, lines, chance), one in zip(panels, axes, strict=False):
        for number, (name, points) in enumerate(lines.items()):
            if points:
                marker = "o" if len(points) < 20 else ""
                one.plot(
                    *zip(*points, strict=True), label=name, marker=marker, markersize=3, **plots.line_style(number)
                )
        if chance is not None:
            one.axhline(chance, color=plots.GREY, linewidth=1)
            one.annotate("chance", (1, chance), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=8)
        one.set_title(title, loc="left")
        one.set_xlabel("step")
        one.set_ylabel(unit)
    for one in axes[len(panels) :]:
        one.set_visible(False)
    handles, labels = axes[0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside lower left")
    return drawn


Points = dict[str, list[tuple[int, float]]]


def _panels(runs: Mapping[str, Run]) -> Iterator[tuple[str, str, Points, float | None]]:
    """Yields title, unit, the points of each run and the level of chance, if there is one."""
    for metric, (title, unit) in PANELS.items():
        lines = {
            name: [(line["step"], line[metric]) for line in run.metrics if line.get(metric) is not None]
            for name, run in runs.items()
        }
        if any(lines.values()):
            yield title, unit, lines, None
    probed = [
        (row["task"], row["probe"], row["chance"])
        for run in runs.values()
        for record in run.probes
        for row in record["results"]
    ]
    for task, probe, chance in dict.fromkeys(probed):
        lines = {name: list(_accuracies(run, task, probe)) for name, run in runs.items()}
        yield f"{task}, {probe} probe", "accuracy, %", lines, 100 * chance


def _accuracies(run: Run, task: str, probe: str) -> Iterator[tuple[int, float]]:
    for record in run.probes:
        for row in record["results"]:
            if (row["task"], row["probe"], row["features"]) == (task, probe, TRAINED):
                yield record["checkpoint"]["step"], 100 * row["accuracy"]
