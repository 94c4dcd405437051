r"""Formulas, written as \(…\), become MathML, which browsers show without scripts or downloads."""

import re
from typing import Any

import latex2mathml.converter

_FORMULA = re.compile(r"\\\((.+?)\\\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """MkDocs' hook."""
    return _FORMULA.sub(lambda match: latex2mathml.converter.convert(match[1].replace("\\|", "|")), markdown)
