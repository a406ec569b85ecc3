"""Is one number larger than another? From the paired bootstrap of their difference, never by eye.

Two intervals that overlap do not say that two numbers are equal, nor is the largest of many numbers
surely larger than the smallest because it was picked for being so. So a difference is resampled as
one number (the same samples for both), and where two of more than two were picked, its interval is
one that holds for all pairs together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from fairgrape_jax import metrics
from fairgrape_jax.metrics.extremes import largest_deviation, standard_error
from fairgrape_jax.metrics.samples import Samples
from fairgrape_jax.reports.charts import Interval
from fairgrape_jax.reports.comparison import statistic_of
from fairgrape_jax.reports.precision import with_interval

LEVEL = 0.95
MANY = 200  # numbers above which pairs are not gone through one by one


@dataclasses.dataclass(frozen=True)
class Difference:
    """How much larger one of several numbers is than another.

    Attributes:
        high: the place of the larger.
        low: the place of the smaller.
        value: the number at `high` minus that at `low`.
        interval: of that difference, 95 %.
        among: of how many numbers the two were picked.
    """

    high: int
    low: int
    value: float
    interval: tuple[float, float]
    among: int

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out zero; one without width knows of no uncertainty."""
        low, high = self.interval
        return low < high and (low > 0 or high < 0)

    def text(self) -> str:
        """The difference and its interval, with the digits that this supports.

        Returns:
            VALUE [LOW, HIGH], and whether it was corrected for picking two of many.

        Example:
            >>> Difference(0, 1, 27.0, (6.0, 47.4), 2).text()
            '27 [6, 47]'
            >>> Difference(0, 1, 2.0, (-1, 5.0), 7).text()
            '2.0 [-1.0, 5.0], corrected for picking two of 7'
        """
        text = with_interval(Interval(self.value, *self.interval))
        return text if self.among <= 2 else f"{text}, corrected for picking two of {self.among}"


def extremes(values: np.ndarray, draws: np.ndarray) -> Difference | None:
    """The largest number minus the smallest.

    Args:
        values: (K,); those that are NaN take no part.
        draws: (R, K), bootstrap replicates of them, a row from one resampling of the samples.

    Returns:
        None if fewer than two numbers are known, or all are equal.
    """
    known = np.flatnonzero(~np.isnan(values))
    if len(known) < 2:
        return None
    high, low = known[np.argmax(values[known])], known[np.argmin(values[known])]
    if values[high] == values[low]:
        return None
    reach = pairs(values[known], draws[:, known])
    i, j = (int(np.searchsorted(known, place)) for place in (high, low))
    bounds = float(reach[0, i, j]), float(reach[1, i, j])
    return Difference(int(high), int(low), float(values[high] - values[low]), bounds, len(known))


def pairs(values: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Intervals of all differences values[i] - values[j].

    Two numbers have the percentile interval of their difference. More have simultaneous ones: each
    difference plus and minus its standard error times one factor, the 95 % quantile over replicates
    of the largest standardised deviation of any pair. With more than MANY numbers the factor is
    that of the numbers themselves, which is wider.

    Args:
        values: (K,) numbers.
        draws: (R, K), bootstrap replicates of them.

    Returns:
        (2, K, K) low and high.
    """
    count = values.shape[0]
    value = values[:, None] - values[None, :]
    if count == 2:
        low, high = metrics.interval(draws[:, 0] - draws[:, 1], LEVEL)
        return np.array([[[0.0, low], [-high, 0.0]], [[0.0, high], [-low, 0.0]]])
    if count > MANY:
        error = standard_error(draws)
        reach = _factor(draws, error) * (error[:, None] + error[None, :])
        return np.stack([value - reach, value + reach])
    error = np.zeros((count, count))
    largest = np.zeros(len(draws))
    for i in range(count - 1):
        differences = draws[:, i, None] - draws[:, i + 1 :]
        error[i, i + 1 :] = standard_error(differences)
        largest = np.fmax(largest, largest_deviation(differences, error[i, i + 1 :]))
    reach = np.quantile(largest, LEVEL) * (error + error.T)
    return np.stack([value - reach, value + reach])


def _factor(draws: np.ndarray, error: np.ndarray) -> float:
    return float(np.quantile(largest_deviation(draws, error), LEVEL))


@dataclasses.dataclass(frozen=True)
class Models:
    """Measures of several sets of models on the same samples.

    Attributes:
        measures: what they are called, K of them; the last is a spread.
        values: (M, K).
        draws: (R, M, K), bootstrap replicates.
    """

    measures: tuple[str, ...]
    values: np.ndarray
    draws: np.ndarray

    def difference(self, row: int, base: int, measure: int) -> Difference:
        """A set minus another one, with an interval that holds for all pairs together.

        Args:
            row: the place of the set.
            base: that of the other.
            measure: the place of what is compared.
        """
        values, draws = self.values[:, measure], self.draws[:, :, measure]
        low, high = pairs(values, draws)[:, row, base]
        value = float(values[row] - values[base])
        return Difference(row, base, value, (float(low), float(high)), len(values))


def compare_models(
    correct: np.ndarray,
    dense: np.ndarray | None,
    groups: np.ndarray,
    num_groups: int,
    *,
    replicates: int | None = None,
) -> Models:
    """Accuracy, worst group and rho(Delta) of sets of models, resampled together.

    Args:
        correct: (M, S, N, T) bool, who of M sets of S models is right about which sample.
        dense: (M, S, N, T) bool, of their dense models; (S, N, T) where they are the same; without
            them the spread is rho(A).
        groups: (N,) int, -1 for a sample of no group.
        num_groups: how many groups there are.
        replicates: of the bootstrap; as for `metrics.replicate`.
    """
    sets, seeds, samples, tasks = correct.shape
    spread = "rho_accuracy" if dense is None else "rho_change"
    base = np.broadcast_to(correct if dense is None else dense, correct.shape)
    base, models = (
        np.moveaxis(each, 0, 2).reshape(seeds, samples, sets * tasks).astype(np.int64)
        for each in (base, correct)
    )
    right = np.ones((samples, sets * tasks), np.int64)
    each = Samples(right, groups, [2] * (sets * tasks), num_groups)

    def statistic(counts: metrics.Counts, unpruned: metrics.Counts) -> np.ndarray:
        rows = []
        for first in range(0, sets * tasks, tasks):
            compressed, base = (part[first : first + tasks] for part in (counts, unpruned))
            each = [
                statistic_of(name, compressed, base, num_groups)
                for name in ("accuracy", "worst_group", spread)
            ]
            rows.append(np.stack(each, axis=-1))
        return np.stack(rows, axis=-2)

    values = statistic(each.tally(models), each.tally(base))
    draws = metrics.replicate(statistic, each, models, base, replicates=replicates)
    titles = ("accuracy", "worst group", "rho(A)" if dense is None else "rho(Delta)")
    return Models(titles, values, draws)


def compare_sets(
    samples: Samples,
    models: Sequence[np.ndarray],
    dense: np.ndarray,
    *,
    replicates: int | None = None,
) -> Models | None:
    """The measures of several sets of models of one task, resampled together.

    Args:
        samples: what all were tested on.
        models: of each set (S, N) int, what its models say.
        dense: (D, N) int, of the dense models, one or S of them; of none the spread is rho(A).
        replicates: of the bootstrap.

    Returns:
        None for a single set, or sets of different numbers of models.
    """
    if len(models) < 2 or len({len(each) for each in models}) > 1:
        return None
    right = np.stack([each[..., None] == samples.labels for each in models])
    base = (
        np.broadcast_to(dense, models[0].shape)[..., None] == samples.labels if len(dense) else None
    )
    return compare_models(right, base, samples.groups, samples.num_groups, replicates=replicates)
