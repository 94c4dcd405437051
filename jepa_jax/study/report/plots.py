"""The plots of a report."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from jepa_jax.pages.document import Figure, Figures, Tone, text
from jepa_jax.study.report import formats
from jepa_jax.study.report.svg import SHAPES, Axis, Panel, linear, logarithmic
from jepa_jax.study.run_record import AuditTerm, Number, RunRecord
from jepa_jax.study.statistics import inference
from jepa_jax.study.statistics.contrasts import Comparison
from jepa_jax.study.statistics.evidence import UNTRAINED, Curve, Endpoint, Evidence

MARK_OF: Mapping[Tone, str] = {"gain": "triangle", "loss": "down", "unclear": "circle"}
REFERENCE_MARK = "square"
KEY = (
    "▲ blue: clear gain. ▼ orange: clear loss. ● grey: not clear. ■ reference, dashed. Bands and ellipses are 95 % "
    "confidence regions of the mean over seeds."
)


def trade_offs(evidence: Evidence, comparisons: Sequence[Comparison], recipes: Sequence[str]) -> Figures | None:
    """Mean accuracies of two labels against each other, for each pair of labels; None without runs or pairs."""
    recipes = [recipe for recipe in recipes if evidence.done[recipe]]
    numbers = {recipe: number for number, recipe in enumerate(evidence.recipes, start=1)}
    figures = [
        _trade_off(evidence, comparisons, x, y, {recipe: numbers[recipe] for recipe in recipes})
        for x, y in itertools.combinations(_one_probe_a_label(evidence), 2)
    ]
    if not figures or not recipes:
        return None
    names = "; ".join(f"{numbers[recipe]} {recipe}" for recipe in recipes)
    return Figures(
        tuple(figures),
        text(
            f"Each number is a recipe ({names}). A recipe has a colour if its difference to its reference is clear in "
            f"either label; a clear loss in one label outweighs a gain in the other. {KEY} Small dots are single runs. "
            f"Ellipses need {inference.ELLIPSE_SEEDS} seeds."
        ),
    )


def _one_probe_a_label(evidence: Evidence) -> list[Endpoint]:
    return list({endpoint.label: endpoint for endpoint in reversed(evidence.endpoints)}.values())[::-1]


def _trade_off(
    evidence: Evidence,
    comparisons: Sequence[Comparison],
    x: Endpoint,
    y: Endpoint,
    numbers: Mapping[str, int],
) -> Figure:
    points = {}
    for recipe in numbers:
        xs, ys = evidence.final(recipe, x), evidence.final(recipe, y)
        if seeds := sorted(xs.keys() & ys.keys()):
            points[recipe] = np.array([(xs[seed], ys[seed]) for seed in seeds])
    every = np.concatenate([*points.values()]) if points else np.zeros((0, 2))
    panel = Panel(
        f"{evidence.title(x)} × {evidence.title(y)}",
        linear(every[:, 0].tolist(), f"{evidence.title(x)}, %", scale=100.0),
        linear(every[:, 1].tolist(), f"{evidence.title(y)}, %", scale=100.0),
        f"Mean accuracy of each recipe in {evidence.title(x)} and {evidence.title(y)}",
        height=320,
    )
    references = {one.reference for one in comparisons}
    styles = {recipe: "reference" if recipe in references else _worst(comparisons, recipe, (x, y)) for recipe in points}
    for recipe, values in points.items():
        if (oval := inference.ellipse(values)) is not None:
            panel.oval(*oval, styles[recipe])
        panel.dots(values[:, 0].tolist(), values[:, 1].tolist(), styles[recipe])
    means = {recipe: values.mean(axis=0).tolist() for recipe, values in points.items()}
    for recipe, (mean_x, mean_y) in means.items():
        panel.marks([mean_x], [mean_y], styles[recipe], _mark(styles[recipe]))
        panel.keep_clear(mean_x, mean_y)
    for recipe, (mean_x, mean_y) in means.items():
        panel.label(mean_x, mean_y, str(numbers[recipe]), styles[recipe])
    return Figure(panel.svg())


def _mark(style: str) -> str:
    return {**MARK_OF, "reference": REFERENCE_MARK}.get(style, "circle")


def _worst(comparisons: Sequence[Comparison], recipe: str, endpoints: Sequence[Endpoint]) -> Tone:
    tones = {formats.tone(one) for one in comparisons if one.recipe == recipe and one.endpoint in endpoints}
    if "loss" in tones:
        return "loss"
    return "gain" if "gain" in tones else "unclear"


def efficiency(evidence: Evidence, comparisons: Sequence[Comparison], *, by: str) -> tuple[Figure, ...]:
    """Accuracy against clips seen (`by` is "clips") or labels ("labels"), for each comparison with several points."""
    curve_of = evidence.by_clips if by == "clips" else evidence.by_labels
    figures = []
    for one in comparisons:
        ours, theirs = curve_of(one.recipe, one.endpoint), curve_of(one.reference, one.endpoint)
        if min(len(ours.x_P), len(theirs.x_P)) >= 2:
            figures.append(_curves(evidence, one, ours, theirs, by))
    return tuple(figures)


def _curves(evidence: Evidence, one: Comparison, ours: Curve, theirs: Curve, by: str) -> Figure:
    xs = sorted({*ours.x_P, *theirs.x_P})
    if by == "clips":
        x = logarithmic(xs, [_short(value) for value in xs], "clips seen in training")
    else:
        x = logarithmic(xs, [formats.percent(value, 0) for value in xs], "labels, %")
    levels = {}
    if label := evidence.label(one.endpoint):
        levels["chance"] = label.chance
    if untrained := evidence.control(UNTRAINED, one.endpoint):
        levels["untrained"] = untrained.accuracy
    title, tone = f"{one.recipe}: {evidence.title(one.endpoint)}", formats.tone(one)
    values = [*ours.accuracy_SxP.ravel(), *theirs.accuracy_SxP.ravel(), *levels.values()]
    panel = Panel(title, x, linear(values, "accuracy, %", scale=100.0), f"{title} against {by}, beside {one.reference}")
    for name, value in levels.items():
        panel.level(value, name, left=name == "chance")
    _mean_line(panel, theirs, "reference", "d2", REFERENCE_MARK)
    _mean_line(panel, ours, tone, "", MARK_OF[tone])
    needed = one.labels if by == "labels" else one.clips
    return Figure(panel.svg(), f"{by} for the final accuracy of {one.reference}: {formats.ratio(needed)}")


def _mean_line(panel: Panel, curve: Curve, style: str, dashes: str, shape: str) -> None:
    estimates = [inference.mean_interval(values) for values in curve.accuracy_SxP.T]
    panel.band(curve.x_P, [one.low for one in estimates], [one.high for one in estimates], style)
    means = [one.value for one in estimates]
    panel.line(curve.x_P, means, f"{style} {dashes}".strip())
    panel.marks(curve.x_P, means, style, shape)


def _short(count: float) -> str:
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return f"{count:.0f}"


def collapse(evidence: Evidence, recipes: Sequence[str], name: str, title: str) -> tuple[Figure, ...]:
    """A metric over training for each recipe that has it: single runs and their mean."""
    runs = {recipe: _with_curve(evidence, recipe, name) for recipe in recipes}
    every = [value for found in runs.values() for run in found for value in run.curves[name] if value is not None]
    figures = []
    for recipe, found in runs.items():
        if not found:
            continue
        steps = [step for run in found for step in _numbers(run.curves["step"])]
        panel = Panel(
            recipe, linear(steps, "step", zero=True), linear(every, title, zero=True), f"{title} of {recipe} by step"
        )
        for run in found:
            panel.line(_numbers(run.curves["step"]), run.curves[name], "s1 single")
        common = min((run.curves["step"] for run in found), key=len)
        mean = _mean([run.curves[name][: len(common)] for run in found])
        panel.line(_numbers(common), mean, "s1")
        panel.marks(_numbers(common)[-1:], mean[-1:], "s1")
        figures.append(Figure(panel.svg()))
    return tuple(figures)


def _with_curve(evidence: Evidence, recipe: str, name: str) -> list[RunRecord]:
    return [run for run in evidence.done.get(recipe, {}).values() if run.curves.get(name)]


def _numbers(values: Sequence[Number]) -> list[float]:
    return [float("nan") if value is None else float(value) for value in values]


def _mean(rows: Sequence[Sequence[Number]]) -> list[float | None]:
    columns = [[value for value in column if value is not None] for column in zip(*rows, strict=True)]
    return [sum(column) / len(column) if column else None for column in columns]


def audit(evidence: Evidence, recipe: str) -> tuple[Figure, ...]:
    """Gradient norm of each objective over training, and its cosine with the gradient of the prediction loss."""
    runs = [run for run in evidence.done.get(recipe, {}).values() if run.audit.step]
    if not runs:
        return ()
    names = list(dict.fromkeys(name for run in runs for name in run.audit.terms))
    norms = {name: _mean_term(runs, name, "gradient_norm") for name in names}
    cosines = {name: _mean_term(runs, name, "cosine_to_prediction") for name in names if name != "prediction"}
    steps = [float(step) for step in min((run.audit.step for run in runs), key=len)]
    figures = [_terms(f"{recipe}: gradient norm", steps, norms, "L2 norm", names, zero=True)]
    if cosines:
        figures.append(_terms(f"{recipe}: cosine with prediction", steps, cosines, "cosine", names, zero=False))
    return tuple(figures)


def _mean_term(runs: Sequence[RunRecord], name: str, field: str) -> list[float | None]:
    rows = [getattr(run.audit.terms.get(name, AuditTerm()), field) for run in runs]
    rows = [row for row in rows if row]
    shortest = min(map(len, rows), default=0)
    return _mean([row[:shortest] for row in rows])


def _terms(
    title: str,
    steps: Sequence[float],
    terms: Mapping[str, Sequence[Number]],
    axis: str,
    names: Sequence[str],
    *,
    zero: bool,
) -> Figure:
    values = [value for row in terms.values() for value in row if value is not None]
    y: Axis = linear(values if zero else [*values, -0.1, 0.1], axis, zero=zero)
    panel = Panel(title, linear(steps, "step", zero=True), y, f"{title} of each objective by step")
    if not zero:
        panel.level(0.0, "")
    ends = []
    for name, row in terms.items():
        number = names.index(name) % len(SHAPES)
        xs, style = steps[: len(row)], f"s{number + 1}"
        panel.line(xs, row, f"{style} d{number + 1}")
        panel.marks(xs[-1:], row[-1:], style, SHAPES[number])
        ends += [(xs[-1], row[-1], name, style)] if row and row[-1] is not None else []
    for x, value, _, _ in ends:
        panel.keep_clear(x, value)
    for x, value, name, style in ends:
        panel.label(x, value, name, style)
    return Figure(panel.svg())
