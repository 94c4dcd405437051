"""What lies behind the results: gradient audit, collapse, halves of the channels, cost, settings and failures."""

import dataclasses
import json
from collections.abc import Sequence

from jepa_jax.pages.document import (
    Block,
    Bullets,
    Code,
    Details,
    Figures,
    Paragraph,
    Span,
    Table,
    cell,
    text,
)
from jepa_jax.study.report import formats, plots
from jepa_jax.study.report.answer import collapsed
from jepa_jax.study.run_record import ALL, AuditTerm, Number, RunRecord, Software
from jepa_jax.study.statistics import inference
from jepa_jax.study.statistics.evidence import UNTRAINED, Evidence

HALVES = ("appearance half", "dynamics half")


def collapse(evidence: Evidence) -> list[Block]:
    """Spread and effective rank of the target features over training, and label-free measures of the final encoder."""
    blocks: list[Block] = []
    if found := collapsed(evidence):
        lines = [f"{recipe}: seeds {formats.seed_range(seeds)}" for recipe, seeds in found.items()]
        blocks.append(Paragraph(text(Span("Collapsed at the end: ", "strong"), "; ".join(lines), ".")))
    main, others = evidence.main_recipes, evidence.other_recipes
    for name, title in (("target_rank", "effective rank of targets"), ("target_std", "deviation of targets")):
        note = text(f"{title.capitalize()} over training: mean over seeds, single runs thin.")
        if figures := plots.collapse(evidence, main, name, title):
            plot = Figures(figures, note)
            blocks.append(plot if name == "target_rank" else Details(title.capitalize(), (plot,)))
        if figures := plots.collapse(evidence, others, name, title):
            blocks.append(Details(f"{title.capitalize()}: other recipes", (Figures(figures, note),)))
    if table := _representation(evidence):
        blocks.append(table)
    return blocks or [Paragraph(text("No run recorded collapse measures."))]


def _representation(evidence: Evidence) -> Table | None:
    runs = {recipe: list(found.values()) for recipe, found in evidence.done.items() if found}
    names = list(dict.fromkeys(name for found in runs.values() for run in found for name in run.representation))
    if not names:
        return None
    rows = []
    untrained = evidence.controls.representation.get(UNTRAINED) if evidence.controls else None
    if untrained:
        rows.append((cell(UNTRAINED), *(cell(formats.significant(untrained.get(name))) for name in names)))
    for recipe, found in runs.items():
        values = [[run.representation.get(name) for run in found] for name in names]
        rows.append((cell(recipe), *(cell(_mean(row)) for row in values)))
    header = ("recipe", *(name.replace("_", " ") for name in names))
    return Table(header, tuple(rows), "Label-free measures of the final encoder, mean over seeds.")


def _mean(values: Sequence[Number]) -> str:
    known = [value for value in values if value is not None]
    return formats.significant(sum(known) / len(known)) if known else "–"


def gradient_audit(evidence: Evidence) -> list[Block]:
    """Size and direction of each objective's gradient on the encoder."""
    main, others = evidence.main_recipes, evidence.other_recipes
    figures = tuple(figure for recipe in main for figure in plots.audit(evidence, recipe))
    more = tuple(figure for recipe in others for figure in plots.audit(evidence, recipe))
    if not figures + more:
        return [Paragraph(text("No run was audited."))]
    note = text("Mean over seeds. ", _AUDITED)
    blocks: list[Block] = []
    if silent := _silent(evidence):
        blocks.append(Bullets(tuple(text(line) for line in silent)))
    if table := _last_audit(evidence, main):
        blocks.append(table)
    if figures:
        blocks.append(Details("Gradients over training", (Figures(figures, note),)))
    if more:
        table = _last_audit(evidence, others)
        blocks.append(Details("Other recipes", (*([table] if table else []), Figures(more, note))))
    return blocks


_AUDITED = (
    "The gradient is that of the weighted objective on the encoder; with a cosine of 1 it pulls as the prediction loss "
    "does, at 0 it is independent of it, below 0 it works against it."
)


def _silent(evidence: Evidence) -> list[str]:
    """Objectives with a loss and exactly no gradient on the encoder."""
    lines = []
    for recipe, runs in evidence.done.items():
        names = dict.fromkeys(name for run in runs.values() for name in run.audit.terms)
        for name in names:
            terms = [run.audit.terms[name] for run in runs.values() if name in run.audit.terms]
            norms = [norm for term in terms for norm in term.gradient_norm]
            if norms and not any(norms) and any(loss for term in terms for loss in term.loss):
                lines.append(f"{recipe}: {name} has a loss but no gradient on the encoder; it trains nothing there.")
    return lines


def _last_audit(evidence: Evidence, recipes: Sequence[str]) -> Table | None:
    rows = []
    for recipe in recipes:
        audited = [run for run in evidence.done[recipe].values() if run.audit.step]
        for name in dict.fromkeys(name for run in audited for name in run.audit.terms):
            terms = [run.audit.terms.get(name, AuditTerm()) for run in audited]
            ends = [
                [row[-1] for row in rows_of if row]
                for rows_of in zip(*((t.loss, t.gradient_norm, t.cosine_to_prediction) for t in terms), strict=True)
            ]
            rows.append((cell(recipe), cell(name), *(cell(_mean(end)) for end in ends)))
    header = ("recipe", "objective", "loss", "gradient norm", "cosine with prediction")
    return Table(header, tuple(rows), "The last audit, mean over seeds. " + _AUDITED) if rows else None


def halves(evidence: Evidence) -> list[Block]:
    """Probes of the appearance and dynamics halves of the channels, and of other features."""
    blocks: list[Block] = []
    names = [name for name in evidence.features() if name in HALVES]
    for recipes, summary in ((evidence.main_recipes, ""), (evidence.other_recipes, "Halves: other recipes")):
        if table := _features(evidence, recipes, names, _HALVES_CAPTION):
            blocks.append(Details(summary, (table,)) if summary else table)
    names = [name for name in evidence.features() if name not in HALVES]
    if table := _features(evidence, evidence.recipes, names, "Controls of the trained encoder."):
        blocks.append(Details("Controls of trained encoders", (table,)))
    return blocks or [Paragraph(text("No run was probed on the halves of its channels."))]


_HALVES_CAPTION = (
    "A factorization that works puts appearance into one half and motion and order into the other. Recipes without "
    "factorization have the same halves of channels, as a control. Mean over seeds ± half of the 95 % interval."
)


def _features(evidence: Evidence, recipes: Sequence[str], names: Sequence[str], caption: str) -> Table | None:
    """Probes of these features beside those of the encoder's output."""
    rows = []
    for recipe in recipes:
        for name in (ALL, *names):
            values = [evidence.final(recipe, endpoint, name) for endpoint in evidence.endpoints]
            if any(values) and names:
                means = (formats.estimate(inference.mean_interval(list(found.values()))) for found in values)
                rows.append((cell(recipe), cell("all" if name == ALL else name), *map(cell, means)))
    header = ("recipe", "features", *(f"{evidence.title(endpoint)}, %" for endpoint in evidence.endpoints))
    return Table(header, tuple(rows), caption) if rows else None


def cost(evidence: Evidence) -> list[Block]:
    """Time and speed of the runs by recipe, and their sum."""
    rows, total = [], 0.0
    for recipe, runs in evidence.done.items():
        found = [run.training for run in runs.values()]
        if not found:
            continue
        total += sum(one.seconds for one in found)
        flops = [one.flops_per_step for one in found if one.flops_per_step is not None]
        rows.append(
            (
                cell(recipe),
                cell(str(len(found))),
                cell(_mean([one.steps for one in found])),
                cell(_mean([one.clips for one in found])),
                cell(formats.fixed(sum(one.seconds for one in found) / len(found), 0)),
                cell(formats.fixed(sum(one.clips_per_second for one in found) / len(found), 1)),
                cell(formats.significant(sum(flops) / len(flops) / 1e9) if flops else "–"),
            )
        )
    if not rows:
        return [Paragraph(text("No run has ended."))]
    machines = sorted({_machine(run) for runs in evidence.done.values() for run in runs.values()})
    hours = formats.fixed(total / 3600, 2)
    header = ("recipe", "runs", "steps", "clips", "seconds a run", "clips/s", "GFLOP a step")
    return [
        Paragraph(text(f"Training took {hours} hours in all, probes excluded, on {formats.listed(machines)}.")),
        Table(header, tuple(rows), "Means over runs."),
    ]


def _machine(run: RunRecord) -> str:
    speed = run.machine.matmul_gflops
    # Rounded to tens: each process measures its speed.
    return run.machine.device + (f" (about {round(speed, -1):.0f} GFLOP/s)" if speed else "")


def failures(evidence: Evidence) -> list[Block]:
    """Failed runs with their errors."""
    if not evidence.failed:
        return [Paragraph(text("No run failed."))]
    return [Details(f"{run.recipe}, seed {run.seed}", (Code(run.error or ""),)) for run in evidence.failed]


def settings(evidence: Evidence) -> list[Block]:
    """Everything that was set: recipes, seeds, versions and settings."""
    blocks: list[Block] = []
    rows = []
    for recipe in evidence.recipes:
        plan = evidence.study.recipes.get(recipe) if evidence.study else None
        done = tuple(evidence.done[recipe])
        rows.append(
            (
                cell(recipe),
                cell(plan.summary if plan else "–"),
                cell(formats.seed_range(done)),
                cell(formats.seed_range(evidence.planned_seeds(recipe))),
                cell(*(plan.changes if plan and plan.changes else ("–",))),
            )
        )
    if rows:
        header = ("recipe", "what it changes", "seeds done", "seeds planned", "settings that differ")
        blocks.append(Details("Recipes and seeds", (Table(header, tuple(rows)),)))
    if evidence.runs:
        blocks.append(Details("Versions and machines", (_versions(evidence),)))
    if evidence.study:
        content = json.dumps(evidence.study.settings, indent=1, ensure_ascii=False, sort_keys=True)
        blocks.append(Details("All settings", (Code(content),)))
    return blocks or [Paragraph(text("There are no records."))]


def _versions(evidence: Evidence) -> Table:
    groups: dict[tuple[str, ...], list[str]] = {}
    for run in evidence.runs:
        key = (*dataclasses.astuple(run.software), run.machine.device, run.settings_sha256)
        groups.setdefault(key, []).append(f"{run.recipe}-{run.seed}")
    rows = [
        (cell(*_first(names)), *(cell(value[:12] or "–") for value in key)) for key, names in sorted(groups.items())
    ]
    return Table(("runs", *(field.name for field in dataclasses.fields(Software)), "device", "settings"), tuple(rows))


def _first(names: Sequence[str]) -> tuple[str, ...]:
    return (f"{names[0]} … {names[-1]} ({len(names)})",) if len(names) > 3 else tuple(names)
