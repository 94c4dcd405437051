"""The comparisons of a study and their verdicts.

The family of tests is fixed by the plan: every contrast named before running × every label and its probes, of the final
encoder with all labels. Holm's method adjusts over the whole family. Comparisons that have not been run count as p = 1,
so a verdict never depends on what is still missing. Comparisons of other recipes are exploratory: they have intervals,
and are never called clear.
"""

import dataclasses
import math
from collections.abc import Iterator
from typing import Literal

import numpy as np

from jepa_jax import recipes
from jepa_jax.study.statistics import inference
from jepa_jax.study.statistics.evidence import BASELINE, BASELINE_NO_EMA, Curve, Endpoint, Evidence
from jepa_jax.study.statistics.inference import ALPHA, Difference, Ratio

GOAL = 0.05  # the difference that the study wants to see, as a share

_UNKNOWN = inference.paired_difference({}, {})

Verdict = Literal["gain", "loss", "unclear", "exploratory", "few seeds", "not run"]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A recipe against its reference in one endpoint.

    Attributes:
        recipe, reference, endpoint: what is compared.
        planned: whether it was named before running.
        difference: recipe − reference, paired over seeds.
        adjusted_p: Holm's adjusted p; None if exploratory.
        family: number of comparisons in the family; 0 if exploratory.
        clips: clips needed to reach the reference's final accuracy, as a share of the reference's clips; None if it
            was not measured.
        labels: labels needed to reach the reference's accuracy with all labels; None if it was not measured.
        average: difference in accuracy averaged over the logarithm of the clips seen.
        clips_of_reference: clips that the reference needs to reach the recipe's final accuracy.
    """

    recipe: str
    reference: str
    endpoint: Endpoint
    planned: bool
    difference: Difference
    adjusted_p: float | None = None
    family: int = 0
    clips: Ratio | None = None
    labels: Ratio | None = None
    clips_of_reference: Ratio | None = None
    average: Difference = _UNKNOWN

    @property
    def verdict(self) -> Verdict:
        """Gain and loss are clear: Holm's adjusted p is at most 5 %."""
        if not self.difference.seeds:
            return "not run"
        if self.difference.seeds < 2:
            return "few seeds"
        if self.adjusted_p is None:
            return "exploratory"
        if self.adjusted_p <= ALPHA:
            return "gain" if self.difference.value > 0 else "loss"
        return "unclear"

    @property
    def clear(self) -> bool:
        """Whether the difference is clear."""
        return self.verdict in ("gain", "loss")

    @property
    def known(self) -> bool:
        """Whether the difference has an interval."""
        return not math.isnan(self.difference.low)

    @property
    def smallest(self) -> float:
        """The difference that these seeds find with a probability of 80 % if it is tested alone; nan if unknown."""
        return inference.smallest_difference(self.difference.deviation, self.difference.seeds)

    @property
    def smallest_in_family(self) -> float:
        """The same at the strictest level of Holm's method, α divided by the size of the family; nan if unknown."""
        alpha = ALPHA / max(self.family, 1)
        return inference.smallest_difference(self.difference.deviation, self.difference.seeds, alpha)

    @property
    def seeds_needed(self) -> int | None:
        """Seeds that find a difference of 5 points with a probability of 80 %; None if unknown."""
        return inference.seeds_needed(GOAL, self.difference.deviation)


def reference_of(evidence: Evidence, recipe: str) -> str | None:
    """The reference of a recipe without a planned contrast: the baseline with the same kind of target encoder."""
    online = recipe in recipes.RECIPES and recipes.RECIPES[recipe].changes.get("target") == "online"
    for reference in (BASELINE_NO_EMA, BASELINE) if online else (BASELINE,):
        if reference in evidence.recipes and reference != recipe:
            return reference
    return None


def compare(evidence: Evidence) -> tuple[Comparison, ...]:
    """All comparisons: the planned ones in the order of the plan, then the exploratory ones."""
    planned = [
        _comparison(evidence, recipe, reference, endpoint, planned=True)
        for recipe, reference in evidence.contrasts
        for endpoint in evidence.endpoints
    ]
    adjusted = inference.holm([one.difference.p for one in planned])
    planned = [
        dataclasses.replace(one, adjusted_p=p, family=len(planned)) for one, p in zip(planned, adjusted, strict=True)
    ]
    named = {recipe for recipe, _ in evidence.contrasts}
    others = [(recipe, reference_of(evidence, recipe)) for recipe in evidence.recipes if recipe not in named]
    exploratory = [
        _comparison(evidence, recipe, reference, endpoint, planned=False)
        for recipe, reference in others
        if reference is not None
        for endpoint in evidence.endpoints
    ]
    return (*planned, *exploratory)


def _comparison(evidence: Evidence, recipe: str, reference: str, endpoint: Endpoint, *, planned: bool) -> Comparison:
    ours, theirs = evidence.by_clips(recipe, endpoint), evidence.by_clips(reference, endpoint)
    return Comparison(
        recipe,
        reference,
        endpoint,
        planned,
        inference.paired_difference(evidence.final(recipe, endpoint), evidence.final(reference, endpoint)),
        clips=_ratio(ours, theirs),
        clips_of_reference=_ratio(theirs, ours),
        average=inference.paired_difference(*_averages(ours, theirs)),
        labels=_ratio(evidence.by_labels(recipe, endpoint), evidence.by_labels(reference, endpoint)),
    )


def _averages(*curves: Curve) -> Iterator[dict[int, float]]:
    """Accuracy averaged over the logarithm of the clips that all curves have, by seed."""
    common = sorted(set.intersection(*(set(curve.x_P) for curve in curves)))
    for curve in curves:
        if len(common) < 2:
            yield {}
            continue
        rows = curve.accuracy_SxP[:, [curve.x_P.index(x) for x in common]]
        average_S = np.trapezoid(rows, np.log(common), axis=1) / np.log(common[-1] / common[0])
        yield dict(zip(curve.seeds, average_S.tolist(), strict=True))


def _ratio(ours: Curve, theirs: Curve) -> Ratio | None:
    """What `ours` needs to reach the final accuracy of `theirs`."""
    seeds = [seed for seed in ours.seeds if seed in theirs.seeds]
    if not seeds or len(ours.x_P) < 2 or not theirs.x_P:
        return None
    shares_P = np.asarray(ours.x_P) / theirs.x_P[-1]
    return inference.share_needed(shares_P, ours.of(seeds), theirs.of(seeds)[:, -1])
