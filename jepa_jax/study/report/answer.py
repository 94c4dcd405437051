"""The question, the answer in three sentences made from the numbers, and what the study does not show."""

import math
from collections.abc import Sequence

from jepa_jax.pages.document import Span, Text, text
from jepa_jax.study.report import formats
from jepa_jax.study.report.formats import listed, percent, plural
from jepa_jax.study.statistics.contrasts import Comparison
from jepa_jax.study.statistics.evidence import Evidence
from jepa_jax.training.collapse import LEAST_RANK, LEAST_STD

QUESTION = (
    "Do auxiliary objectives with factorized latent dynamics make small-scale Video-JEPA training more "
    "sample-efficient than the standard joint-embedding objective, and for which capability?"
)
MAX_NAMED = 10  # recipes in a list
_LIMITS = {"target_std": LEAST_STD, "target_rank": LEAST_RANK}


def answer(evidence: Evidence, comparisons: Sequence[Comparison]) -> tuple[Text, Text, Text]:
    """Three sentences: which differences are clear, sample efficiency, and what could have been seen."""
    planned = [one for one in comparisons if one.planned]
    return _differences(evidence, planned), _efficiency(evidence, planned), _power(planned)


def _differences(evidence: Evidence, planned: Sequence[Comparison]) -> Text:
    if not planned:
        return text("No comparison was named before running, so there is no test, only estimates.")
    family = plural(len(planned), "comparison") + " named before running"
    tested = [one for one in planned if one.difference.seeds >= 2]
    if not any(one.difference.seeds for one in planned):
        return text(f"The question is not answered yet: none of the {family} has been run on a seed of its reference.")
    if not tested:
        return text(
            f"The question is not answered yet: none of the {family} has the two seeds, of the recipe and of its "
            "reference, that a test needs."
        )
    clear = [one for one in tested if one.clear]
    if not clear:
        largest = max(tested, key=lambda one: abs(one.difference.value))
        return text(
            f"No difference is clear in the {len(tested)} comparisons with enough seeds, of {family}; the largest is "
            f"{largest.recipe} against {largest.reference} in {evidence.title(largest.endpoint)}, ",
            formats.difference_text(largest)[0],
            " points.",
        )
    number = "one difference is" if len(clear) == 1 else f"{len(clear)} differences are"
    return text(f"Of {family}, {number} clear: ", *_by_label(evidence, clear), ".")


def _by_label(evidence: Evidence, clear: Sequence[Comparison]) -> list[str | Span]:
    """For each label: who gains and who loses."""
    parts: list[str | Span] = []
    for endpoint in evidence.endpoints:
        found = [one for one in clear if one.endpoint == endpoint]
        for number, one in enumerate(found):
            start = f"{'; ' if parts else ''}in {evidence.title(endpoint)}, " if number == 0 else ", "
            size = f"{formats.MARKS[one.verdict]} {percent(abs(one.difference.value))} points"
            verb, over = ("gains", "over") if one.verdict == "gain" else ("loses", "against")
            parts.append(f"{start}{one.recipe} {verb} ")
            parts.append(Span(size, formats.tone(one)))
            parts.append(f" {over} {one.reference} ({formats.interval(one.difference)})")
    return parts


def _efficiency(evidence: Evidence, planned: Sequence[Comparison]) -> Text:
    measured = [one for one in planned if one.clips is not None and one.difference.seeds >= 2]
    if not measured:
        return text("Sample efficiency is not known: no comparison has two seeds that were probed during training.")
    faster = [one for one in measured if one.verdict == "gain"]
    slower = [one for one in measured if one.verdict == "loss"]
    parts: list[str | Span] = []
    for one in faster:
        goal = f"the final accuracy of {one.reference} in {evidence.title(one.endpoint)}"
        parts.append(f"{', and ' if parts else ''}{one.recipe} reaches {goal} with ")
        parts.append(Span(f"{formats.ratio(one.clips)} of its clips", "gain"))
    if not faster:
        count = plural(len(measured), "comparison")
        parts.append(f"No recipe clearly needs fewer clips than its reference ({count} with probes during training)")
    for one in slower:
        goal = f"the lower final accuracy of {one.recipe} in {evidence.title(one.endpoint)}"
        parts.append(f"; {one.reference} reaches {goal} with ")
        parts.append(Span(f"{formats.ratio(one.clips_of_reference)} of its clips", "loss"))
    return text(*parts, ".")


def _power(planned: Sequence[Comparison]) -> Text:
    visible = [one.smallest for one in planned if not math.isnan(one.smallest)]
    missing = sum(one.difference.seeds < 2 for one in planned)
    rest = f"; {plural(missing, 'comparison')} of {len(planned)} cannot be tested yet" if missing else ""
    if not visible:
        return text(f"What differences this plan can see is not known{rest or ' without repeated seeds'}.")
    seeds = sorted({one.difference.seeds for one in planned if not math.isnan(one.smallest)})
    number = plural(seeds[0], "seed") if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]} seeds"
    low, high = percent(min(visible)), percent(max(visible))
    size = f"{high} points" if low == high else f"{low} to {high} points, depending on the comparison,"
    return text(
        f"With {number} a single comparison finds a true difference of {size} four times in five, so smaller effects "
        f"may exist unseen{rest}."
    )


def not_shown(evidence: Evidence, comparisons: Sequence[Comparison]) -> tuple[Text, ...]:
    """What a reader must not conclude, and what is wrong with the records."""
    bullets = [text(Span("Other scales. ", "strong"), _scale(evidence))]
    unclear = sum(one.planned and one.verdict == "unclear" for one in comparisons)
    if unclear:
        bullets.append(
            text(
                Span("Equality. ", "strong"),
                f"{plural(unclear, 'comparison')} in grey may hide any difference inside the interval shown.",
            )
        )
    if noise := _test_noise(evidence):
        bullets.append(
            text(
                Span("Other test sets. ", "strong"),
                "Intervals cover the variation between training runs on one fixed test set. Another test set of the "
                f"same size would move each accuracy by about {noise} (one standard error).",
            )
        )
    if any(one.difference.seeds and not one.planned for one in comparisons):
        bullets.append(
            text(
                Span("Exploratory comparisons. ", "strong"),
                "Recipes that no planned comparison names are shown in grey whatever their size: with many of them, "
                "some large differences are expected by chance.",
            )
        )
    bullets.append(
        text(
            Span("The published figures. ", "strong"),
            "They are of other data, a ViT-B, other probes and one seed, some of an encoder that training never "
            "updated; they stand beside ours for orientation and cannot be compared number by number.",
        )
    )
    return (*bullets, *_warnings(evidence))


def _scale(evidence: Evidence) -> str:
    train = evidence.study.settings.get("train", {}) if evidence.study else {}
    known = [
        f"encoder {train['encoder']['size']}" if "size" in train.get("encoder", {}) else "",
        f"clips of {train['clip']['frames']} frames of {train['clip']['size']} pixels" if "clip" in train else "",
        f"{plural(train['steps'] * train['batch_size'], 'clip')} seen"
        if {"steps", "batch_size"} <= train.keys()
        else "",
    ]
    found = listed([part for part in known if part])
    return f"The results hold for {found or 'the settings below'} and for these probes, and need not hold beyond them."


def _test_noise(evidence: Evidence) -> str:
    parts = []
    for endpoint in evidence.endpoints:
        label = evidence.label(endpoint)
        values = [share for recipe in evidence.recipes for share in evidence.final(recipe, endpoint).values()]
        if label and values:
            mean = sum(values) / len(values)
            parts.append(f"{percent(math.sqrt(mean * (1 - mean) / label.test))} points in {evidence.title(endpoint)}")
    return listed(parts) if parts else ""


def collapsed(evidence: Evidence) -> dict[str, list[int]]:
    """Seeds by recipe whose features had collapsed at the end of training."""
    found: dict[str, list[int]] = {}
    for recipe, runs in evidence.done.items():
        for seed, run in runs.items():
            ends = {name: run.curves[name][-1] for name in _LIMITS if run.curves.get(name)}
            if any(value is not None and value < _LIMITS[name] for name, value in ends.items()):
                found.setdefault(recipe, []).append(seed)
    return found


def _warnings(evidence: Evidence) -> list[Text]:
    warnings = []
    if found := collapsed(evidence):
        names = listed([f"{recipe} (seeds {formats.seed_range(seeds)})" for recipe, seeds in found.items()])
        warnings.append(("Collapsed runs. ", f"The features of {names} had collapsed at the end of training."))
    missing = {
        recipe: len(evidence.planned_seeds(recipe)) - len(evidence.done[recipe])
        for recipe in evidence.recipes
        if len(evidence.planned_seeds(recipe)) > len(evidence.done[recipe])
    }
    if missing:
        words = plural(sum(missing.values()), "run") + " of " + plural(len(missing), "recipe")
        named = [recipe for recipe in missing if len(missing) <= MAX_NAMED or recipe in evidence.main_recipes]
        some = [f"{recipe} {missing[recipe]}" for recipe in named] + ["others"] * (len(named) < len(missing))
        warnings.append(("Runs not done. ", f"Missing or failed: {words} ({', '.join(some)})."))
    if evidence.failed:
        warnings.append(("Failures. ", f"{plural(len(evidence.failed), 'run')} failed; their errors are below."))
    if evidence.study is None:
        warnings.append(("The plan. ", "study.json is missing, so it is not known what was planned before running."))
    if evidence.controls is None:
        warnings.append(("Controls. ", "controls.json is missing, so chance and the untrained encoder are not shown."))
    mixed = [
        recipe for recipe, runs in evidence.done.items() if len({run.settings_sha256 for run in runs.values()}) > 1
    ]
    if mixed:
        warnings.append(("Mixed settings. ", f"Runs of {listed(mixed)} were made with different settings."))
    versions = {(run.software.jepa_jax, run.software.jax) for runs in evidence.done.values() for run in runs.values()}
    if len(versions) > 1:
        warnings.append(("Mixed versions. ", "Runs were made with different versions of the software; see below."))
    return [text(Span(title, "strong"), words) for title, words in warnings]
