"""Statistics of a set of models (one per seed), and their bootstrap intervals.

A set's counts are those of `metrics.counts` with the models along the first axis. A metric of one
model becomes a statistic of the set in one of two ways: its mean over the models (`each`), or its
value for their mean rates (`pooled`), as CEV and SDE are published.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import numpy as np
from scipy import sparse

from fairgrape_jax.metrics.counts import Counts, cells

Metric = Callable[[Counts, Counts], np.ndarray]
# Of tables (S, ..., G, C, 3) of S models and of their dense ones, to (...) or (..., G).
Statistic = Callable[[Counts, Counts], np.ndarray]

CHUNK = 4_000_000  # numbers held at once while resampling
MANY_KINDS = (
    50_000  # kinds of samples above which fewer replicates are drawn, if nobody says how many
)


def each(metric: Metric) -> Statistic:
    """The mean of a metric over the models of a set."""
    return lambda counts, dense: np.mean(metric(counts, dense), axis=0)


def pooled(metric: Metric) -> Statistic:
    """A metric of the models' mean rates: all saw the same samples, so their counts are added."""
    return lambda counts, dense: metric(
        [table.sum(axis=0) for table in counts], [table.sum(axis=0) for table in dense]
    )


def bootstrap(
    statistic: Statistic,
    labels: np.ndarray,
    groups: np.ndarray,
    predictions: np.ndarray,
    dense: np.ndarray,
    classes: Sequence[int],
    num_groups: int,
    *,
    replicates: int | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> np.ndarray:
    """Percentile interval of a statistic; (2, ...) low and high. Arguments as for `replicate`."""
    values = replicate(
        statistic,
        labels,
        groups,
        predictions,
        dense,
        classes,
        num_groups,
        replicates=replicates,
        seed=seed,
    )
    return interval(values, level)


def interval(values: np.ndarray, level: float = 0.95) -> np.ndarray:
    """Percentile interval of the replicates along the first axis; (2, ...) low and high.

    Undefined replicates (NaN) take no part.

    >>> interval(np.arange(101.0), 0.9).round(6).tolist()
    [5.0, 95.0]
    """
    tail = 50 * (1 - level)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)
        return np.nanpercentile(values, [tail, 100 - tail], axis=0)


def replicate(
    statistic: Statistic,
    labels: np.ndarray,
    groups: np.ndarray,
    predictions: np.ndarray,
    dense: np.ndarray,
    classes: Sequence[int],
    num_groups: int,
    *,
    replicates: int | None = None,
    seed: int = 0,
) -> np.ndarray:
    """A statistic of bootstrap replicates, (R, ...).

    labels: (N, T); groups: (N,); predictions, dense: (S, N, T), of the pruned and the unpruned
    models of S seeds on the same samples. Each replicate draws samples with replacement within
    every group, the same draw for both models and all seeds (they saw the same pictures), and
    seeds with replacement. With one seed it is the uncertainty of the test set alone.

    Samples that agree in group, label and all predictions are interchangeable, so whole kinds of
    them are drawn: the same distribution, and a million samples cost what their kinds cost.
    replicates: 1,000 by default, 200 where there are more than MANY_KINDS kinds.
    """
    rng = np.random.default_rng(seed)
    first, number = kinds(labels, groups, predictions, dense)
    labels, groups = labels[first], groups[first]
    scatter = [
        [_scatter(labels[:, t], model[:, t], groups, num_groups, size) for model in models]
        for models in (predictions[:, first], dense[:, first])
        for t, size in enumerate(classes)
    ]
    seeds, tasks = len(predictions), len(classes)
    width = max(len(first), 2 * seeds * num_groups * 3 * sum(classes))
    left = replicates or (1000 if len(first) <= MANY_KINDS else 200)
    values = []
    while left:
        count = min(left, max(1, CHUNK // width))
        left -= count
        weights = np.zeros((len(first), count), np.int64)
        for k in range(num_groups):
            mine = np.flatnonzero(groups == k)
            weights[mine] = _draws(rng, number[mine], count)
        drawn = rng.integers(0, seeds, (seeds, count))
        tables = []
        for row, size in zip(scatter, [*classes, *classes], strict=True):
            found = np.stack([matrix @ weights for matrix in row])  # (S, G C 3, count)
            chosen = np.take_along_axis(found, drawn[:, None, :], axis=0)
            shape = (seeds, count, num_groups, size, 3)
            tables.append(np.moveaxis(chosen, -1, 1).reshape(shape))
        values.append(np.asarray(statistic(tables[:tasks], tables[tasks:])))
    return np.concatenate(values)


def _draws(rng: np.random.Generator, number: np.ndarray, count: int) -> np.ndarray:
    """How often each kind is drawn, (U, count): as many samples as there are, with replacement.

    number: (U,) samples of each kind. One by one where that is less work than kind by kind.
    """
    total = int(number.sum())
    if not total:
        return np.zeros((len(number), count), np.int64)
    if 4 * len(number) < total:
        return rng.multinomial(total, number / total, size=count).T
    kind = np.repeat(np.arange(len(number)), number)
    draws = [kind[rng.integers(0, total, total)] for _ in range(count)]
    return np.stack([np.bincount(drawn, minlength=len(number)) for drawn in draws], axis=1)


def kinds(
    labels: np.ndarray, groups: np.ndarray, predictions: np.ndarray, dense: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The kinds of samples: one sample of each, and how many there are; (U,) both."""
    key = groups.astype(np.int64)
    columns = [
        *labels.T,
        *np.concatenate([predictions, dense]).transpose(0, 2, 1).reshape(-1, len(key)),
    ]
    for column in columns:
        size = int(column.max(initial=0)) + 1
        if (int(key.max(initial=0)) + 1) * size >= 2**62:
            key = np.unique(key, return_inverse=True)[1]
        key = key * size + column
    _, first, number = np.unique(key, return_index=True, return_counts=True)
    return first, number


def _scatter(
    labels: np.ndarray, predictions: np.ndarray, groups: np.ndarray, num_groups: int, size: int
) -> sparse.csr_array:
    """The matrix (G C 3, U) that turns how often each kind was drawn into counts."""
    places, kind = cells(labels, predictions, groups, size)
    shape = (num_groups * size * 3, len(labels))
    return sparse.csr_array((np.ones(len(places), np.int64), (places, kind)), shape=shape)
