"""Statistics of a set of models (one per seed), and their bootstrap intervals.

A set's counts are those of `metrics.counts` with the models along the first axis. A metric of one
model becomes a statistic of the set in one of two ways: its mean over the models (`each`), or its
value for their mean rates (`pooled`), as CEV and SDE are published.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Int64, Integer
from scipy import sparse

from fairgrape_jax.metrics.counts import Codes, Counts, TaskCodes, count_places
from fairgrape_jax.metrics.samples import Samples

Metric = Callable[[Counts, Counts], np.ndarray]
# Of tables (S, ..., G, C, 3) of S models and of their dense ones, to (...) or (..., G).
Statistic = Callable[[Counts, Counts], np.ndarray]
# What S models predict for the same samples.
ModelPredictions = Integer[np.ndarray, "model sample task"]

CHUNK = 4_000_000  # numbers held at once while resampling
MANY_KINDS = 50_000  # kinds of samples above which fewer replicates are drawn by default


def each(metric: Metric) -> Statistic:
    """The mean of a metric over the models of a set.

    Args:
        metric: of one model.

    Returns:
        A statistic of several, along the first axis of their counts.
    """
    return lambda counts, dense: np.mean(metric(counts, dense), axis=0)


def pooled(metric: Metric) -> Statistic:
    """A metric of the models' mean rates: all saw the same samples, so their counts are added.

    Args:
        metric: of one model.

    Returns:
        A statistic of several, along the first axis of their counts.
    """
    return lambda counts, dense: metric(
        [table.sum(axis=0) for table in counts], [table.sum(axis=0) for table in dense]
    )


def interval(
    values: Float[np.ndarray, "replicate ..."], level: float = 0.95
) -> Float[np.ndarray, "2 ..."]:
    """Percentile interval of bootstrap replicates.

    Args:
        values: (R, ...) replicates along the first axis; undefined ones (NaN) take no part.
        level: the share of the replicates inside, between 0 and 1.

    Returns:
        (2, ...) low and high.

    Example:
        >>> interval(np.arange(101.0), 0.9).round(6).tolist()
        [5.0, 95.0]
    """
    tail = 50 * (1 - level)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)
        return np.nanpercentile(values, [tail, 100 - tail], axis=0)


def replicate(
    statistic: Statistic,
    samples: Samples,
    predictions: ModelPredictions,
    dense: ModelPredictions,
    *,
    replicates: int | None = None,
    seed: int = 0,
) -> Float[np.ndarray, "replicate ..."]:
    """Bootstrap replicates of a statistic.

    Each replicate draws samples with replacement within every group, the same draw for both models
    and all seeds (they saw the same pictures), and seeds with replacement. With one seed it is the
    uncertainty of the test set alone.

    Samples that agree in group, label and all predictions are interchangeable, so whole kinds of
    them are drawn: the same distribution, and a million samples cost what their kinds cost.

    Args:
        statistic: of the counts of a set of models and of those of their dense ones.
        samples: what all models predict; samples of no group are drawn as one more group.
        predictions: (S, N, T) int, of the compressed models of S seeds.
        dense: (S, N, T) int, of the dense model of each.
        replicates: how many, R; 1,000 by default, 200 where there are more than MANY_KINDS kinds.
        seed: of the draws.

    Returns:
        (R, ...).

    Raises:
        ValueError: a label or a prediction that is none of the classes.

    Example:
        >>> samples = Samples(np.array([[0], [0], [1], [1]]), np.zeros(4, int), [2], 1)
        >>> perfect = samples.labels[None]
        >>> share_right = lambda counts, dense: np.mean(counts[0][..., 0].sum(axis=(-2, -1)) / 4, 0)
        >>> replicate(share_right, samples, perfect, perfect, replicates=3)
        array([1., 1., 1.])
    """
    rng = np.random.default_rng(seed)
    groups, num_groups = samples.strata
    first, sizes = kinds(samples.labels, groups, predictions, dense)
    of_kinds = dataclasses.replace(samples, labels=samples.labels[first], groups=groups[first])
    tallies = _tally_matrices(of_kinds, num_groups, [predictions[:, first], dense[:, first]])
    seeds, tasks = len(predictions), len(samples.classes)
    width = max(len(first), 2 * seeds * num_groups * 3 * sum(samples.classes))
    left = replicates or (1000 if len(first) <= MANY_KINDS else 200)
    values = []
    while left:
        count = min(left, max(1, CHUNK // width))
        left -= count
        weights = np.zeros((len(first), count), np.int64)
        for k in range(num_groups):
            members = np.flatnonzero(of_kinds.groups == k)
            weights[members] = _draws(rng, sizes[members], count)
        chosen_seeds = rng.integers(0, seeds, (seeds, count))
        tables = []
        for matrices, size in zip(tallies, [*samples.classes] * 2, strict=True):
            by_seed = np.stack([matrix @ weights for matrix in matrices])  # (S, G C 3, count)
            resampled = np.take_along_axis(by_seed, chosen_seeds[:, None, :], axis=0)
            shape = (seeds, count, num_groups, size, 3)
            tables.append(np.moveaxis(resampled, -1, 1).reshape(shape))
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
    return np.stack([np.bincount(draw, minlength=len(number)) for draw in draws], axis=1)


def kinds(
    labels: TaskCodes, groups: Codes, predictions: ModelPredictions, dense: ModelPredictions
) -> tuple[Int64[np.ndarray, " kind"], Int64[np.ndarray, " kind"]]:
    """The kinds of samples: those of a kind agree in group, labels and all predictions.

    Args:
        labels: (N, T) int.
        groups: (N,) int.
        predictions: (S, N, T) int.
        dense: (S, N, T) int.

    Returns:
        One sample of each kind, and how many there are; (U,) both.
    """
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


def _tally_matrices(
    samples: Samples, num_groups: int, sets: Sequence[np.ndarray]
) -> list[list[sparse.csr_array]]:
    """Of each set of models and each task, of each model: what turns draws into counts.

    A matrix (G C 3, U): times how often each kind of sample is drawn, it is the counts.
    """

    def matrix(task: int, size: int, predictions: np.ndarray) -> sparse.csr_array:
        labels = samples.labels[:, task]
        places, kind = count_places(labels, predictions, samples.groups, size)
        shape = (num_groups * size * 3, len(labels))
        return sparse.csr_array((np.ones(len(places), np.int64), (places, kind)), shape=shape)

    return [
        [matrix(task, size, model[:, task]) for model in models]
        for models in sets
        for task, size in enumerate(samples.classes)
    ]
