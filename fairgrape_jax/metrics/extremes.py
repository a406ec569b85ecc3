"""The largest difference, the smallest ratio and the lowest of several numbers, with intervals.

What is picked for being extreme is not surely so: its interval is one that holds for all pairs (or
all numbers) together, from bootstrap replicates in which the numbers were resampled at once.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from fairgrape_jax.metrics.resample import interval

Measure = Literal["difference", "ratio"]


class Extreme(NamedTuple):
    """Two of several numbers, and how far apart they are.

    Attributes:
        value: the larger minus the smaller, or 100 times the smaller over the larger; NaN where
            fewer than two numbers are known.
        low: the lower end of the interval.
        high: the upper end.
        largest: the place of the larger.
        smallest: the place of the smaller; -1 both where there are none.
        row: where it is, of several rows of numbers.
    """

    value: float
    low: float
    high: float
    largest: int
    smallest: int
    row: int


def between(
    values: np.ndarray, draws: np.ndarray, measure: Measure = "difference", level: float = 0.95
) -> Extreme:
    """The largest difference of two numbers in a row, or the smallest ratio, over all rows.

    One pair has the percentile interval of its replicates. Of more, the interval is the value plus
    and minus its standard error times one factor, the quantile over replicates of the largest
    standardised deviation of any pair of any row: simultaneous for all that could have been picked.

    Args:
        values: (M, K), rows of numbers that are compared with each other; NaN takes no part.
        draws: (R, M, K), bootstrap replicates.
        measure: "difference" or "ratio".
        level: of the interval.

    Example:
        >>> draws = np.array([[[60.0, 80.0]], [[64.0, 80.0]], [[62.0, 80.0]]])
        >>> between(np.array([[62.0, 80.0]]), draws, level=1.0)[:3]
        (18.0, 16.0, 20.0)
    """
    picked, error, pairs = Extreme(np.nan, np.nan, np.nan, -1, -1, -1), 0.0, 0
    replicates, deviation = np.empty(0), np.zeros(len(draws))
    for row, numbers in enumerate(values):
        known = np.flatnonzero(~np.isnan(numbers))
        order = known[np.argsort(numbers[known], kind="stable")]
        if len(order) < 2:
            continue
        small, large = int(order[0]), int(order[-1])
        value = float(_apart(numbers[small], numbers[large], measure))
        here = draws[:, row, order]
        for i in range(len(order) - 1):
            apart = _apart(here[:, i, None], here[:, i + 1 :], measure)
            errors = standard_error(apart)
            deviation = np.fmax(deviation, largest_deviation(apart, errors))
            pairs += len(errors)
            if i == 0 and _further(value, picked.value, measure):
                picked = Extreme(value, np.nan, np.nan, large, small, row)
                replicates = apart[:, -1]
                error = np.nan if np.isnan(replicates).all() else errors[-1]
    if not pairs or np.isnan(picked.value):
        return picked
    if pairs == 1:
        low, high = interval(replicates, level)
    else:
        reach = np.quantile(deviation, level) * error
        low, high = picked.value - reach, picked.value + reach
        low = max(low, 0.0) if measure == "ratio" else low
    return picked._replace(low=float(low), high=float(high))


def lowest(values: np.ndarray, draws: np.ndarray, level: float = 0.95) -> tuple[int, float, float]:
    """The place of the lowest number, and the ends of an interval that holds for all together.

    Args:
        values: (K,); NaN takes no part.
        draws: (R, K), bootstrap replicates.
        level: of the interval.
    """
    known = np.flatnonzero(~np.isnan(values))
    place = int(known[np.argmin(values[known])])
    if len(known) == 1:
        low, high = interval(draws[:, place], level)
        return place, float(low), float(high)
    error = standard_error(draws[:, known])
    factor = np.quantile(largest_deviation(draws[:, known], error), level)
    reach = factor * error[np.flatnonzero(known == place)[0]]
    return place, float(values[place] - reach), float(values[place] + reach)


def standard_error(draws: np.ndarray) -> np.ndarray:
    """The standard error of each column; 0 where it is known in fewer than two replicates.

    Args:
        draws: (R, ...), bootstrap replicates.
    """
    known = ~np.isnan(draws)
    count = np.maximum(known.sum(axis=0), 2)
    mean = np.where(known, draws, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    return np.sqrt(np.square(np.where(known, draws - mean, 0)).sum(axis=0) / (count - 1))


def largest_deviation(draws: np.ndarray, error: np.ndarray) -> np.ndarray:
    """The largest standardised deviation from the mean in each replicate, (R,).

    Args:
        draws: (R, K), bootstrap replicates.
        error: (K,), their standard errors.
    """
    known = ~np.isnan(draws)
    mean = np.where(known, draws, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    scaled = np.abs(np.where(known, draws - mean, 0)) / np.where(error > 0, error, np.inf)
    return scaled.max(axis=1)


def _apart(small: np.ndarray, large: np.ndarray, measure: Measure) -> np.ndarray:
    if measure == "difference":
        return large - small
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = 100 * np.divide(small, large)
    return np.where(np.isinf(ratio), np.nan, ratio)


def _further(value: float, other: float, measure: Measure) -> bool:
    if np.isnan(other):
        return not np.isnan(value)
    return value > other if measure == "difference" else value < other
