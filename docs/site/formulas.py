"""Formulas: what arithmatex left as LaTeX becomes MathML, which browsers draw themselves, without scripts or fonts."""

from __future__ import annotations

import html
import re

from latex2mathml.converter import convert

INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
BLOCK = re.compile(r'<div class="arithmatex">\\\[(.*?)\\\]</div>', re.DOTALL)


def rendered(page: str) -> str:
    """Replace the formulas of a page (HTML) by MathML; the LaTeX stays beside it for who copies or cannot see it."""
    page = INLINE.sub(lambda found: _mathml(found[1], "inline"), page)
    return BLOCK.sub(lambda found: f'<div class="formula">{_mathml(found[1], "block")}</div>', page)


def _mathml(latex: str, display: str) -> str:
    text = html.unescape(latex).strip()
    made = convert(text, display=display)
    return made.replace("<math ", f'<math alttext="{html.escape(text)}" ', 1)
