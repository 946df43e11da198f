"""How everything on the page looks, light or dark: colours, figures, focus, labels.

Colours of accepted and rejected picks are of Okabe & Ito (2008), Color Universal Design, told apart with every common
colour vision; rejected picks are drawn with other lines as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from bokeh.plotting import figure

from pickcal.plots.style import BLUE, ORANGE, SKY

HERE = Path(__file__).parent
FILL: dict[str, Any] = {"sizing_mode": "stretch_width"}


@dataclass(frozen=True)
class Look:
    """Colours of the page.

    Attributes
    ----------
    dark
        Whether the page is dark.
    """

    dark: bool = False

    @property
    def text(self) -> str:
        """Colour of text."""
        return "#e6e6e6" if self.dark else "#1a1a1a"

    @property
    def faint(self) -> str:
        """Colour of text and lines that are of less importance; legible all the same (contrast above 4.5)."""
        return "#a8a8a8" if self.dark else "#5c5c5c"

    @property
    def background(self) -> str:
        """Colour of the page."""
        return "#181818" if self.dark else "#ffffff"

    @property
    def raised(self) -> str:
        """Colour of boxes on the page."""
        return "#242424" if self.dark else "#f4f5f6"

    @property
    def line(self) -> str:
        """Colour of borders and grids."""
        return "#3c3c3c" if self.dark else "#d8dadd"

    @property
    def accepted(self) -> str:
        """Colour of what is accepted, on the page."""
        return SKY if self.dark else BLUE

    @property
    def rejected(self) -> str:
        """Colour of what is rejected."""
        return "#E69F00" if self.dark else ORANGE

    @property
    def classes(self) -> tuple[str, str, str]:
        """Colours of low, middle and high defocus."""
        return ("#56B4E9", "#009E73", "#CC79A7") if self.dark else ("#0072B2", "#009E73", "#AA4499")

    def variables(self) -> str:
        """CSS variables `--pc-text`, `--pc-accepted` and so on, for components of our own."""
        names = ("text", "faint", "background", "raised", "line", "accepted", "rejected")
        found = "; ".join(f"--pc-{name}: {getattr(self, name)}" for name in names)
        return f":host, :root {{ {found}; color-scheme: {'dark' if self.dark else 'light'} }}"

    @property
    def focus(self) -> str:
        """CSS that shows where the keyboard is."""
        return f":focus-visible {{ outline: 3px solid {self.rejected} !important; outline-offset: 1px; }}"

    def figure(self, **options: Any) -> Any:
        """Make a Bokeh figure in these colours, without logo; `options` as of `bokeh.plotting.figure`."""
        plot: Any = figure(**{"toolbar_location": None, "tools": "", **options})
        plot.toolbar.logo = None
        plot.background_fill_color = plot.border_fill_color = self.background
        plot.outline_line_color = self.line
        for axis in plot.axis:
            axis.axis_label_text_color = axis.major_label_text_color = self.text
            axis.axis_line_color = axis.major_tick_line_color = axis.minor_tick_line_color = self.faint
            axis.axis_label_text_font_style = "normal"
            axis.axis_label_text_font_size = axis.major_label_text_font_size = "12px"
        plot.grid.grid_line_color = self.line
        plot.grid.grid_line_alpha = 0.6
        plot.title.text_color = self.text
        plot.title.text_font_size = "13px"
        return plot


class PartOfPage(Protocol):
    """What every view has."""

    layout: Any
    """Panel object."""

    def refresh(self, changes: frozenset[str]) -> None:
        """Show what changed, in the words of `Session.listen`; called in the document's thread, several at once."""
