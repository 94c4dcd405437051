"""results.json as one HTML page: accuracies with intervals, confusions, classes, and the most confident mistakes."""

import csv
import io
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from jepa_jax.config import ClipConfig
from jepa_jax.data.listing import names
from jepa_jax.evaluation.eval_config import EvalConfig
from jepa_jax.evaluation.results import clip_predictions, results_file, table
from jepa_jax.evaluation.results.probe_result import ProbeResult
from jepa_jax.pages import html_page
from jepa_jax.pages.document import (
    Block,
    Cell,
    Code,
    Details,
    Figure,
    Figures,
    Heading,
    Paragraph,
    Photo,
    Table,
    cell,
    text,
)
from jepa_jax.pictures import film
from jepa_jax.settings import ConfigError, parse
from jepa_jax.show import clips, confusion, plots
from jepa_jax.show.kinds import neighbours
from jepa_jax.show.request import Request

MISTAKES = 8  # of each probe


def draw(request: Request) -> Sequence[pathlib.Path]:
    """Writes results.html.

    Raises:
        ConfigError: no file is named, or matplotlib is not installed.
        ResultsError: the file cannot be read.
    """
    if len(request.paths) != 1:
        raise ConfigError("results needs one file: `results runs/mine/results.json`.")
    (path,) = request.paths
    record = results_file.read(path)
    file = request.out / "results.html"
    with plots.style():
        html = page(record, mistakes(record, clip_predictions.path_beside(epath.Path(path))))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(html, encoding="utf-8")
    return [file]


def page(record: Mapping[str, Any], wrong: Mapping[tuple[str, str], Sequence[Photo]]) -> str:
    """Returns the page; call it inside of `plots.style`.

    Args:
        record: from `results_file.read`.
        wrong: images of mistakes by task and probe.
    """
    checkpoint, results = record["checkpoint"], record["results"]
    title = f"Results of {checkpoint['source'] or 'an untrained encoder'}, step {checkpoint['step']}"
    blocks: list[Block] = [
        Heading(title, 1),
        Paragraph(text(f"Weights: {checkpoint['weights']}. Clips: {_shape(record['clip'])}. {_skipped(record)}")),
        accuracy_table(results),
    ]
    if record.get("representation"):
        blocks += [Heading("Without labels"), Code(table.representation_table(record["representation"]))]
    for result in (one for one in results if one.features == results[0].features):
        blocks.append(Heading(f"{result.task}, {result.probe} probe, {result.features}"))
        figures = [confusion.matrix(result), confusion.by_class(result)]
        blocks.append(Figures(tuple(Figure(plots.svg(figure)) for figure in figures)))
        if photos := wrong.get((result.task, result.probe)):
            said = text("First, middle and last frame; label → prediction with its probability, and the clip.")
            blocks += [Heading("Most confident mistakes", 3), Figures(tuple(photos), said)]
    blocks.append(Details("Settings", (Code(_settings(record)),)))
    return html_page.render(title, blocks)


def accuracy_table(results: Sequence[ProbeResult]) -> Table:
    """Returns a row for each result."""
    header = ("task", "probe", "features", "accuracy, %", "95 % interval", "chance, %", "majority, %", "train", "test")
    rows: list[tuple[Cell, ...]] = []
    for r in results:
        interval = f"{table.percent(r.interval[0])} to {table.percent(r.interval[1])}"
        shares = table.percent(r.accuracy), interval, table.percent(r.chance), table.percent(r.majority)
        probe = r.probe + " (not converged)" * (r.converged is False)
        rows.append(tuple(map(cell, (r.task, probe, r.features, *shares, f"{r.train:,}", f"{r.test:,}"))))
    caption = "Accuracies. Intervals cover test clips and probe seeds, not variation between training runs."
    return Table(header, tuple(rows), caption)


def mistakes(record: Mapping[str, Any], predictions: epath.Path) -> dict[tuple[str, str], list[Photo]]:
    """Returns images of the most confident wrong predictions by task and probe; {} without predictions.csv.

    Raises:
        ConfigError: the clips of the evaluation cannot be read.
    """
    if not predictions.exists():
        return {}
    wrong: dict[tuple[str, str], list[dict[str, str]]] = {}
    kind = record["results"][0].features
    lines = io.StringIO(predictions.read_bytes().decode("utf-8", "surrogateescape"), newline="")
    for row in csv.DictReader(lines):
        if row["features"] == kind and row["seed"] == "0" and row["correct"] == "0":
            wrong.setdefault((row["task"], row["probe"]), []).append(row)
    chosen = {key: sorted(rows, key=_confidence, reverse=True)[:MISTAKES] for key, rows in wrong.items()}
    images = _thumbnails(record, sorted({row["clip"] for rows in chosen.values() for row in rows}))
    return {
        key: [_photo(row, images[row["clip"]]) for row in rows if row["clip"] in images] for key, rows in chosen.items()
    }


def _confidence(row: Mapping[str, str]) -> float:
    return float(row["probability"] or 0)


def _photo(row: Mapping[str, str], png: bytes) -> Photo:
    probability = f", {100 * float(row['probability']):.0f} %" if row["probability"] else ""
    said = f"{row['label']} → {row['predicted']}{probability}"
    return Photo(png, f"frames of a clip labelled {said}", f"{said} · {names.printable(row['clip'])}")


def _thumbnails(record: Mapping[str, Any], wanted: Sequence[str]) -> dict[str, bytes]:
    """Returns images of clips by their names; those that can no longer be decoded are left out and reported."""
    if not wanted:
        return {}
    config = parse(EvalConfig, record["settings"])
    clip = parse(ClipConfig, record["clip"], "clip")
    _, source = config.split_sources()
    opened = clips.open_clips(source, clip, config.seed)
    number = {name: item for item, name in enumerate(opened.names)}
    items = [number[name] for name in wanted if name in number]
    named = opened.names
    return {
        named[item]: film.png(neighbours.thumbnail(video))
        for part in (clips.stream(opened, items, config.seed) if items else ())
        for item, video in zip(part.items, part.rgb, strict=True)
    }


def _shape(clip: Mapping[str, Any]) -> str:
    size = clip["size"]
    height, width = size if isinstance(size, list | tuple) else (size, size)
    return f"{clip['frames']} frames of {height}×{width} pixels"


def _skipped(record: Mapping[str, Any]) -> str:
    counts = {part: len(paths) for part, paths in record["skipped"].items() if paths}
    return "No clip was skipped." if not counts else f"Skipped clips: {counts}."


def _settings(record: Mapping[str, Any]) -> str:
    lines = []

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                walk(f"{prefix}.{key}", inner)
        else:
            lines.append(f"{prefix} = {value}")

    walk("config", record["settings"])
    return "\n".join(lines)
