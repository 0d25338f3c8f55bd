"""A measured figure beside what it should be, and the table of them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.benchmarks.load import Measured


@dataclass(frozen=True)
class Figure:
    """One line of the table; `least` or `most` is the target, both None where the figure is only for orientation."""

    what: str
    value: float
    unit: str = ""
    least: float | None = None
    most: float | None = None
    note: str = ""

    @property
    def holds(self) -> bool:
        """Whether the target is met."""
        enough = self.least is None or self.value >= self.least
        return enough and (self.most is None or self.value <= self.most)

    @property
    def target(self) -> str:
        """The target as the table writes it."""
        if self.least is not None:
            return f"≥ {_written(self.least)} {self.unit}".rstrip()
        return f"≤ {_written(self.most)} {self.unit}".rstrip() if self.most is not None else "-"

    @property
    def cells(self) -> tuple[str, ...]:
        """The line of the table."""
        verdict = "-" if self.target == "-" else "holds" if self.holds else "FALLS SHORT"
        return self.what, f"{_written(self.value)} {self.unit}".rstrip(), self.target, verdict, self.note


HEADING = ("Figure", "Measured", "Target", "", "How it spread")


def _written(number: float) -> str:
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"


def ratio(
    what: str, runs: Sequence[dict[str, Measured]], one: str, other: str, *, least: float | None = None
) -> Figure:
    """How the rate of one compares with that of another: the median of the runs' own ratios."""
    found = [run[one].rate / run[other].rate for run in runs]
    rates = " : ".join(f"{statistics.median(run[name].rate for run in runs):,.0f}/s" for name in (one, other))
    return median(what, found, least=least, note=rates)


def median(
    what: str,
    found: Sequence[float],
    *,
    unit: str = "",
    least: float | None = None,
    most: float | None = None,
    note: str = "",
) -> Figure:
    """The median of the runs' figures, and between which they lay."""
    spread = f"{_written(min(found))} to {_written(max(found))} in {len(found)} runs"
    full_note = f"{spread}; {note}" if note else spread
    return Figure(what, statistics.median(found), unit=unit, least=least, most=most, note=full_note)


def interleaved(runs: int, measures: dict[str, Callable[[int], Measured]]) -> list[dict[str, Measured]]:
    """Measure each in turn, so many times, so that what disturbs the machine disturbs all."""
    return [{name: measure(run) for name, measure in measures.items()} for run in range(runs)]


def table(figures: Sequence[Figure]) -> str:
    """The table as Markdown that reads well as plain text too."""
    rows = [HEADING, *(figure.cells for figure in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADING))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)
