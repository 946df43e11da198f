"""What the site adds to the pages of docs/: reference pages made from the code, formulas, the page of deploy/.

mkdocs calls the functions `on_...`; each kind of page has a module of its own beside this one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import commands_page
import formulas
import links
import python_pages
import settings_page
import store_page
from mkdocs.structure.files import File, Files

REPOSITORY = Path(__file__).parents[2]

GENERATED = {
    "reference/commands.md": commands_page.markdown,
    "reference/settings.md": settings_page.markdown,
    "reference/store.md": store_page.markdown,
    "reference/python.md": python_pages.public,
    "reference/functions.md": python_pages.functions,
}
"""Pages that are not in docs/, and who writes each."""


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are made from the code, and those that lie elsewhere in the repository."""
    for uri, write in GENERATED.items():
        files.append(File.generated(config, uri, content=write()))
    for place, uri in links.ELSEWHERE.items():
        files.append(File.generated(config, uri, content=(REPOSITORY / place).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Lead links to files of the repository to their pages, or name the files that have none."""
    return links.rewritten(markdown, page.file.src_uri, REPOSITORY)


def on_page_content(html: str, **_: Any) -> str:
    """Turn formulas into MathML."""
    return formulas.rendered(html)
