"""Numbers and verdicts in words. Accuracies are in percent, differences in percentage points."""

import math
from collections.abc import Sequence

from jepa_jax.pages.document import Span, Text, Tone, text
from jepa_jax.study.run_record import Number
from jepa_jax.study.statistics.contrasts import Comparison
from jepa_jax.study.statistics.inference import Difference, Estimate, Ratio

MINUS = "−"
SPACE = "\N{NO-BREAK SPACE}"
MARKS = {"gain": "▲", "loss": "▼"}
UNCLEAR = "~"


def tone(comparison: Comparison) -> Tone:
    """Of everything that shows a comparison."""
    return "gain" if comparison.verdict == "gain" else "loss" if comparison.verdict == "loss" else "unclear"


def percent(share: float, digits: int = 1) -> str:
    """A share as a number in percent, without the sign."""
    return fixed(100 * share, digits)


def fixed(value: Number, digits: int = 1) -> str:
    """A number with fixed decimals; a dash if it is unknown."""
    if value is None or math.isnan(value):
        return "–"
    shown = f"{abs(value):.{digits}f}"
    return (MINUS if value < 0 and float(shown) else "") + shown


def significant(value: Number, digits: int = 3) -> str:
    """A number with significant digits, at least all of its integer ones; a dash if it is unknown."""
    if value is None or math.isnan(value):
        return "–"
    if abs(value) >= 10**digits:
        return f"{value:,.0f}".replace("-", MINUS)
    return f"{value:.{digits}g}".replace("-", MINUS)


def points(difference: float, digits: int = 1) -> str:
    """A difference with its sign, in points."""
    shown = percent(difference, digits)
    return shown if shown[0] in (MINUS, "–") or not float(shown) else f"+{shown}"


def plural(count: int, noun: str) -> str:
    """A number with a noun."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def listed(items: Sequence[str]) -> str:
    """Items with commas and a final `and`."""
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)


def seed_range(seeds: Sequence[int]) -> str:
    """Seeds, with runs of consecutive ones shortened: 239–244, 250."""
    parts: list[list[int]] = []
    for seed in sorted(seeds):
        if parts and seed == parts[-1][-1] + 1:
            parts[-1].append(seed)
        else:
            parts.append([seed])
    return ", ".join(f"{part[0]}–{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts) or "–"


def estimate(mean: Estimate) -> str:
    """An accuracy with half the width of its interval."""
    if not mean.seeds:
        return "–"
    return percent(mean.value) + ("" if math.isnan(mean.low) else f" ± {percent(mean.high - mean.value)}")


def interval(difference: Difference) -> str:
    """The interval and the number of seeds: −0.4 to 4.6, 6 seeds."""
    seeds = plural(difference.seeds, "seed")
    if math.isnan(difference.low):
        return seeds
    return f"{percent(difference.low)} to {percent(difference.high)}, {seeds}"


def difference_text(comparison: Comparison) -> Text:
    """A difference with its mark and tone."""
    difference = comparison.difference
    if not difference.seeds:
        return text(Span("not run", "unclear"))
    mark = MARKS.get(comparison.verdict, UNCLEAR)
    return text(Span(f"{mark} {points(difference.value)} ({interval(difference)})", tone(comparison)))


def ratio(needed: Ratio | None) -> str:
    """Clips needed in percent of the reference's, with the 95 % bounds that there are: 45 % (30 to 71 %)."""
    if needed is None:
        return "not measured"
    if math.isinf(needed.value):
        value = "not reached"
    elif needed.value <= needed.first * 1.001:
        value = f"≤ {percent(needed.first, 0)}{SPACE}%"
    else:
        value = f"{percent(needed.value, 0)}{SPACE}%"
    low, high = percent(needed.low, 0), percent(needed.high, 0) if math.isfinite(needed.high) else ""
    if needed.seeds < 2:
        bounds = "one seed"
    elif needed.low and high:
        bounds = f"{low} to {high}{SPACE}%"
    elif needed.low:
        bounds = f"{'>' if needed.low >= needed.last else '≥'} {low}{SPACE}%"
    else:
        bounds = f"≤ {high}{SPACE}%" if high else "no bound"
    return value if bounds == value else f"{value} ({bounds})"
