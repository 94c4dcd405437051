"""Renders a report as Markdown. Plots are left out: their numbers are in its tables."""

import re
from collections.abc import Iterable, Iterator

from jepa_jax.pages.document import (
    Block,
    Bullets,
    Cell,
    Code,
    Details,
    Figures,
    Heading,
    Paragraph,
    Table,
    Text,
)

_SPECIAL = str.maketrans({character: f"\\{character}" for character in "\\`*_[]<>|~"})


def render(blocks: Iterable[Block]) -> str:
    """The report as Markdown."""
    parts = [part for block in blocks for part in _block(block)]
    return "\n\n".join(parts) + "\n"


def _block(block: Block) -> Iterator[str]:
    match block:
        case Heading(title, level):
            yield f"{'#' * level} {_escape(title)}"
        case Paragraph(content):
            yield line(content)
        case Bullets(items):
            yield "\n".join(f"* {line(item)}" for item in items)
        case Table():
            if block.caption:
                yield _escape(block.caption)
            yield _table(block)
        case Figures():
            yield "The plots are in report.html."
        case Code(content):
            yield f"```\n{content}\n```"
        case Details(summary, blocks):
            inner = [part for one in blocks for part in _block(one)]
            if inner:
                yield f"### {_escape(summary)}"
                yield from inner


def _table(table: Table) -> str:
    lines = ["| " + " | ".join(map(_escape, table.header)) + " |", "|" + "---|" * len(table.header)]
    return "\n".join(lines + ["| " + " | ".join(map(_cell, row)) + " |" for row in table.rows])


def _cell(content: Cell) -> str:
    return "<br>".join(map(line, content.lines))


def line(content: Text) -> str:
    """One line of text; clear differences are bold."""
    return "".join(
        _bold(span.text) if span.tone in ("gain", "loss", "strong") else _escape(span.text) for span in content
    )


def _bold(content: str) -> str:
    words = content.strip()
    before, after = content.split(words) if words else (content, "")
    return f"{before}**{_escape(words)}**{after}"


def _escape(content: str) -> str:
    escaped = content.replace("\n", " ").translate(_SPECIAL)
    return re.sub(r"(?<=\w)\\_(?=\w)", "_", escaped)  # an underscore within a word has no meaning in Markdown
