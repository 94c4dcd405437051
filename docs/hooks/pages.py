"""Adds generated pages to the site: the references, and pages from the repository's root."""

import pathlib
import sys

import mkdocs_gen_files

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import command_pages
import links
import settings_page

PAGES = {
    "reference/settings.md": settings_page.page,
    "reference/commands.md": command_pages.page,
    **{name: links.reader(file) for file, name in links.ROOT_PAGES.items()},
}

for name, make in PAGES.items():
    with mkdocs_gen_files.open(name, "w") as page:
        page.write(make())
