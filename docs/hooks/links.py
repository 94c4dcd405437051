"""Links between pages of the site and files of the repository.

Pages link to each other and to source files by relative paths, which work wherever the repository is browsed. On the
site, the pages of the root are beside the others, and source files are named without a link.
"""

import pathlib
import posixpath
import re
from collections.abc import Callable
from typing import Any

ROOT = pathlib.Path(__file__).parents[2]
ROOT_PAGES = {
    "CONTRIBUTING.md": "contributing.md",
    "BUILD_NOTES.md": "build_notes.md",
    "CHANGELOG.md": "changelog.md",
    "launch/README.md": "launch.md",
}
_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)#:\s]+)(#[^)]*)?\)")


def reader(file: str) -> Callable[[], str]:
    """A function that returns a page of the repository with links for the site."""
    return lambda: rewrite((ROOT / file).read_text(), file, ROOT_PAGES[file])


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """MkDocs' hook: rewrites the links of the pages in docs/."""
    source = page.file.src_uri
    return markdown if source in ROOT_PAGES.values() else rewrite(markdown, f"docs/{source}", source)


def rewrite(markdown: str, file: str, name: str) -> str:
    """Rewrites links of a page.

    Args:
        markdown: of the page.
        file: its path in the repository.
        name: its path on the site.
    """

    def on_site(match: re.Match[str]) -> str:
        text, target, anchor = match[1], match[2], match[3] or ""
        path = posixpath.normpath(posixpath.join(posixpath.dirname(file), target))
        if not (ROOT / path).exists():
            return match[0]  # a generated page, or an error that MkDocs reports
        if path == "README.md":
            there = "index.md"
        elif path in ROOT_PAGES:
            there = ROOT_PAGES[path]
        elif path.startswith("docs/"):
            there = path.removeprefix("docs/")
        else:
            return text if "`" in text else f"{text} (`{path}`)"
        return f"[{text}]({posixpath.relpath(there, posixpath.dirname(name) or '.')}{anchor})"

    return _LINK.sub(on_site, markdown)
