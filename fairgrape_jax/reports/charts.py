"""The charts of reports: bars with intervals, shares, the plane of error rates.

Each is a function that gives a `Chart`. Series are known by their labels too, never by colour
alone.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fairgrape_jax.escape import visible
from fairgrape_jax.reports.drawing import INK, PAPER, SOFT, Chart, color

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.transforms import Transform

ROW = 0.22  # inches of a bar and its name
NAN = float("nan")
TITLED = 200  # points that say their name under a pointer
NAMED = 10  # points of a plane that have their name beside them


@dataclasses.dataclass(frozen=True)
class Interval:
    """A value and the interval around it, NaN where there is none."""

    value: float
    low: float = NAN
    high: float = NAN


def bars(
    label: str,
    groups: Sequence[str],
    series: Sequence[str],
    values: Sequence[Sequence[Interval]],
    unit: str,
    *,
    zero: bool = True,
    colors: Sequence[int] = (),
    dots: Sequence[Sequence[Sequence[float]]] = (),
) -> Chart:
    """Horizontal bars with intervals: for each group one of each series.

    Args:
        label: what is shown.
        groups: a block of bars for each.
        series: a bar of each in a block.
        values: of each series, then group.
        unit: below the axis.
        zero: whether bars begin at zero; else only the value and its interval are drawn, on a range
            of their own.
        colors: of the series.
        dots: of each series, then group: the single models.
    """
    block = len(series) + 1.2

    def draw(axes: Axes) -> None:
        ticks, names = [], []
        for g, group in enumerate(groups):
            axes.text(0.0, g * block - 0.1, short(group, 50), transform=_rows(axes), va="center")
            for s, name in enumerate(series):
                y = g * block + s + 0.8
                one = values[s][g]
                shade = color(colors[s] if colors else s)
                ticks.append(y)
                names.append(short(name, 17))
                if not math.isfinite(one.value):
                    axes.text(0.02, y, "n/a", transform=_rows(axes), va="center", color=SOFT)
                    continue
                if zero:
                    axes.barh(y, one.value, 0.7, color=shade)
                else:
                    axes.plot(one.value, y, "o", color=shade, markersize=6)
                for value in dots[s][g] if dots else ():
                    axes.plot(value, y, "o", color=INK, markersize=2)
                _whisker(axes, one, y)
        axes.set_yticks(ticks, names, fontsize=8.5)
        axes.set_ylim(len(groups) * block - 0.3, -0.7)
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        if zero:
            axes.axvline(0, color=SOFT, linewidth=0.8)
        elif not any(math.isfinite(x) for x in _finite(values)):
            axes.set_xlim(0, 1)
        axes.locator_params(axis="x", nbins=5)
        axes.set_xlabel(visible(unit))

    return Chart(label, ROW * block * len(groups), draw, left=room_for(series, 17))


def _finite(values: Sequence[Sequence[Interval]]) -> list[float]:
    return [one.value for each in values for one in each if math.isfinite(one.value)]


def _rows(axes: Axes) -> Transform:
    """Across in parts of the axes, upwards in rows."""
    return axes.get_yaxis_transform()


def _whisker(axes: Axes, one: Interval, y: float) -> None:
    if math.isfinite(one.low) and math.isfinite(one.high):
        axes.plot([one.low, one.high], [y, y], color=INK, linewidth=1.2, marker="|", markersize=5)


def plane(label: str, names: Sequence[str], points: np.ndarray) -> Chart:
    """Changes of FPR and FNR, the line where both are alike (SDE), the ellipse of spread (CEV).

    Args:
        label: what is points_known.
        names: of the points.
        points: (n, 2) percent, FPR and FNR; rows of NaN are left out. The ellipse has its half axes
            at one standard deviation along the principal axes: the sum of their squares is twice
            the CEV.
    """
    known = ~np.isnan(points).any(axis=1)
    points_known, labels = points[known], [name for name, k in zip(names, known, strict=True) if k]
    if not len(points_known):
        return Chart(label, 0.3, _nothing)
    centre = points_known.mean(axis=0)
    ring = _ellipse(points_known)
    everything = np.concatenate([points_known, ring, [[0.0, 0.0]]])
    low, high = everything.min(), everything.max()
    room = 0.05 * (high - low) or 1.0
    titles = {
        f"point{i}": f"{word}: FPR {a:+.1f} %, FNR {b:+.1f} %"
        for i, (word, (a, b)) in enumerate(zip(labels, points_known, strict=True))
        if len(labels) <= TITLED
    }

    def draw(axes: Axes) -> None:
        axes.plot([low - room, high + room], [low - room, high + room], "--", color=SOFT, lw=1)
        axes.plot(*ring.T, color=color(1), linewidth=1.8)
        axes.axhline(0, color=SOFT, linewidth=0.8)
        axes.axvline(0, color=SOFT, linewidth=0.8)
        if titles:
            for i, (a, b) in enumerate(points_known):
                axes.plot(a, b, "o", color=color(0), markersize=5, gid=f"point{i}")
        else:
            axes.plot(*points_known.T, "o", color=color(0), markersize=4)
        named: list[np.ndarray] = []
        near = np.array([0.11, 0.045]) * (high - low + 2 * room)
        for i in np.argsort(-np.linalg.norm(points_known - centre, axis=1)):  # the farthest first
            if len(named) < NAMED and all(
                (np.abs(points_known[i] - p) > near).any() for p in named
            ):
                named.append(points_known[i])
                left = points_known[i, 0] > low + 0.7 * (high - low)
                axes.annotate(
                    short(labels[i], 16),
                    points_known[i],
                    xytext=(-5 if left else 5, 4),
                    textcoords="offset points",
                    ha="right" if left else "left",
                    fontsize=9,
                )
        axes.set(xlim=(low - room, high + room), ylim=(low - room, high + room))
        axes.set(xlabel="change of FPR (%)", ylabel="change of FNR (%)")
        axes.locator_params(nbins=6)

    return Chart(label, 3.8, draw, left=0.85, titles=titles)


def _ellipse(points: np.ndarray) -> np.ndarray:
    """A ring about the centre at one standard deviation along the principal axes, (73, 2)."""
    if len(points) < 2:
        return np.repeat(points, 2, axis=0)
    sizes, axes = np.linalg.eigh(np.cov(points.T, bias=True))
    turn = np.linspace(0, 2 * np.pi, 73)
    circle = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    return points.mean(axis=0) + circle @ (axes * np.sqrt(np.maximum(sizes, 0))).T


def _nothing(axes: Axes) -> None:
    axes.set_axis_off()
    axes.text(0.02, 0.5, "no class with a base rate to compare with", va="center")


def shares(label: str, rows: Sequence[str], parts: Sequence[str], values: np.ndarray) -> Chart:
    """A full bar per row, cut into parts.

    Args:
        label: what is shown.
        rows: names of the bars, from above.
        parts: names of the parts, from the left.
        values: (rows, parts); each row sums to one.
    """
    values = np.nan_to_num(values)
    titles = {
        f"part{r}_{p}": f"{rows[r]}, {parts[p]}: {100 * values[r, p]:.1f} %"
        for r in range(len(rows))
        for p in range(len(parts))
        if len(rows) * len(parts) <= 2 * TITLED
    }

    def draw(axes: Axes) -> None:
        start = np.zeros(len(rows))
        for p, name in enumerate(parts):
            patches = axes.barh(
                np.arange(len(rows)),
                100 * values[:, p],
                0.8,
                left=100 * start,
                color=color(p),
                edgecolor=PAPER,
                linewidth=0.8,
                label=legend_name(name + (" (in this order from the left)" if p == 0 else "")),
            )
            for r, patch in enumerate(patches):
                patch.set_gid(f"part{r}_{p}")
            start += values[:, p]
        axes.set_yticks(np.arange(len(rows)), [short(name, 24) for name in rows], fontsize=8.5)
        axes.set(xlim=(0, 100), ylim=(len(rows) - 0.4, -0.6), xticks=(0, 50, 100))
        axes.set_xlabel("share of importance (%)")
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")

    return Chart(label, ROW * len(rows), draw, room_for(rows, 24), len(parts), titles)


def room_for(names: Sequence[str], most: int) -> float:
    """Inches to the left of the axes for the longest of some names.

    Args:
        names: of rows.
        most: letters that are shown of each.
    """
    return 0.2 + 0.075 * max((min(len(visible(name)), most) for name in names), default=0)


def short(name: str, most: int) -> str:
    """At most so many letters of a name, all of them visible.

    Args:
        name: anything.
        most: how many.

    Example:
        >>> short("importance", 6)
        'impor…'
    """
    name = visible(name)
    return name if len(name) <= most else name[: most - 1] + "…"


def legend_name(name: str) -> str:
    """A name in a legend, which would leave out what begins with an underscore.

    Args:
        name: of a series.
    """
    name = short(name, 44)
    return f" {name}" if name.startswith("_") else name
