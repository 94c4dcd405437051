"""Results as text tables for the terminal."""

from collections.abc import Mapping, Sequence

from jepa_jax.evaluation.results.probe_result import ProbeResult
from jepa_jax.evaluation.results.velocity_result import VelocityResult


def table(results: Sequence[ProbeResult]) -> str:
    """A line for each result: accuracies in percent, with 95 % confidence intervals."""
    head = (
        "task",
        "probe",
        "features",
        "accuracy %",
        "95 % interval",
        "± seeds",
        "chance %",
        "majority %",
        "train",
        "test",
    )
    rows: list[tuple[str, ...]] = [head]
    for r in results:
        deviation = "–" if r.standard_deviation is None else percent(r.standard_deviation)
        span = f"{percent(r.interval[0])} – {percent(r.interval[1])}"
        shares = (percent(r.accuracy), span, deviation, percent(r.chance), percent(r.majority))
        probe = r.probe + " (not converged)" * (r.converged is False)
        rows.append((r.task, probe, r.features, *shares, str(r.train), str(r.test)))
    return align(rows, left=3)


def velocity_table(results: Sequence[VelocityResult]) -> str:
    """A line for each velocity probe: R² and the accuracy on pairs in percent, with 95 % confidence intervals."""
    head = ("velocity", "R²", "95 % interval", "opposite pairs %", "95 % interval", "pairs", "train", "test")
    rows: list[tuple[str, ...]] = [head]
    for r in results:
        explained = pairs = ("–", "–")
        if r.r_squared is not None and r.interval is not None:
            explained = f"{r.r_squared:.3f}", f"{r.interval[0]:.3f} – {r.interval[1]:.3f}"
        if r.pair_accuracy is not None and r.pair_interval is not None:
            pairs = percent(r.pair_accuracy), f"{percent(r.pair_interval[0])} – {percent(r.pair_interval[1])}"
        rows.append((r.features, *explained, *pairs, str(r.pairs), str(r.train), str(r.test)))
    return align(rows, left=1)


def representation_table(measures: Mapping[str, Mapping[str, float | None]]) -> str:
    """A line of label-free measures for each encoder."""
    columns = list(next(iter(measures.values())))
    rows = [("without labels", *(name.replace("_", " ") for name in columns))]
    for encoder, values in measures.items():
        rows.append((encoder, *("–" if values[name] is None else f"{values[name]:.3g}" for name in columns)))
    return align(rows, left=1)


def percent(share: float) -> str:
    """A share in 0…1 as percent, with one decimal."""
    return f"{100 * share:.1f}"


def align(rows: Sequence[Sequence[str]], left: int) -> str:
    """Aligns rows, the first of which is the header; the first `left` columns are flush left, the others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([*map(str.ljust, row[:left], widths[:left]), *map(str.rjust, row[left:], widths[left:])])
        for row in rows
    ]
    return "\n".join([lines[0], "─" * len(lines[0]), *lines[1:]])
