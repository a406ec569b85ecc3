"""Counts per group and class, and the rates that follow from them.

The counts of one task are (..., G, C, 3): for each group and class how many samples are hits, are
labelled so, are predicted so. Every rate follows from these, one versus rest; `from_confusion`
makes them from confusion matrices. A model's counts are one such array per task. The leading axes,
where there are any, are several models or several resamplings: every function here works on all of
them at once. Rates are in percent. A rate whose denominator is zero is NaN and stays out of means.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Counts = Sequence[np.ndarray]


def tally(
    labels: np.ndarray,
    predictions: np.ndarray,
    groups: np.ndarray,
    num_groups: int,
    classes: Sequence[int],
) -> list[np.ndarray]:
    """Counts of each task, (G, C, 3) int64, from labels and predictions (N, T), groups (N,).

    Where some samples are in no group, -1, they are one more row at the end, (G + 1, C, 3).

    >>> tally(np.array([[0], [1]]), np.array([[1], [1]]), np.array([0, 0]), 1, [2])[0]
    array([[[0, 1, 0],
            [1, 1, 2]]])
    """
    missing = groups < 0
    if missing.any():
        groups, num_groups = np.where(missing, num_groups, groups), num_groups + 1
    tables = []
    for task, size in enumerate(classes):
        places, _ = cells(labels[:, task], predictions[:, task], groups, size)
        table = np.bincount(places, minlength=num_groups * size * 3)
        tables.append(table.astype(np.int64).reshape(num_groups, size, 3))
    return tables


def cells(
    labels: np.ndarray, predictions: np.ndarray, groups: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Where samples count in a flattened (G, C, 3), and which samples: of N, two or three places.

    The labels of all, then the predictions of all, then the hits of those who are.
    """
    row = groups.astype(np.int64) * size
    hits = np.flatnonzero(labels == predictions)
    everyone = np.arange(len(labels))
    places = [(row + labels) * 3 + 1, (row + predictions) * 3 + 2, (row + labels)[hits] * 3]
    return np.concatenate(places), np.concatenate([everyone, everyone, hits])


def from_confusion(table: np.ndarray) -> np.ndarray:
    """Counts (..., G, C, 3) from confusion matrices (..., G, true class, predicted class).

    >>> from_confusion(np.array([[8, 2], [1, 9]])).tolist()
    [[8, 10, 9], [9, 10, 11]]
    """
    hits = np.diagonal(table, axis1=-2, axis2=-1)
    return np.stack([hits, table.sum(axis=-1), table.sum(axis=-2)], axis=-1)


def percent(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """100 part / whole, NaN for 0 / 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return 100.0 * part / whole


def known_mean(values: np.ndarray) -> np.ndarray:
    """The mean over the last axis of what is not NaN; NaN where nothing is."""
    known = ~np.isnan(values)
    return percent(np.where(known, values, 0).sum(axis=-1), known.sum(axis=-1)) / 100.0


def class_rates(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One-versus-rest FPR and FNR of each class, (..., C) percent, from counts (..., C, 3).

    >>> fpr, fnr = class_rates(from_confusion(np.array([[8, 2], [1, 9]])))
    >>> fpr[1], fnr[1]
    (np.float64(20.0), np.float64(10.0))
    """
    hits, labelled, predicted = np.moveaxis(table, -1, 0)
    others = labelled.sum(axis=-1, keepdims=True) - labelled
    return percent(predicted - hits, others), percent(labelled - hits, labelled)


def class_metrics(table: np.ndarray) -> dict[str, np.ndarray]:
    """Accuracy, FPR, FNR, recall and F1 of each class against the rest, (..., C) percent each.

    table: (..., C, 3); for the classes within each group, (..., G, C, 3). F1 of a class that is
    neither there nor predicted is NaN.

    >>> class_metrics(from_confusion(np.array([[8, 2], [1, 9]])))["recall"].tolist()
    [80.0, 90.0]
    """
    hits, labelled, predicted = np.moveaxis(table, -1, 0)
    total = labelled.sum(axis=-1, keepdims=True)
    fpr, fnr = class_rates(table)
    return {
        "accuracy": percent(total - labelled - predicted + 2 * hits, total),
        "fpr": fpr,
        "fnr": fnr,
        "recall": percent(hits, labelled),
        "f1": percent(2 * hits, labelled + predicted),
    }


def group_accuracy(counts: Counts, dense: Counts = ()) -> np.ndarray:
    """Accuracy of each group, the mean over tasks; (G,) points."""
    return np.mean([_accuracy(table) for table in counts], axis=0)


def accuracy(counts: Counts, dense: Counts = ()) -> np.ndarray:
    """Accuracy over all samples, the mean over tasks; points."""
    return np.mean([_accuracy(table.sum(axis=-3)) for table in counts], axis=0)


def _accuracy(table: np.ndarray) -> np.ndarray:
    return percent(table[..., 0].sum(axis=-1), table[..., 1].sum(axis=-1))


def _rate(counts: Counts, name: str, per_group: bool) -> np.ndarray:
    """Two classes: the rate of class 1, the positive. More: the mean over classes that occur."""
    means = []
    for table in counts:
        rates = class_metrics(table if per_group else table.sum(axis=-3))[name]
        means.append(rates[..., 1] if table.shape[-2] == 2 else known_mean(rates))
    return np.mean(means, axis=0)


def fpr(counts: Counts, dense: Counts = ()) -> np.ndarray:
    """False positive rate over all samples: of class 1 if there are two, else the class mean."""
    return _rate(counts, "fpr", per_group=False)


def fnr(counts: Counts, dense: Counts = ()) -> np.ndarray:
    """False negative rate over all samples: of class 1 if there are two, else the class mean."""
    return _rate(counts, "fnr", per_group=False)


def f1(counts: Counts, dense: Counts = ()) -> np.ndarray:
    """F1 over all samples: of class 1 if there are two, else the class mean (macro F1)."""
    return _rate(counts, "f1", per_group=False)


def group_fpr(counts: Counts, dense: Counts = ()) -> np.ndarray:
    """False positive rate of each group; (G,) points."""
    return _rate(counts, "fpr", per_group=True)


def group_fnr(counts: Counts, dense: Counts = ()) -> np.ndarray:
    """False negative rate of each group; (G,) points."""
    return _rate(counts, "fnr", per_group=True)


def group_f1(counts: Counts, dense: Counts = ()) -> np.ndarray:
    """F1 of each group, as `f1`; (G,) points."""
    return _rate(counts, "f1", per_group=True)
