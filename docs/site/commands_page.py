"""The reference of commands, as cyclopts writes it from the very functions that run."""

from __future__ import annotations

import re

from pickcal.cli import app

INTRODUCTION = """# Commands

What `pickcal COMMAND --help` says, for every command. Units, ranges and defaults of all settings are in the
[reference of settings](settings.md).

Flags may be written with `=` (`--fdr=0.05`) or without; a flag of several values takes them one after the other
(`--defocus 8000 14000 20000`).
"""
CONTENTS = re.compile(r"^## Table of Contents\n.*?(?=^## |^\*\*Commands\*\*)", re.MULTILINE | re.DOTALL)
EXAMPLE = re.compile(r"^(Examples?): (.*)$", re.MULTILINE)


def markdown() -> str:
    """Write the page; the site has a table of contents of its own."""
    text = CONTENTS.sub("", app.generate_docs(output_format="markdown"))
    text = re.sub(r"\A# pickcal\n", "", text)
    text = EXAMPLE.sub(_examples, text)
    return f"{INTRODUCTION}\n{text}"


def _examples(found: re.Match[str]) -> str:
    """Set the commands of an example as code; words between them stay words."""
    parts = [part.strip() for part in found[2].split(";")]
    lines = []
    for part in parts:
        before, command = part[: part.find("pickcal ")], part[part.find("pickcal ") :]
        lines += [f"# {before.strip(' :')}", command] if before.strip() else [command]
    return "\n".join([f"{found[1]}:", "", "```", *lines, "```"])
