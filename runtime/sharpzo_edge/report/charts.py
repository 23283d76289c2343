"""The shapes that are drawn of a report's figures: numbers for the SVG in `templates`.

A plot is PLOT_WIDTH x PLOT_HEIGHT units, and is stretched to the width there is; its strokes are not. Texts
stand beside it, at percentages.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from ..wording import shortened
from .data import Confusion, Curve, Memory

PLOT_WIDTH, PLOT_HEIGHT = 1000, 200
MOST_DOTS = 60  # looks; with more of them there is only the line
DEEPEST, FAINTEST = 0.45, 0.1  # opacities of a cell: text stays readable on the deepest
CELL_SIZES = (14, 36)  # pixels
MATRIX_PIXELS = 480
LARGE_CELL = 24  # pixels, from which on a cell has its count in it
LONGEST_LABEL = 18  # characters


@dataclass(frozen=True)
class Tick:
    """A mark of an axis: at a share of its length, in per cent, and what it says."""

    at: float
    text: str


@dataclass(frozen=True)
class Line:
    """A series. path: SVG's; dots: (x, y, what it is) of each look"""

    key: str
    name: str
    path: str
    dots: tuple[tuple[float, float, str], ...]


@dataclass(frozen=True)
class Band:
    """A stage: from a share of the width, so wide, in plot units."""

    name: str
    x: float
    width: float


@dataclass(frozen=True)
class LineChart:
    """key: "loss" or "accuracy";  axis: "queries" or "seconds";  best: where the result is, in plot units"""

    key: str
    title: str
    axis: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    bands: tuple[Band, ...]
    lines: tuple[Line, ...]
    best: float | None


@dataclass(frozen=True)
class Cell:
    """A square of the matrix. opacity: by the share of its row"""

    x: int
    y: int
    count: int
    opacity: float
    is_right: bool
    label: str
    answer: str


@dataclass(frozen=True)
class Matrix:
    """cell, size: pixels of a cell and of the whole;  labels: (place, name);  only cells with a count"""

    cell: int
    size: int
    labels: tuple[tuple[int, str], ...]
    cells: tuple[Cell, ...]
    has_counts: bool


@dataclass(frozen=True)
class MemoryBar:
    """Widths in per cent of the largest that is shown."""

    name: str
    planned_mib: float
    measured_mib: float | None
    planned: float
    measured: float


@dataclass(frozen=True)
class MemoryChart:
    """budget: where the budget is, in per cent; None without a limit"""

    bars: tuple[MemoryBar, ...]
    budget: float | None


def line_charts(curve: Curve) -> tuple[LineChart, ...]:
    """Loss and accuracy, by queries and by seconds."""
    return tuple(
        _line_chart(curve, key, title, axis)
        for axis in ("queries", "seconds")
        for key, title in (("loss", "Loss"), ("accuracy", "Accuracy"))
    )


def matrix(confusion: Confusion) -> Matrix:
    n = len(confusion.names)
    smallest, largest = CELL_SIZES
    cell = max(smallest, min(largest, MATRIX_PIXELS // n))
    names = [shortened(name, LONGEST_LABEL) for name in confusion.names]
    cells = []
    for row, counts in enumerate(confusion.counts):
        total = sum(counts)
        for column, count in enumerate(counts):
            if count:
                opacity = FAINTEST + (DEEPEST - FAINTEST) * count / total
                is_right = row == column
                place = column * cell, row * cell
                cells.append(Cell(*place, count, round(opacity, 3), is_right, names[row], names[column]))
    labels = tuple((i * cell + cell // 2, name) for i, name in enumerate(names))
    return Matrix(cell, n * cell, labels, tuple(cells), cell >= LARGE_CELL)


def memory_chart(memory: Memory) -> MemoryChart:
    largest = max(memory.peak_mib, memory.budget_mib or 0.0, memory.peak_rss_mib or 0.0)

    def share(mib: float) -> float:
        return round(100 * mib / largest, 2)

    bars = tuple(
        MemoryBar(
            phase.name,
            phase.planned_mib,
            phase.measured_mib,
            share(phase.planned_mib),
            share(phase.measured_mib or 0.0),
        )
        for phase in memory.phases
    )
    return MemoryChart(bars, None if memory.budget_mib is None else share(memory.budget_mib))


def nice_ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers within low..high, at most so many, at equal distances of 1, 2 or 5 times a power of ten.

    >>> nice_ticks(0.0, 7.2, 5)
    [0.0, 2.0, 4.0, 6.0]
    """
    if high <= low:
        return [low]
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 10) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _line_chart(curve: Curve, key: str, title: str, axis: str) -> LineChart:
    looks = curve.looks
    xs = [float(getattr(look, axis)) for look in looks]
    longest = max(xs[-1], 1e-9)
    names = {"train": "shots", "val": "validation pictures"}
    series = {name: [getattr(look, f"{name}_{key}") for look in looks] for name in names}
    values = [value for each in series.values() for value in each if value is not None]
    low, high = _padded(min(values), max(values), is_share=key == "accuracy")
    text = _percent if key == "accuracy" else _plain

    def x_of(value: float) -> float:
        return round(PLOT_WIDTH * value / longest, 1)

    def y_of(value: float) -> float:
        return round(PLOT_HEIGHT * (high - value) / (high - low), 1)

    def line(name: str) -> Line:
        places = [
            (x_of(x), y_of(value), look.where, value)
            for x, value, look in zip(xs, series[name], looks, strict=True)
            if value is not None
        ]
        path = "M" + "L".join(f"{x:g} {y:g}" for x, y, _, _ in places)
        dots = tuple((x, y, f"{where}: {text(round(value, 4))}") for x, y, where, value in places)
        return Line(name, names[name], path, dots if len(dots) <= MOST_DOTS else ())

    best = next((look for look in looks if look.queries == curve.best_queries), None)
    return LineChart(
        key=key,
        title=title,
        axis=axis,
        x_ticks=tuple(Tick(x_of(v) * 100 / PLOT_WIDTH, _plain(v)) for v in nice_ticks(0.0, longest, 4)),
        y_ticks=tuple(Tick(y_of(v), text(v)) for v in nice_ticks(low, high, 5)),
        bands=_bands(curve, axis, x_of),
        lines=tuple(line(name) for name in names if series[name] != [None] * len(looks)),
        best=None if best is None else x_of(float(getattr(best, axis))),
    )


def _padded(low: float, high: float, is_share: bool) -> tuple[float, float]:
    """A little more than the range of values; shares stay within 0 and 1."""
    pad = 0.06 * (high - low) or max(0.05, 0.1 * abs(high))
    low, high = low - pad, high + pad
    return (max(0.0, low), min(1.0, high)) if is_share else (max(0.0, low), high)


def _bands(curve: Curve, axis: str, x_of: Callable[[float], float]) -> tuple[Band, ...]:
    """Both stages; only stage 1 where there was no other."""
    border = curve.stage2_queries if axis == "queries" else curve.stage2_seconds
    if border is None:
        stages = {look.stage for look in curve.looks}
        return (Band("stage 2" if 2 in stages else "stage 1", 0.0, float(PLOT_WIDTH)),)
    x = min(x_of(float(border)), float(PLOT_WIDTH))
    return Band("stage 1", 0.0, x), Band("stage 2", x, PLOT_WIDTH - x)


def _plain(value: float) -> str:
    return f"{value:,.10g}"


def _percent(value: float) -> str:
    return f"{100 * value:.10g} %"
