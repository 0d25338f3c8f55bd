"""Bar charts as coordinates for an SVG, which the template draws. Pure, without Django."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# Horizontally in percent, so that a chart fills its page; vertically in CSS pixels, so that its texts keep their size.
WIDTH, HEIGHT = 100, 200
BOTTOM, TOP = 24, 8
GAP = 0.25


@dataclass(frozen=True, slots=True)
class Bar:
    """One part of a column: its rectangle, its CSS class (`kind`) and its label for screen readers and tooltips."""

    x: float
    y: float
    width: float
    height: float
    kind: str
    label: str


@dataclass(frozen=True, slots=True)
class Chart:
    """Bars, horizontal lines with their numbers, labels below: (x, text), and an area to point at for each column."""

    bars: list[Bar]
    lines: list[tuple[float, str]]
    labels: list[tuple[float, str]]
    # The area of each column and its values: (x, width, text).
    areas: list[tuple[float, float, str]]
    height: int = HEIGHT


@dataclass(frozen=True, slots=True)
class Column:
    """A label and the stacked parts, from the bottom: (kind, number, label)."""

    label: str
    parts: tuple[tuple[str, int, str], ...]


def stacked(columns: Sequence[Column], *, labels: int = 6) -> Chart:
    """A chart of stacked columns, about `labels` of which get a label below."""
    top = _round_up(max((sum(number for _, number, _ in column.parts) for column in columns), default=0))
    room = HEIGHT - BOTTOM - TOP
    step = WIDTH / max(len(columns), 1)
    bars: list[Bar] = []
    for index, column in enumerate(columns):
        y = float(HEIGHT - BOTTOM)
        for kind, number, label in column.parts:
            height = room * number / top
            y -= height
            if number:
                bars.append(Bar(*_rounded(step * (index + GAP / 2), y, step * (1 - GAP), height), kind, label))
    every = max(len(columns) // labels, 1)
    marked = [
        (round(step * (index + 0.5), 2), column.label) for index, column in enumerate(columns) if index % every == 0
    ]
    lines = [(round(HEIGHT - BOTTOM - room * part / 2, 1), _short(top * part // 2)) for part in range(3)]
    areas = [
        (round(step * index, 2), round(step, 2), "; ".join(label for _, _, label in column.parts))
        for index, column in enumerate(columns)
    ]
    return Chart(bars=bars, lines=lines, labels=marked, areas=areas)


def _short(number: int) -> str:
    """A round number, short enough for the space beside the lines: 4,000, 50k, 2M."""
    if number >= 1_000_000:
        return f"{number / 1_000_000:,g}M"
    return f"{number // 1000}k" if number >= 10_000 else f"{number:,}"


def _rounded(*values: float) -> tuple[float, float, float, float]:
    x, y, width, height = (round(value, 2) for value in values)
    return x, y, width, height


def _round_up(number: int) -> int:
    """The next of 2, 4, 10, 20, 40, 100, …, so that the lines have round numbers and their half is whole."""
    scale = 1
    while True:
        for step in (2, 4, 10):
            if number <= step * scale:
                return step * scale
        scale *= 10
