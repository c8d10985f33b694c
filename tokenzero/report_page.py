"""A page about a run and the pieces it is put together from: sections, figures, tables, tiles.

Text in, HTML out. The page needs nothing else: it loads no script, no font and no picture from anywhere. It
knows nothing of runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib import resources


def page(title: str, sections: Sequence[str]) -> str:
    """The whole page, its ``sections`` HTML already."""
    style = resources.files("tokenzero").joinpath("report.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style></head>"
        f"<body>{''.join(sections)}</body></html>\n"
    )


def tiles(cells: Sequence[tuple[str, str]]) -> str:
    """Figures to be seen first, (what, number) each."""
    drawn = "".join(f'<div class="tile"><b>{escape(b)}</b><span>{escape(a)}</span></div>' for a, b in cells)
    return f'<div class="tiles">{drawn}</div>'


def section(title: str, body: str) -> str:
    """A part of the page; ``body`` is HTML already."""
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def figures(charts: Sequence[tuple[str, str]], small: bool = False) -> str:
    """Charts (title, HTML) beside each other."""
    drawn = "".join(f"<figure><h3>{escape(title)}</h3>{picture}</figure>" for title, picture in charts)
    return f'<div class="charts{" small" if small else ""}">{drawn}</div>'


def table(
    head: Sequence[str], rows: Sequence[Sequence[str]], last: Sequence[str] = (), words: Sequence[int] = ()
) -> str:
    """A table of cells that are HTML already; ``words`` are the columns that hold text."""

    def row(cells: Sequence[str], tag: str, kind: str = "") -> str:
        drawn = "".join(
            f"<{tag}{' class=words' if index in words else ''}>{cell}</{tag}>"
            for index, cell in enumerate(cells)
        )
        return f"<tr{kind}>{drawn}</tr>"

    body = "".join(row(cells, "td") for cells in rows) + (row(last, "td", " class=sum") if last else "")
    return f'<div class="scroll"><table>{row(head, "th")}{body}</table></div>'
