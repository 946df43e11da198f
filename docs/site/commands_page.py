"""The reference of commands, as cyclopts writes it from the very functions that run."""

from __future__ import annotations

import re
import textwrap

from pickcal.cli import app

INTRODUCTION = """# Commands

What `pickcal COMMAND --help` says, for every command. Units, ranges and defaults of all settings are in the
[reference of settings](settings.md).

Flags may be written with `=` (`--fdr=0.05`) or without; a flag of several values takes them one after the other
(`--defocus 8000 14000 20000`).
"""
CONTENTS = re.compile(r"^## Table of Contents\n.*?(?=^## |^\*\*Commands\*\*)", re.MULTILINE | re.DOTALL)
SECTION = re.compile(r"^#+ pickcal (?P<words>[a-z -]+)$", re.MULTILINE)


def markdown() -> str:
    """Write the page; the site has a table of contents of its own."""
    text = CONTENTS.sub("", app.generate_docs(output_format="markdown"))
    text = re.sub(r"\A# pickcal\n", "", text)
    parts = SECTION.split(text)  # what comes before the first command, then name and text of each
    headings = [found[0] for found in SECTION.finditer(text)]
    out = [parts[0]]
    for heading, words, body in zip(headings, parts[1::2], parts[2::2], strict=True):
        out.append(f"{heading}\n{body.rstrip()}\n\n{_examples(words)}")
    return f"{INTRODUCTION}\n{''.join(out)}"


def _examples(words: str) -> str:
    """Set the examples at the end of a command's help as code."""
    command = app
    for word in words.split():
        if word.startswith("-"):
            return ""
        command = command[word]
    title, _, lines = (command.help_epilogue or "").partition("\n")
    return f"{title}:\n\n```\n{textwrap.dedent(lines)}\n```\n\n" if lines else ""
