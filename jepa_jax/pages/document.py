"""The parts of a page, without a format: `html_page` and a study's `markdown_page` render them."""

import dataclasses
from typing import Literal, NamedTuple

# gain and loss: clear differences. unclear: everything that is not clear, in grey.
Tone = Literal["plain", "strong", "gain", "loss", "unclear"]


class Span(NamedTuple):
    """Text of one tone."""

    text: str
    tone: Tone = "plain"


Text = tuple[Span, ...]


def text(*parts: str | Span) -> Text:
    """A line of text; strings are plain."""
    return tuple(Span(part) if isinstance(part, str) else part for part in parts)


class Cell(NamedTuple):
    """Lines of a table cell."""

    lines: tuple[Text, ...]


def cell(*lines: str | Text) -> Cell:
    """A cell with one or more lines."""
    return Cell(tuple(text(line) if isinstance(line, str) else line for line in lines))


@dataclasses.dataclass(frozen=True)
class Heading:
    """A heading of level 1 (title of the report) to 3."""

    title: str
    level: int = 2


@dataclasses.dataclass(frozen=True)
class Paragraph:
    """A paragraph; `lead` is set larger."""

    text: Text
    lead: bool = False


@dataclasses.dataclass(frozen=True)
class Bullets:
    """A list."""

    items: tuple[Text, ...]


@dataclasses.dataclass(frozen=True)
class Table:
    """A table. The first column names its rows."""

    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""


@dataclasses.dataclass(frozen=True)
class Figure:
    """A plot as SVG."""

    svg: str
    caption: str = ""


@dataclasses.dataclass(frozen=True)
class Photo:
    """An image; `alt` describes it in words."""

    png: bytes
    alt: str
    caption: str = ""


@dataclasses.dataclass(frozen=True)
class Figures:
    """Plots and images side by side, as many as fit, and what they have in common."""

    figures: tuple[Figure | Photo, ...]
    caption: Text = ()


@dataclasses.dataclass(frozen=True)
class Code:
    """Preformatted text."""

    text: str


@dataclasses.dataclass(frozen=True)
class Details:
    """Blocks behind a summary."""

    summary: str
    blocks: tuple["Block", ...]


Block = Heading | Paragraph | Bullets | Table | Figures | Code | Details
