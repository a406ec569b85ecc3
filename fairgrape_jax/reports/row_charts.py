"""Charts of rows, a name each: differences, numbers with intervals, confusion matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fairgrape_jax.escape import visible
from fairgrape_jax.reports.charts import NAN, ROW, Interval, legend_name, room_for, short
from fairgrape_jax.reports.drawing import INK, LINE, PAPER, SMALL, SOFT, Chart, color

if TYPE_CHECKING:
    from matplotlib.axes import Axes

POINTS = "osD^"


def forest(label: str, rows: Sequence[str], values: Sequence[Interval], unit: str) -> Chart:
    """Differences with their intervals beside a line at zero, a row each.

    Args:
        label: what is shown.
        rows: names of the differences, from above.
        values: one of each row.
        unit: below the axis.
    """

    def draw(axes: Axes) -> None:
        axes.axvline(0, color=INK, linewidth=1)
        for y, one in enumerate(values):
            clear = one.low > 0 or one.high < 0
            shade = color(0) if clear else SOFT
            axes.plot([one.low, one.high], [y, y], color=shade, linewidth=2)
            face = shade if clear else PAPER
            axes.plot(one.value, y, "o", color=shade, markerfacecolor=face, markersize=6)
        axes.set_yticks(range(len(rows)), [short(name, 24) for name in rows], fontsize=8.5)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        axes.locator_params(axis="x", nbins=6)
        axes.set_xlabel(visible(unit))

    return Chart(label, 0.3 * len(rows) + 0.1, draw, left=room_for(rows, 24), width=SMALL)


def points_by_row(
    label: str, rows: Sequence[str], series: Sequence[str], values: np.ndarray, unit: str
) -> Chart:
    """A point of each series in every row, on a logarithmic axis.

    Args:
        label: what is shown.
        rows: from above.
        series: what is compared within a row.
        values: (series, rows), percent; none of 0 is drawn.
        unit: below the axis.
    """

    def draw(axes: Axes) -> None:
        from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

        positive = np.where(values > 0, values, NAN)
        for number, name in enumerate(series):
            axes.plot(
                positive[number],
                np.arange(len(rows)) + 0.22 * (number - (len(series) - 1) / 2) / len(series),
                POINTS[number % len(POINTS)],
                color=color(number),
                markersize=5,
                label=legend_name(name),
            )
        axes.set_xscale("log")
        known = positive[np.isfinite(positive)]
        low = min(known.min() / 1.4, 50.0) if len(known) else 1.0
        axes.set(xlim=(low, 130), ylim=(len(rows) - 0.4, -0.6))
        ticks = (1.0,) if low < 0.5 else (1.0, 2.0, 5.0)
        axes.xaxis.set_major_locator(LogLocator(10, subs=ticks))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_yticks(range(len(rows)), [short(name, 24) for name in rows], fontsize=8.5)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel(visible(unit))

    return Chart(label, ROW * len(rows) + 0.1, draw, room_for(rows, 24), len(series))


def interval_rows(
    label: str,
    rows: Sequence[str],
    series: Sequence[str],
    values: Sequence[Sequence[Interval]],
    *,
    unit: str,
    levels: Sequence[float] = (),
) -> Chart:
    """A point with its interval of each series in every row, on a range of their own.

    Args:
        label: what is shown.
        rows: from above.
        series: what is compared within a row.
        values: of each series, then row.
        unit: below the axis.
        levels: what each row is compared with, a dash across it.
    """
    room = 0.1 + 0.14 * len(series)

    def draw(axes: Axes) -> None:
        for y, level in enumerate(levels):
            axes.plot([level] * 2, [y - 0.45, y + 0.45], "--", color=SOFT, lw=1)
        for number, name in enumerate(series):
            shade, across = color(number), (number - (len(series) - 1) / 2) * 0.14 / room
            for y, one in enumerate(values[number]):
                axes.plot([one.low, one.high], [y + across] * 2, color=shade, lw=1.2)
            axes.plot(
                [one.value for one in values[number]],
                np.arange(len(rows)) + across,
                POINTS[number % len(POINTS)],
                color=shade,
                markersize=4.5,
                label=legend_name(name),
            )
        axes.set_yticks(range(len(rows)), [short(name, 24) for name in rows], fontsize=8.5)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        for y in range(1, len(rows)):
            axes.axhline(y - 0.5, color=LINE, linewidth=0.6)
        axes.locator_params(axis="x", nbins=6)
        axes.set_xlabel(visible(unit))

    series_and_level = len(series) + bool(len(levels))
    return Chart(label, room * len(rows), draw, room_for(rows, 24), series_and_level)


def confusion(label: str, classes: Sequence[str], counts: np.ndarray) -> Chart:
    """Who is taken for whom: a row for each true class, in percent of its samples.

    Args:
        label: what is shown.
        classes: their names.
        counts: (C, C) samples by true class and by prediction.
    """
    total = counts.sum(axis=1, keepdims=True)
    part = np.divide(counts, total, out=np.zeros(counts.shape), where=total > 0)
    size = len(classes)

    def draw(axes: Axes) -> None:
        from matplotlib.patches import Rectangle

        for row in range(size):
            for column in range(size):
                shade = color(0) if row == column else color(1)
                place = (column - 0.5, row - 0.5)
                alpha = round(0.65 * float(part[row, column]), 3)
                axes.add_patch(Rectangle(place, 1, 1, facecolor=shade, alpha=alpha, linewidth=0))
                if part[row, column] >= 0.005:
                    text = f"{100 * part[row, column]:.0f}"
                    axes.text(column, row, text, ha="center", va="center", fontsize=8)
        names = [short(name, 10) for name in classes]
        axes.set_xticks(range(size), names, fontsize=8, rotation=90 if size > 4 else 0)
        axes.set_yticks(range(size), names, fontsize=8)
        axes.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5))
        axes.tick_params(length=0)
        axes.grid(visible=False)

    below = max(0.0, room_for(classes, 10) - 0.5) if size > 4 else 0.0
    return Chart(
        label, max(0.9, 0.26 * size), draw, room_for(classes, 10), width=SMALL, below=below
    )
