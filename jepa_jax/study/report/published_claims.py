"""Fills docs/claims.md: the published differences with their noise, and what our runs say.

    python -m jepa_jax.study.report.published_claims --doc=docs/claims.md RESULTS…

RESULTS are folders `results` of studies. Text between `<!-- published N -->` or `<!-- runs N -->` and `<!-- end -->` is
replaced, where N is the number of a claim; everything else is left as it is.
"""

import dataclasses
import importlib.resources
import json
import math
import pathlib
import re
import sys
from collections.abc import Sequence
from typing import NamedTuple

from absl import app, flags
from etils import epath

from jepa_jax.pages.document import Cell, Table, cell, text
from jepa_jax.study.report import formats, markdown_page
from jepa_jax.study.results_folder import RecordError
from jepa_jax.study.statistics import contrasts
from jepa_jax.study.statistics.evidence import BASELINE, BASELINE_NO_EMA, Evidence

DOC = flags.DEFINE_string("doc", "docs/claims.md", "The file to fill.")

NOT_RUN = "not yet run"
TITLES = {"diving48": "Diving-48", "imagenet100": "ImageNet-100", "ssv2": "SSv2", "synthetic_directions": "directions"}
TEST_ITEMS = {"diving48": 1970, "imagenet100": 5000, "ssv2": 24_777, "synthetic_directions": 40}
SEED_42, SEED_239 = "baseline_seed42", "baseline"  # the mixed baseline in the published results, by seed
REFERENCES = {SEED_42: 42, SEED_239: 239}
BOTH = (SEED_42, SEED_239)
MAIN = ("diving48", "imagenet100", "ssv2")
KINEMATIC = tuple(f"kinematic{kind}" for kind in ("", "_0_1", "_huber", "_accel", "_split", "_anneal"))
FOURTEEN = (
    "ac", "ac_hw", "amg", "combo", "delta", "fac", "fwm", "fwm_hw_ld", "fwm_ld", "hw", "hw_ld", "ld", "ltc", "spectral",
)  # fmt: skip
TEMPORAL = ("delta", "ld", "spectral", "ltc", "ac")


@dataclasses.dataclass(frozen=True)
class Claim:
    """A claim of the study.

    Attributes:
        regime, runs, references, benchmarks: the published differences it is about, every run against every reference.
        ours: recipes and references in our studies that bear on it.
    """

    regime: str
    runs: tuple[str, ...]
    references: tuple[str, ...]
    benchmarks: tuple[str, ...]
    ours: tuple[tuple[str, str], ...]


def _against(reference: str, *recipes: str) -> tuple[tuple[str, str], ...]:
    return tuple((recipe, reference) for recipe in recipes)


_COMBINATION = _against(BASELINE, "fwm_hw_ld", "fwm_hw_ld_paper_code")
CLAIMS = {
    1: Claim("ucf101", ("motion_guided",), ("baseline",), MAIN, _against(BASELINE, "motion_guided")),
    2: Claim("ucf101", KINEMATIC, ("baseline",), MAIN[:2], _against(BASELINE_NO_EMA, *KINEMATIC)),
    3: Claim("mixed", ("fwm_hw_ld",), BOTH, MAIN, _COMBINATION),
    4: Claim("mixed", ("ld",), BOTH, ("ssv2",), _against(BASELINE, "ld")),
    5: Claim("mixed", FOURTEEN, BOTH, ("imagenet100",), _against(BASELINE, "ac", "ac_hw", "fac")),
    6: Claim("mixed", ("ld",), BOTH, MAIN, _against(BASELINE, "ld")),
    7: Claim("mixed", ("fwm",), BOTH, MAIN, _against(BASELINE, "fwm")),
    8: Claim("mixed", ("fwm_ld",), BOTH, ("imagenet100",), _against(BASELINE, "fwm_ld")),
    9: Claim("mixed", ("fwm_hw_ld", "hw_ld", "fwm_ld", "fwm", "ld", "hw"), BOTH, MAIN, _COMBINATION),
    10: Claim(
        "ucf101", KINEMATIC[:2], ("baseline",), ("synthetic_directions",), _against(BASELINE_NO_EMA, *KINEMATIC[:2])
    ),
    11: Claim("mixed", (), (), (), _against(BASELINE, "fwm", "fwm_hw_ld")),
    12: Claim("mixed", TEMPORAL, BOTH, ("imagenet100",), _against(BASELINE, *TEMPORAL)),
}


class Published(NamedTuple):
    """A published difference.

    Attributes:
        run, reference, benchmark: what is compared.
        difference: in points.
        error: standard error of the difference from the size of the test set alone, in points. The two runs share the
            test set but their predictions are not published, so the error is that of independent test sets, an upper
            bound.
        between_seeds: by how many points two seeds of the mixed baseline differ on this benchmark; None if not seen.
    """

    run: str
    reference: str
    benchmark: str
    difference: float
    error: float
    between_seeds: float | None


def published(claim: Claim) -> list[Published]:
    """The published differences of a claim."""
    found = []
    for run in claim.runs:
        for reference in claim.references:
            ours, theirs = _top1(claim.regime, run), _top1(claim.regime, reference)
            for benchmark in claim.benchmarks:
                if benchmark in ours and benchmark in theirs:
                    values = ours[benchmark], theirs[benchmark]
                    error = math.hypot(*(standard_error(value, TEST_ITEMS[benchmark]) for value in values))
                    found.append(
                        Published(run, reference, benchmark, values[0] - values[1], error, between_seeds(benchmark))
                    )
    return found


def standard_error(accuracy: float, items: int) -> float:
    """Binomial standard error of an accuracy, both in percent."""
    return math.sqrt(accuracy * (100 - accuracy) / items)


def between_seeds(benchmark: str) -> float | None:
    """By how many points the mixed baselines of seeds 42 and 239 differ; None if one of them lacks the benchmark."""
    values = [_top1("mixed", name).get(benchmark) for name in BOTH]
    return abs(values[0] - values[1]) if values[0] is not None and values[1] is not None else None


def _top1(regime: str, run: str) -> dict[str, float]:
    content = json.loads(importlib.resources.files("jepa_jax").joinpath("paper_results.json").read_text())
    return next(one["top1"] for one in content["runs"] if (one["regime"], one["recipe"]) == (regime, run))


def published_table(number: int) -> str:
    """The published differences of a claim as a Markdown table, a column for each reference."""
    claim = CLAIMS[number]
    found = {(one.run, one.benchmark, one.reference): one for one in published(claim)}
    rows: list[tuple[Cell, ...]] = []
    for run, benchmark in dict.fromkeys((run, benchmark) for run, benchmark, _ in found):
        beside = [found.get((run, benchmark, reference)) for reference in claim.references]
        error = max(one.error for one in beside if one)
        differences = (formats.points(one.difference / 100, 2) if one else "–" for one in beside)
        noise = cell(formats.fixed(error, 2)), cell(formats.fixed(between_seeds(benchmark), 2))
        rows.append((cell(run), cell(TITLES[benchmark]), *map(cell, differences), *noise))
    against = (f"against baseline, seed {REFERENCES[reference]}" for reference in claim.references)
    header = ("published run", "benchmark", *against, "standard error, test set", "two seeds differ by")
    return markdown_page.render([Table(header, tuple(rows))]).strip() if rows else "No figures were published."


Runs = Sequence[tuple[Evidence, Sequence[contrasts.Comparison]]]


def read_runs(results: Sequence[epath.PathLike]) -> Runs:
    """The comparisons of each study, from folders `results`. Raises RecordError if a record cannot be read."""
    studies = [Evidence.read(folder) for folder in results]
    return [(evidence, contrasts.compare(evidence)) for evidence in studies]


def runs_text(number: int, runs: Runs) -> str:
    """What our runs say about a claim, as Markdown; `not yet run` without runs."""
    lines = []
    for evidence, comparisons in runs:
        for one in comparisons:
            if (one.recipe, one.reference) in CLAIMS[number].ours and one.difference.seeds:
                words = "" if one.planned else " (exploratory)"
                start = f"{evidence.name}, {one.recipe} − {one.reference}, {evidence.title(one.endpoint)}{words}: "
                lines.append(text(start, *formats.difference_text(one)))
    return "\n".join(f"* {markdown_page.line(found)}" for found in lines) or f"{NOT_RUN.capitalize()}."


def fill(content: str, runs: Runs) -> str:
    """The document with both kinds of marked text replaced.

    Raises:
        ValueError: a mark has no end, or there is no such claim.
    """
    marks = re.findall(r"<!-- (published|runs) (\d+) -->", content)
    kinds = re.findall(r"<!-- (published|runs|end)\b", content)
    if kinds[1::2] != ["end"] * len(marks) or "end" in kinds[::2]:
        raise ValueError("Marks and ends do not alternate; expected <!-- end --> after each mark.")
    if unknown := sorted({int(number) for _, number in marks} - CLAIMS.keys()):
        raise ValueError(f"There is no claim {unknown[0]}; expected 1 to {len(CLAIMS)}.")

    def replaced(match: re.Match[str]) -> str:
        number = int(match["number"])
        inner = published_table(number) if match["kind"] == "published" else runs_text(number, runs)
        return f"<!-- {match['kind']} {number} -->\n{inner}\n<!-- end -->"

    return re.sub(r"<!-- (?P<kind>published|runs) (?P<number>\d+) -->\n.*?<!-- end -->", replaced, content, flags=re.S)


def main(arguments: list[str]) -> int:
    """Fills the document. Returns 1 after an error, else 0."""
    doc = pathlib.Path(DOC.value)
    try:
        doc.write_text(fill(doc.read_text(), read_runs(arguments[1:])))
    except (OSError, ValueError, RecordError) as error:
        print(f"Error: {doc}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    app.run(main)
