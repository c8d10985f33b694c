"""Charts as inline SVG: lines with points, an interval or an alarm at each, or points alone, in the colours
of their page.

Numbers in, text out. It knows nothing of runs, needs no network and draws with no library: colours are CSS
classes (``c0`` ... of ``report.css``), so that the same chart is legible on a light and on a dark page.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

LEFT, RIGHT, TOP, BOTTOM = 54.0, 14.0, 12.0, 40.0


@dataclass(frozen=True)
class Series:
    """A line, or points alone where not ``joined``: ``points`` (x, y), those of a line in order of x;
    ``errors`` half the interval at each, if any; ``marked`` indices of points that raised an alarm;
    ``colour`` its number in the palette; ``labels`` what is said of each point.
    """

    name: str
    points: Sequence[tuple[float, float]]
    colour: int = 0
    errors: Sequence[float] = ()
    marked: frozenset[int] = field(default_factory=frozenset)
    labels: Sequence[str] = ()
    joined: bool = True


@dataclass(frozen=True)
class Axes:
    """What the axes say, and the size in pixels. ``percent`` writes 0.5 as 50 %; ``zero`` begins the y axis
    at 0; ``whole`` allows only integers on the x axis; ``line`` is a y at which a dashed line is drawn.
    """

    x: str
    y: str
    percent: bool = False
    zero: bool = False
    whole: bool = False
    width: int = 560
    height: int = 260
    line: float | None = None


def chart(series: Sequence[Series], axes: Axes) -> str:
    """One chart with its legend; a note where there is nothing to draw. Points that are not finite are left
    out by the caller.
    """
    drawn = [one for one in series if one.points]
    if not drawn:
        return '<p class="none">nothing measured</p>'
    frame = _Frame(drawn, axes)
    parts = [f'<svg viewBox="0 0 {axes.width} {axes.height}" role="img" aria-label="{escape(axes.y)}">']
    parts += frame.grid()
    if axes.line is not None:
        y = frame.y(axes.line)
        parts.append(f'<line class="limit" x1="{LEFT}" x2="{axes.width - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
    for one in drawn:
        parts += frame.line(one)
    parts.append("</svg>")
    if len(series) > 1:
        names = "".join(f'<span><i class="key k{s.colour}"></i>{escape(s.name)}</span>' for s in drawn)
        parts.append(f'<p class="legend">{names}</p>')
    return "".join(parts)


def ticks(low: float, high: float, most: int = 6, whole: bool = False) -> list[float]:
    """At most ``most`` round numbers (1, 2 or 5 times a power of ten apart) from ``low`` to ``high``."""
    span = high - low
    if span <= 0:
        return [low]
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(power * digit for digit in (1, 2, 5, 10, 20) if span / (power * digit) <= most)
    if whole:
        step = max(1.0, step)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def number(value: float) -> str:
    """A number for an axis or a table cell: 1,234 or 0.0123 or 3.1M."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= unit:
            scaled = value / (1e3 if name == "k" else unit)
            return f"{scaled:.3g}{name}"
    if value == int(value):
        return f"{int(value):,}"
    return f"{value:.3g}"


class _Frame:
    """Where numbers are on the picture."""

    def __init__(self, series: Sequence[Series], axes: Axes) -> None:
        self._axes = axes
        xs = [x for one in series for x, _ in one.points]
        lows, highs = [], []
        for one in series:
            errors = one.errors or [0.0] * len(one.points)
            lows += [y - error for (_, y), error in zip(one.points, errors, strict=True)]
            highs += [y + error for (_, y), error in zip(one.points, errors, strict=True)]
        shown = [] if axes.line is None else [axes.line]
        low, high = min(lows + shown), max(highs + shown)
        if axes.zero:
            low, high = min(0.0, low), max(0.0, high)
        pad = (high - low) * 0.06 or abs(high) * 0.1 or 0.5
        bottom = low if axes.zero and low == 0.0 else low - pad
        self._y = (bottom, high + pad)
        side = (max(xs) - min(xs)) * 0.02 or 0.5
        self._x = (min(xs) - side, max(xs) + side)

    def x(self, value: float) -> float:
        low, high = self._x
        return LEFT + (value - low) / (high - low) * (self._axes.width - LEFT - RIGHT)

    def y(self, value: float) -> float:
        low, high = self._y
        return TOP + (high - value) / (high - low) * (self._axes.height - TOP - BOTTOM)

    def grid(self) -> list[str]:
        axes, parts = self._axes, []
        right, bottom = axes.width - RIGHT, axes.height - BOTTOM
        for tick in ticks(*self._y, most=5):
            y, said = self.y(tick), f"{100 * tick:.3g} %" if axes.percent else number(tick)
            parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(f'<text class="end" x="{LEFT - 6}" y="{y + 4:.1f}">{said}</text>')
        for tick in ticks(*self._x, most=8, whole=axes.whole):
            x = self.x(tick)
            parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{bottom}"/>')
            parts.append(f'<text class="mid" x="{x:.1f}" y="{bottom + 16}">{number(tick)}</text>')
        middle = (LEFT + right) / 2
        parts.append(f'<text class="mid axis" x="{middle:.1f}" y="{axes.height - 6}">{escape(axes.x)}</text>')
        return parts

    def line(self, one: Series) -> list[str]:
        places = [(self.x(x), self.y(y)) for x, y in one.points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts = [f'<polyline class="c{one.colour}" points="{path}"/>'] if one.joined else []
        for index, (x, y) in enumerate(places):
            if one.errors:
                top, bottom = (self.y(one.points[index][1] + s * one.errors[index]) for s in (1, -1))
                ends = f'x1="{x:.1f}" x2="{x:.1f}" y1="{top:.1f}" y2="{bottom:.1f}"'
                parts.append(f'<line class="c{one.colour}" {ends}/>')
            alarm = index in one.marked
            said = one.labels[index] if one.labels else f"{number(one.points[index][1])}"
            kind = "alarm" if alarm else f"d{one.colour}" if one.joined else f"d{one.colour} dot"
            shape = f'class="{kind}" cx="{x:.1f}" cy="{y:.1f}"'
            title = f"<title>{escape(one.name)}: {escape(said)}</title>"
            parts.append(f'<circle {shape} r="{5 if alarm else 3}">{title}</circle>')
        return parts
