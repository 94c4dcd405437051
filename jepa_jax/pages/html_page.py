"""Renders a page as one HTML file without scripts, fonts or requests."""

import base64
import html
import importlib.resources
from collections.abc import Iterable

from jepa_jax.pages.document import (
    Block,
    Bullets,
    Cell,
    Code,
    Details,
    Figure,
    Figures,
    Heading,
    Paragraph,
    Photo,
    Table,
    Text,
)


def render(title: str, blocks: Iterable[Block]) -> str:
    """The page as an HTML document."""
    style = importlib.resources.files("jepa_jax.pages").joinpath("style.css").read_text()
    body = "\n".join(_block(block) for block in blocks)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{_escape(title)}</title>
<style>
{style}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""


def _block(block: Block) -> str:
    match block:
        case Heading(title, level):
            return f"<h{level}>{_escape(title)}</h{level}>"
        case Paragraph(content, lead):
            return f"{'<p class=lead>' if lead else '<p>'}{_text(content)}</p>"
        case Bullets(items):
            return "<ul>\n" + "\n".join(f"<li>{_text(item)}</li>" for item in items) + "\n</ul>"
        case Table():
            return _table(block)
        case Figures(figures, caption):
            shared = f'\n<p class="caption">{_text(caption)}</p>' if caption else ""
            return '<div class="figures">\n' + "\n".join(map(_figure, figures)) + f"\n</div>{shared}"
        case Code(content):
            return f'<pre tabindex="0">{_escape(content)}</pre>'
        case Details(summary, blocks):
            inner = "\n".join(_block(one) for one in blocks)
            return f"<details>\n<summary>{_escape(summary)}</summary>\n{inner}\n</details>"


def _table(table: Table) -> str:
    # Outside of the scrolling part, so that it wraps on narrow screens.
    caption = f"<p class=caption>{_escape(table.caption)}</p>\n" if table.caption else ""
    header = "".join(f'<th scope="col">{_escape(name)}</th>' for name in table.header)
    rows = "\n".join(
        f'<tr><th scope="row">{_cell(row[0])}</th>' + "".join(f"<td>{_cell(one)}</td>" for one in row[1:]) + "</tr>"
        for row in table.rows
    )
    label = _escape(table.caption or table.header[0])
    return (
        f'{caption}<div class="scroll" tabindex="0" role="region" aria-label="{label}">'
        f"<table>\n<thead><tr>{header}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table></div>"
    )


def _figure(figure: Figure | Photo) -> str:
    caption = f"<figcaption>{_escape(figure.caption)}</figcaption>" if figure.caption else ""
    if isinstance(figure, Figure):
        return f"<figure>{figure.svg}{caption}</figure>"
    content = base64.b64encode(figure.png).decode("ascii")
    return f'<figure><img src="data:image/png;base64,{content}" alt="{_escape(figure.alt)}">{caption}</figure>'


def _cell(content: Cell) -> str:
    return "<br>".join(_text(line) for line in content.lines)


def _text(content: Text) -> str:
    return "".join(
        _escape(span.text) if span.tone == "plain" else f'<span class="{span.tone}">{_escape(span.text)}</span>'
        for span in content
    )


def _escape(content: str) -> str:
    return html.escape(content, quote=True)
