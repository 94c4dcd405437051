"""The report of a study: `write` makes report.html and report.md of whatever records are there.

The same records give the same bytes. Order: answer → main_tables, plots, run_details, all as parts of a `document` →
html_page, markdown_page.
"""

from etils import epath

from jepa_jax.files.paths import write_text
from jepa_jax.pages import html_page
from jepa_jax.pages.document import Block, Bullets, Details, Figures, Heading, Paragraph, Span, text
from jepa_jax.study.report import answer, main_tables, markdown_page, plots, run_details
from jepa_jax.study.statistics import contrasts
from jepa_jax.study.statistics.evidence import Evidence

__all__ = ["write"]


def write(results_folder: epath.PathLike, out_folder: epath.PathLike) -> None:
    """Writes report.html and report.md.

    Args:
        results_folder: the folder `results` of a study; may lack any of its files.
        out_folder: created if missing.

    Raises:
        RecordError: a record cannot be read. The message has the file and the reason.
    """
    evidence = Evidence.read(results_folder)
    blocks = _blocks(evidence)
    out = epath.Path(out_folder)
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "report.html", html_page.render(f"Study {evidence.name}".strip(), blocks))
    write_text(out / "report.md", markdown_page.render(blocks))


def _blocks(evidence: Evidence) -> list[Block]:
    comparisons = contrasts.compare(evidence)
    done = sum(len(runs) for runs in evidence.done.values())
    planned = sum(len(evidence.planned_seeds(recipe)) for recipe in evidence.recipes)
    sentences = answer.answer(evidence, comparisons)
    rest = tuple(dict.fromkeys([*(one.reference for one in comparisons), *evidence.other_recipes]))
    blocks: list[Block] = [
        Heading(f"Study {evidence.name}".strip(), 1),
        Paragraph(text(Span(answer.QUESTION, "strong"))),
        Paragraph(text(Span(f"{done} of {planned} runs have ended, of {len(evidence.recipes)} recipes.", "unclear"))),
        Heading("Answer"),
        *(Paragraph(sentence, lead=True) for sentence in sentences),
        Heading("What this does not show"),
        Bullets(answer.not_shown(evidence, comparisons)),
        Heading("Accuracy"),
    ]
    if evidence.endpoints and done:
        blocks.append(main_tables.accuracies(evidence, comparisons))
    else:
        blocks.append(Paragraph(text("No run has ended yet.")))
    blocks += [table for table in (main_tables.controls(evidence),) if table]
    if figures := plots.trade_offs(evidence, comparisons, evidence.main_recipes):
        blocks += [Heading("Trade-offs"), figures]
        if evidence.other_recipes and (others := plots.trade_offs(evidence, comparisons, rest)):
            blocks.append(Details("Trade-offs: other recipes", (others,)))
    if table := main_tables.planned_comparisons(evidence, comparisons):
        blocks += [Heading("Planned comparisons"), table]
    blocks += [Heading("Sample efficiency"), *_efficiency(evidence, comparisons)]
    for title, part in (
        ("Collapse", run_details.collapse),
        ("Gradient audit", run_details.gradient_audit),
        ("Appearance and dynamics halves", run_details.halves),
        ("Cost", run_details.cost),
        ("Failed runs", run_details.failures),
        ("Settings, versions and seeds", run_details.settings),
    ):
        blocks += [Heading(title), *part(evidence)]
    return blocks


def _efficiency(evidence: Evidence, comparisons: tuple[contrasts.Comparison, ...]) -> list[Block]:
    blocks: list[Block] = []
    planned = [one for one in comparisons if one.planned]
    others = [one for one in comparisons if not one.planned]
    if figures := plots.efficiency(evidence, planned, by="clips"):
        blocks.append(Figures(figures, text(plots.KEY)))
    if table := main_tables.efficiency(evidence, planned):
        blocks.append(table)
    if figures := plots.efficiency(evidence, planned, by="labels"):
        blocks.append(Details("Label efficiency: accuracy against labels", (Figures(figures, text(plots.KEY)),)))
    more: list[Block] = []
    if figures := plots.efficiency(evidence, others, by="clips"):
        more.append(Figures(figures, text(plots.KEY)))
    if table := main_tables.efficiency(evidence, others):
        more.append(table)
    if more:
        blocks.append(Details("Other recipes (exploratory)", tuple(more)))
    return blocks or [Paragraph(text("No two runs of the same seed were probed during training."))]
