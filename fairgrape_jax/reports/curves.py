"""Curves over weights left: one chart, or a panel for each group over one range of values."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from fairgrape_jax.escape import visible
from fairgrape_jax.reports.charts import legend_name
from fairgrape_jax.reports.drawing import SMALL, SOFT, WIDTH, Chart, color

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKERS = "osD^"
DASHES = ("-", "--", ":")


@dataclasses.dataclass(frozen=True)
class Curve:
    """A series of a chart: x, y and the interval of y, of one length; NaN where there is none.

    Attributes:
        name: of the series.
        x: percent of the weights, or whatever stands across.
        y: the values.
        low: the lower ends of their intervals. Where some are known, only these values are marked.
        high: the upper ends.
        thin: more curves of the same x, drawn thin behind it: the single seeds.
        plain: a level to compare with, not a series: dashed, grey, without points.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    thin: Sequence[Sequence[float]] = ()
    plain: bool = False

    @property
    def marked(self) -> list[int]:
        """The places of the values that have a point."""
        known = [i for i, low in enumerate(self.low) if math.isfinite(low)]
        return known or list(range(len(self.x)))


def lines(
    label: str,
    curves: Sequence[Curve],
    across: str,
    unit: str,
    *,
    zero: bool = True,
    log: bool = True,
    limits: tuple[float, float] | None = None,
    width: float = WIDTH,
    height: float = 2.4,
) -> Chart:
    """Curves with intervals.

    Args:
        label: what is shown.
        curves: of the series, in order.
        across: what x is; on a logarithmic axis x falls to the right, as weights do.
        unit: what y is.
        zero: whether the axis of y holds it. Intervals that leave three times the range of the
            values are cut.
        log: whether the axis of x is logarithmic.
        limits: the range of y, where it is that of other charts too.
        width: inches.
        height: inches of the axes.
    """
    bottom, top = limits or value_range(curves, zero)

    def draw(axes: Axes) -> None:
        for number, curve in enumerate(curves):
            if curve.plain:
                axes.plot(curve.x, curve.y, "--", color=SOFT, lw=1, label=legend_name(curve.name))
                continue
            shade, dashes = color(number), DASHES[number // 8 % 3]
            for each in curve.thin:
                axes.plot(curve.x, each, color=shade, linestyle=dashes, alpha=0.35, linewidth=0.8)
            axes.plot(
                curve.x,
                curve.y,
                color=shade,
                linestyle=dashes,
                linewidth=1.8,
                marker=MARKERS[number % 4],
                markersize=4.5,
                markevery=curve.marked,
                label=legend_name(curve.name),
            )
            step = 1.02**number if log else 1.0  # so that intervals at one place do not cover
            for x, low, high in zip(curve.x, curve.low, curve.high, strict=False):
                if math.isfinite(low) and math.isfinite(high):
                    ends = [max(low, bottom), min(high, top)]
                    axes.plot([x * step] * 2, ends, color=shade, linewidth=1.2)
        if log:
            _weights(axes)
        axes.set(ylim=(bottom, top), xlabel=visible(across), ylabel=visible(unit))

    return Chart(label, height, draw, series=len(curves), width=width)


def panels(
    curves_by_label: Mapping[str, Sequence[Curve]], across: str, unit: str, *, zero: bool = False
) -> list[Chart]:
    """A small chart for each label, all over one range of values, so that they can be compared.

    Args:
        curves_by_label: of each panel; its series are those of the others, in their order.
        across: what x is.
        unit: what y is.
        zero: whether the axis of y holds it.

    Returns:
        The charts.
    """
    limits = value_range([curve for curves in curves_by_label.values() for curve in curves], zero)
    return [
        lines(label, curves, across, unit, zero=zero, limits=limits, width=SMALL, height=1.75)
        for label, curves in curves_by_label.items()
    ]


def value_range(curves: Sequence[Curve], zero: bool) -> tuple[float, float]:
    """The range of y: all values, and as much of their intervals as three times theirs.

    Args:
        curves: of one chart, or of several that share their range.
        zero: whether it holds zero.

    Returns:
        The lowest and the highest value of the axis.
    """
    values = [y for c in curves for each in (c.y, *c.thin) for y in each if math.isfinite(y)]
    values += [0.0] * (zero or not values)
    low, high = min(values), max(values)
    room = high - low
    ends = [e for c in curves for each in (c.low, c.high) for e in each if math.isfinite(e)]
    ends = [min(max(end, low - room), high + room) for end in ends]
    low, high = min([low, *ends]), max([high, *ends])
    margin = 0.05 * (high - low) or 1.0
    return (low if zero and low == 0 else low - margin), high + margin


def _weights(axes: Axes) -> None:
    """A logarithmic axis of weights left in percent, the dense network at its left."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.invert_xaxis()
    axes.xaxis.set_major_locator(LogLocator(10, subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
