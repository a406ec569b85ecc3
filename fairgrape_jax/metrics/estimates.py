"""Numbers with their intervals, and what between groups is made of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

Name: TypeAlias = str | int | float | bool  # of a class or a group, as its column has it


class Estimate(NamedTuple):
    """A value and its bootstrap interval.

    Attributes:
        value: percent, or percentage points for differences; NaN where undefined.
        low: the lower end of the interval.
        high: the upper end.
    """

    value: float
    low: float
    high: float


class Spread(NamedTuple):
    """How far apart two groups are, and which, with an interval that is corrected for the choice.

    Attributes:
        value: points, or percent for a ratio; NaN where fewer than two groups have the rate.
        low: the lower end of the interval, which holds for all pairs of groups together.
        high: the upper end.
        largest: the group with the highest rate; None where there is none.
        smallest: the group with the lowest.
    """

    value: float
    low: float
    high: float
    largest: Name | None
    smallest: Name | None


class Worst(NamedTuple):
    """The group that fares worst.

    Attributes:
        group: its name.
        value: its accuracy, percent.
        low: the lower end of its interval, which holds for all groups together.
        high: the upper end.
    """

    group: Name
    value: float
    low: float
    high: float


def interval_text(estimate: Sequence[float]) -> str:
    """A value in per cent with its interval.

    Args:
        estimate: value, low, high.

    Example:
        >>> interval_text((90.0, 85.04, 94.0))
        '90.0 % [85.0, 94.0]'
    """
    value, low, high = estimate
    return f"{value:.1f} % [{low:.1f}, {high:.1f}]"
