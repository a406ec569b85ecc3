"""Numbers with as many digits as their intervals support."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from fairgrape_jax.reports.charts import Interval


def decimals(intervals: Iterable[Interval]) -> int:
    """How many decimals numbers that stand together have: the last is a fifth of the uncertainty.

    Args:
        intervals: the numbers with their intervals; of several half-widths the median counts.

    Returns:
        0, 1 or 2; 2 where no interval has a width: such numbers are exact.

    Example:
        >>> [decimals([Interval(50.0, 50 - h, 50 + h)]) for h in (12.0, 2.4, 0.3)]
        [0, 1, 2]
    """
    widths = [(one.high - one.low) / 2 for one in intervals if one.high > one.low]
    if not widths:
        return 2
    width = float(np.median(widths))
    return 0 if width >= 5 else 1 if width >= 0.5 else 2


def number(value: float, places: int, *, sign: bool = False) -> str:
    """A number with so many decimals, n/a where it is not defined; never minus zero.

    Args:
        value: percent or points.
        places: decimals.
        sign: whether a positive number has one.

    Example:
        >>> number(1234.56, 1), number(-0.04, 1, sign=True), number(float("nan"), 1)
        ('1,234.6', '+0.0', 'n/a')
    """
    if not np.isfinite(value):
        return "n/a"
    return f"{round(value, places) + 0.0:{'+' if sign else ''},.{places}f}"


def bracket(one: Interval, places: int, *, sign: bool = False) -> str:
    """The interval alone.

    Args:
        one: a number with its interval.
        places: decimals.
        sign: whether positive numbers have one.

    Example:
        >>> bracket(Interval(3.4, 1.12, 5.9), 1)
        '[1.1, 5.9]'
    """
    return f"[{number(one.low, places, sign=sign)}, {number(one.high, places, sign=sign)}]"


def with_interval(one: Interval, places: int | None = None, *, sign: bool = False) -> str:
    """A number with its interval.

    Args:
        one: both.
        places: decimals; those that the interval supports by default.
        sign: whether positive numbers have one.

    Example:
        >>> with_interval(Interval(3.4, 1.12, 5.9)), with_interval(Interval(float("nan")))
        ('3.4 [1.1, 5.9]', 'n/a')
    """
    if not np.isfinite(one.value):
        return "n/a"
    places = decimals([one]) if places is None else places
    return f"{number(one.value, places, sign=sign)} {bracket(one, places, sign=sign)}"
