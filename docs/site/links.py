"""Links of pages: they are read in the repository as well, and lead to files that the site does not have."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from pathlib import Path

ELSEWHERE = {"deploy/README.md": "deploy.md", "CONTRIBUTING.md": "contribute.md", "CHANGELOG.md": "changes.md"}
"""Pages of the site that lie outside of docs/: place in the repository and name in the site."""

LINK = re.compile(r"(?<!!)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s#]+)(?P<anchor>#[^)\s]*)?\)")
FENCE = re.compile(r"^(?P<fence>```+|~~~+).*?^(?P=fence)\s*$", re.MULTILINE | re.DOTALL)


def rewritten(markdown: str, uri: str, repository: Path) -> str:
    """Rewrite the links of a page.

    Parameters
    ----------
    markdown
        The page.
    uri
        Its name in the site.
    repository
        The repository's folder.

    Returns
    -------
    str
        Links to pages that lie elsewhere lead to their names in the site; other files of the repository, which the
        site does not have, are named. What is nowhere stays as it is, and mkdocs refuses it.
    """
    source = next((place for place, name in ELSEWHERE.items() if name == uri), f"docs/{uri}")

    def link(found: re.Match[str]) -> str:
        text, target, anchor = found["text"], found["target"], found["anchor"] or ""
        if "://" in target or target.startswith(("mailto:", "/")):
            return found[0]
        place = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        name = ELSEWHERE.get(place) or (place.removeprefix("docs/") if place.startswith("docs/") else None)
        if name is not None:
            return f"[{text}]({posixpath.relpath(name, posixpath.dirname(uri) or '.')}{anchor})"
        if not (repository / place).exists():
            return found[0]
        return f"`{place}`" if text.strip("`") in (place, target, posixpath.basename(place)) else f"{text} (`{place}`)"

    return outside_fences(markdown, lambda part: LINK.sub(link, part))


def outside_fences(markdown: str, change: Callable[[str], str]) -> str:
    """Apply a change to what is not within fences of code."""
    out, end = [], 0
    for fence in FENCE.finditer(markdown):
        out += [change(markdown[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*out, change(markdown[end:])])
