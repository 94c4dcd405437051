"""The main tables: recipes × probes, the planned comparisons, sample and label efficiency, and controls."""

from collections.abc import Sequence

from jepa_jax import recipes
from jepa_jax.pages.document import Cell, Span, Table, Text, cell, text
from jepa_jax.recipes import FIGURES
from jepa_jax.study.report import formats
from jepa_jax.study.statistics import inference
from jepa_jax.study.statistics.contrasts import Comparison
from jepa_jax.study.statistics.evidence import Endpoint, Evidence

PUBLISHED = {**FIGURES, "ucf101": "UCF-101", "synthetic_directions": "synthetic directions"}


def accuracies(evidence: Evidence, comparisons: Sequence[Comparison]) -> Table:
    """Recipes × probes: mean, interval, differences to the reference, published figures."""
    rows = []
    for number, recipe in enumerate(evidence.recipes, start=1):
        if not (seeds := len(evidence.done[recipe])):
            continue
        planned = len(evidence.planned_seeds(recipe))
        count = formats.plural(seeds, "seed") if seeds == planned else f"{seeds} of {planned} seeds"
        cells = [cell(text(f"{number} {recipe}"), text(Span(count, "unclear")))]
        for endpoint in evidence.endpoints:
            mean = inference.mean_interval(list(evidence.final(recipe, endpoint).values()))
            lines = [text(Span(formats.estimate(mean), "strong"))]
            for one in comparisons:
                if one.recipe == recipe and one.endpoint == endpoint and one.difference.seeds:
                    lines += _difference(one)
            cells.append(cell(*lines))
        rows.append((*cells, cell(*_published(recipe))))
    header = ("recipe", *(f"{evidence.title(endpoint)}, %" for endpoint in evidence.endpoints), "published, %")
    return Table(
        header,
        tuple(rows),
        "Accuracy of probes on the frozen final encoder: mean over seeds ± half of its 95 % interval; below, the "
        "difference to the reference in points with its 95 % interval. ▲ clear gain, ▼ clear loss, ~ not clear; "
        "(exploratory) was not named before running and is never called clear.",
    )


def _difference(one: Comparison) -> list[Text]:
    tone = formats.tone(one)
    mark = formats.MARKS.get(one.verdict, formats.UNCLEAR)
    words = "" if one.planned else " (exploratory)"
    bounds = f" ({formats.percent(one.difference.low)} to {formats.percent(one.difference.high)})" * one.known
    return [
        text(Span(f"{mark} {formats.points(one.difference.value)}{bounds}", tone)),
        text(Span(f"on {one.reference}{words}", "unclear")),
    ]


def _published(recipe: str) -> list[Text]:
    """The study's figures with their provenance."""
    if recipe not in recipes.RECIPES:
        return [text(Span("not a recipe of the study", "unclear"))]
    lines = []
    for run in recipes.published(recipe):
        if run["top1"]:
            figures = ", ".join(f"{title} {run['top1'][key]}" for key, title in PUBLISHED.items() if key in run["top1"])
            untrained = ", of an untrained encoder" if run["evaluated_encoder"] == "untrained" else ""
            lines.append(text(f"{figures} ({run['regime']}, seed {run['seed']}{untrained})"))
    if not lines and (as_run := f"{recipe}_paper_code") in recipes.RECIPES:
        return [text(Span(f"none; the study ran {as_run}", "unclear"))]
    return lines or [text(Span("none", "unclear"))]


def planned_comparisons(evidence: Evidence, comparisons: Sequence[Comparison]) -> Table | None:
    """The family of tests, with what it could have seen; None without contrasts."""
    rows = [
        (
            cell(text(f"{one.recipe} − {one.reference}")),
            cell(evidence.title(one.endpoint)),
            cell(formats.difference_text(one)),
            cell(text(Span(_p(one), formats.tone(one)))),
            cell(formats.fixed(100 * one.smallest)),
            cell(formats.fixed(100 * one.smallest_in_family)),
            cell("–" if one.seeds_needed is None else f"{one.seeds_needed:,}"),
        )
        for one in comparisons
        if one.planned
    ]
    header = (
        "contrast", "label", "difference, points", "p (Holm)",
        "smallest visible", "in the family", "seeds for 5 points",
    )  # fmt: skip
    return _table(
        header,
        rows,
        "The comparisons named before running. Smallest visible: the difference in points that as many seeds find with "
        "80 % power at a level of 5 %, if tested alone; in the family: at the strictest level that Holm's method may "
        "demand. Seeds for 5 points: how many would find a difference of 5 points. Both use the standard deviation of "
        "the paired differences seen here.",
    )


def _p(one: Comparison) -> str:
    if one.adjusted_p is None or one.difference.seeds < 2:
        return "–"
    return "< 0.001" if one.adjusted_p < 0.001 else f"{one.adjusted_p:.3f}"


def efficiency(evidence: Evidence, comparisons: Sequence[Comparison]) -> Table | None:
    """Clips and labels needed to reach the reference's final accuracy; None if nothing was measured."""
    rows = [
        (
            cell(text(f"{one.recipe} → {one.reference}"), *_exploratory(one)),
            cell(evidence.title(one.endpoint)),
            cell(text(Span(formats.ratio(one.clips), formats.tone(one)))),
            cell(text(Span(formats.ratio(one.clips_of_reference), formats.tone(one)))),
            cell(text(Span(_average(one), "unclear"))),
            cell(text(Span(formats.ratio(one.labels), formats.tone(one)))),
        )
        for one in comparisons
        if one.clips or one.labels
    ]
    header = (
        "recipe → reference", "label", "clips the recipe needs", "clips the reference needs",
        "average over training", "labels the recipe needs",
    )  # fmt: skip
    return _table(
        header,
        rows,
        "Clips needed: clips that the recipe sees before it reaches the reference's final accuracy, in percent of the "
        "reference's clips, with 95 % bounds; and the reverse, clips that the reference sees before it reaches the "
        "recipe's final accuracy. Average over training: difference in accuracy averaged over the logarithm of the "
        "clips, in points, which also sees a recipe that is faster to the same end (exploratory). Labels needed: of "
        "the final encoder, to reach the reference's accuracy with all labels. ≥ is a lower bound alone: the goal may "
        "not be reached at all.",
    )


def _average(one: Comparison) -> str:
    if not one.average.seeds:
        return "not measured"
    return f"{formats.points(one.average.value)} ({formats.interval(one.average)})"


def _exploratory(one: Comparison) -> list[Text]:
    return [] if one.planned else [text(Span("exploratory", "unclear"))]


def controls(evidence: Evidence) -> Table | None:
    """What needs no training; None without controls."""
    if evidence.controls is None:
        return None
    rows = [
        (cell(row), *(_control(evidence, row, endpoint) for endpoint in evidence.endpoints))
        for row in evidence.control_rows()
    ]
    chance = [evidence.label(endpoint) for endpoint in evidence.endpoints]
    rows.append((cell("chance"), *(cell(formats.percent(label.chance) if label else "–") for label in chance)))
    header = ("control", *(f"{evidence.title(endpoint)}, %" for endpoint in evidence.endpoints))
    return _table(header, rows, "Controls: accuracy of the same probes on what no run trained.")


def _control(evidence: Evidence, row: str, endpoint: Endpoint) -> Cell:
    found = evidence.control(row, endpoint)
    return cell(formats.percent(found.accuracy) if found else "–")


def _table(header: tuple[str, ...], rows: Sequence[tuple[Cell, ...]], caption: str) -> Table | None:
    return Table(header, tuple(rows), caption) if rows else None
