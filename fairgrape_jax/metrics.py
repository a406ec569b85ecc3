"""Accuracy, error rates and bias metrics from integer confusion counts per group.

Counts of one task are (G, C, C) int64: group, true class, predicted class; a model's counts are
one such array per task. A metric is a function (counts, dense) -> float or (G,) array, dense being
the counts of the unpruned model, and one row in METRICS. All are in percentage points. A rate whose
denominator is zero is NaN and stays out of means over classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Counts = Sequence[np.ndarray]
Metric = Callable[[Counts, Counts], np.ndarray | float]


def confusion(
    labels: np.ndarray,
    predictions: np.ndarray,
    groups: np.ndarray,
    num_groups: int,
    classes: Sequence[int],
    weights: np.ndarray | None = None,
) -> list[np.ndarray]:
    """Confusion counts of each task, (G, C, C) int64, from labels and predictions (N, T).

    weights: (N,) int, how often each sample counts (for resampling), once by default.

    >>> confusion(np.array([[0], [1]]), np.array([[1], [1]]), np.array([0, 0]), 1, [2])[0]
    array([[[0, 1],
            [0, 1]]])
    """
    tables = []
    for task, size in enumerate(classes):
        cell = (groups.astype(np.int64) * size + labels[:, task]) * size + predictions[:, task]
        table = np.bincount(cell, weights, minlength=num_groups * size * size)
        tables.append(np.rint(table).astype(np.int64).reshape(num_groups, size, size))
    return tables


def group_accuracy(counts: Counts, dense: Counts = ()) -> np.ndarray:
    """Accuracy of each group, the mean over tasks; (G,) points."""
    return np.mean([_accuracy(table) for table in counts], axis=0)


def accuracy(counts: Counts, dense: Counts = ()) -> float:
    """Accuracy over all samples, the mean over tasks; points."""
    return float(np.mean([_accuracy(table.sum(axis=0, keepdims=True)) for table in counts]))


def _accuracy(table: np.ndarray) -> np.ndarray:
    return _percent(np.trace(table, axis1=1, axis2=2), table.sum(axis=(1, 2)))


def _percent(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return 100.0 * part / whole


def class_rates(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One-versus-rest FPR and FNR of each class, (..., C) points, from counts (..., C, C).

    >>> fpr, fnr = class_rates(np.array([[8, 2], [1, 9]]))
    >>> fpr[1], fnr[1]
    (np.float64(20.0), np.float64(10.0))
    """
    hits = np.diagonal(table, axis1=-2, axis2=-1)
    positives, predicted = table.sum(axis=-1), table.sum(axis=-2)
    total = positives.sum(axis=-1, keepdims=True)
    return _percent(predicted - hits, total - positives), _percent(positives - hits, positives)


def _rate(counts: Counts, which: int, per_group: bool) -> np.ndarray:
    """Two classes: the rate of class 1, the positive. More: the mean over classes that occur."""
    means = []
    for table in counts:
        rates = class_rates(table if per_group else table.sum(axis=0))[which]
        means.append(rates[..., 1] if table.shape[-1] == 2 else _nanmean(rates))
    return np.mean(means, axis=0)


def _nanmean(rates: np.ndarray) -> np.ndarray:
    known = ~np.isnan(rates)
    return _percent(np.where(known, rates, 0).sum(axis=-1), known.sum(axis=-1)) / 100.0


def fpr(counts: Counts, dense: Counts = ()) -> float:
    """False positive rate over all samples: of class 1 if there are two, else the class mean."""
    return float(_rate(counts, 0, per_group=False))


def fnr(counts: Counts, dense: Counts = ()) -> float:
    """False negative rate over all samples: of class 1 if there are two, else the class mean."""
    return float(_rate(counts, 1, per_group=False))


def group_fpr(counts: Counts, dense: Counts = ()) -> np.ndarray:
    """False positive rate of each group; (G,) points."""
    return _rate(counts, 0, per_group=True)


def group_fnr(counts: Counts, dense: Counts = ()) -> np.ndarray:
    """False negative rate of each group; (G,) points."""
    return _rate(counts, 1, per_group=True)


def rho(values: Sequence[float] | np.ndarray) -> float:
    """Sample standard deviation (divisor G - 1) over groups; NaN for a single group.

    Source: rho of FairGRAPE's Tables 2, 3 and 6, which divide by G - 1.

    >>> round(rho([94.7, 94.5]), 2)
    0.14
    """
    return float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")


def rho_accuracy(counts: Counts, dense: Counts = ()) -> float:
    """rho(A): spread over groups of the accuracy; points."""
    return rho(group_accuracy(counts))


def group_change(counts: Counts, dense: Counts) -> np.ndarray:
    """Accuracy minus the unpruned model's, Delta A_k (Eq. 2); (G,) points."""
    return group_accuracy(counts) - group_accuracy(dense)


def rho_change(counts: Counts, dense: Counts) -> float:
    """rho(Delta): spread over groups of the change against the unpruned model; points."""
    return rho(group_change(counts, dense))


def worst_group(counts: Counts, dense: Counts = ()) -> float:
    """The lowest accuracy of a group; points."""
    return float(group_accuracy(counts).min())


def gap(counts: Counts, dense: Counts = ()) -> float:
    """Highest minus lowest accuracy over groups; points."""
    return float(np.ptp(group_accuracy(counts)))


METRICS: dict[str, Metric] = {
    "accuracy": accuracy,
    "fpr": fpr,
    "fnr": fnr,
    "rho_accuracy": rho_accuracy,
    "rho_change": rho_change,
    "worst_group": worst_group,
    "gap": gap,
    "group_accuracy": group_accuracy,
    "group_change": group_change,
    "group_fpr": group_fpr,
    "group_fnr": group_fnr,
}


def evaluate_all(counts: Counts, dense: Counts) -> dict[str, Any]:
    """Every row of METRICS as plain numbers and lists, None for NaN: JSON knows no NaN."""
    return {name: _plain(np.asarray(metric(counts, dense))) for name, metric in METRICS.items()}


def _plain(value: np.ndarray) -> Any:
    if value.ndim:
        return [_plain(part) for part in value]
    return None if np.isnan(value) else float(value)


def bootstrap(
    statistic: Callable[[Counts, Counts], np.ndarray | float],
    labels: np.ndarray,
    groups: np.ndarray,
    predictions: np.ndarray,
    dense: np.ndarray,
    classes: Sequence[int],
    num_groups: int,
    *,
    replicates: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> np.ndarray:
    """Percentile interval of a statistic averaged over seeds; (2, ...) low and high.

    labels: (N, T); groups: (N,); predictions, dense: (S, N, T), of the pruned and the unpruned
    models of S seeds on the same samples. Each replicate draws samples with replacement within
    every group, the same draw for both models and all seeds (they saw the same pictures), and
    seeds with replacement. With one seed it is the uncertainty of the test set alone.
    """
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(groups == k) for k in range(num_groups)]
    count = len(predictions)
    values = []
    for _ in range(replicates):
        weights = np.zeros(len(groups), np.int64)
        for index in members:
            weights[index] = rng.multinomial(len(index), np.full(len(index), 1 / len(index)))
        times = rng.multinomial(count, np.full(count, 1 / count))
        drawn = []
        for s in np.flatnonzero(times):
            tables = [
                confusion(labels, model[s], groups, num_groups, classes, weights)
                for model in (predictions, dense)
            ]
            drawn.append(times[s] * np.asarray(statistic(*tables)))
        values.append(sum(drawn) / count)
    tail = 50 * (1 - level)
    return np.nanpercentile(np.asarray(values), [tail, 100 - tail], axis=0)
