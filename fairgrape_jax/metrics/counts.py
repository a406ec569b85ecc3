"""Counts per group and class, and the rates that follow from them.

The counts of one task are (..., G, C, 3): for each group and class how many samples are hits, are
labelled so, are predicted so. Every rate follows from these, one versus rest; `from_confusion`
makes them from confusion matrices. A model's counts are one such array per task. The leading axes,
where there are any, are several models or several resamplings: every function here works on all of
them at once. Rates are in percent. A rate whose denominator is zero is NaN and stays out of means.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from jaxtyping import Float, Int64, Integer, Num

# The counts of a model, or of several along the leading axes: an array for each task.
Counts = Sequence[Integer[np.ndarray, "... group _class 3"]]
# A number of each model or resampling, (...): for one NumPy makes a scalar of it, which is no
# ndarray to a checker of shapes.
Value: TypeAlias = np.ndarray
GroupValues = Float[np.ndarray, "... group"]
Codes = Integer[np.ndarray, " sample"]
TaskCodes = Integer[np.ndarray, "sample task"]


def tally(
    labels: TaskCodes,
    predictions: TaskCodes,
    groups: Codes,
    num_groups: int,
    classes: Sequence[int],
) -> list[Int64[np.ndarray, "group _class 3"]]:
    """Counts of each task from labels and predictions.

    Args:
        labels: (N, T) int, the class of each sample in each task.
        predictions: (N, T) int.
        groups: (N,) int; -1 for a sample of no group.
        num_groups: how many groups there are, G.
        classes: how many classes each task has.

    Returns:
        Of each task (G, C, 3); where some samples are in no group, they are one more row at the
        end, (G + 1, C, 3).

    Raises:
        ValueError: a label or a prediction that is none of the classes, or a group that is none of
            the groups.

    Example:
        >>> tally(np.array([[0], [1]]), np.array([[1], [1]]), np.array([0, 0]), 1, [2])[0]
        array([[[0, 1, 0],
                [1, 1, 2]]])
    """
    check_codes(groups, num_groups, "groups", "group")
    missing = groups < 0
    if missing.any():
        groups, num_groups = np.where(missing, num_groups, groups), num_groups + 1
    tables = []
    for task, size in enumerate(classes):
        places, _ = count_places(labels[:, task], predictions[:, task], groups, size)
        table = np.bincount(places, minlength=num_groups * size * 3)
        tables.append(table.astype(np.int64).reshape(num_groups, size, 3))
    return tables


def count_places(
    labels: Codes, predictions: Codes, groups: Codes, size: int
) -> tuple[Integer[np.ndarray, " place"], Integer[np.ndarray, " place"]]:
    """Where samples count in a flattened (G, C, 3): each in two places, a hit in three.

    Args:
        labels: (N,) int, the class of each sample.
        predictions: (N,) int.
        groups: (N,) int, none of them negative.
        size: how many classes there are, C.

    Returns:
        The places, and the sample that counts in each: the labels of all, then the predictions of
        all, then the hits.

    Raises:
        ValueError: a label or a prediction that is none of the classes.
    """
    check_codes(labels, size, "labels", "class", least=0)
    check_codes(predictions, size, "predictions", "class", least=0)
    row = groups.astype(np.int64) * size
    hits = np.flatnonzero(labels == predictions)
    everyone = np.arange(len(labels))
    places = [(row + labels) * 3 + 1, (row + predictions) * 3 + 2, (row + labels)[hits] * 3]
    return np.concatenate(places), np.concatenate([everyone, everyone, hits])


def check_codes(
    codes: Integer[np.ndarray, " ..."], size: int, name: str, kind: str, *, least: int = -1
) -> None:
    """Codes count from 0.

    Args:
        codes: ints of any shape.
        size: how many there can be.
        name: what to call the array in an error.
        kind: what to call what a code stands for.
        least: the lowest code; -1 stands for none.

    Raises:
        ValueError: a code below `least`, or one that is not below `size`.
    """
    if not codes.size:
        return
    for code in (int(codes.min()), int(codes.max())):
        if not least <= code < size:
            none = " (or -1 for none)" if least < 0 else ""
            allowed = f"{kind} 0 to {size - 1}" if size else f"no {kind}"
            raise ValueError(f"{name}: {code} is outside of the codes there are, {allowed}{none}")


def from_confusion(
    table: Num[np.ndarray, "*groups class class"],
) -> Num[np.ndarray, "*groups class 3"]:
    """Counts from confusion matrices.

    Args:
        table: (..., G, true class, predicted class).

    Returns:
        (..., G, C, 3).

    Example:
        >>> from_confusion(np.array([[8, 2], [1, 9]])).tolist()
        [[8, 10, 9], [9, 10, 11]]
    """
    hits = np.diagonal(table, axis1=-2, axis2=-1)
    return np.stack([hits, table.sum(axis=-1), table.sum(axis=-2)], axis=-1)


def percent(part: Value, whole: Value) -> Value:
    """100 part / whole.

    Args:
        part: numbers of any shape.
        whole: numbers of a shape that broadcasts with it.

    Returns:
        Percent; NaN for 0 / 0.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        return 100.0 * part / whole


def known_mean(values: Float[np.ndarray, "*rows _last"]) -> Value:
    """The mean over the last axis of what is not NaN.

    Args:
        values: (..., n).

    Returns:
        (...), NaN where all of a row is.
    """
    known = ~np.isnan(values)
    return percent(np.where(known, values, 0).sum(axis=-1), known.sum(axis=-1)) / 100.0


def class_rates(
    table: Integer[np.ndarray, "*models class 3"],
) -> tuple[Float[np.ndarray, "*models class"], Float[np.ndarray, "*models class"]]:
    """One-versus-rest FPR and FNR of each class.

    Args:
        table: counts (..., C, 3).

    Returns:
        Both rates, (..., C) percent.

    Example:
        >>> fpr, fnr = class_rates(from_confusion(np.array([[8, 2], [1, 9]])))
        >>> fpr[1], fnr[1]
        (np.float64(20.0), np.float64(10.0))
    """
    hits, labelled, predicted = np.moveaxis(table, -1, 0)
    others = labelled.sum(axis=-1, keepdims=True) - labelled
    return percent(predicted - hits, others), percent(labelled - hits, labelled)


def class_metrics(
    table: Integer[np.ndarray, "*models class 3"],
) -> dict[str, Float[np.ndarray, "*models class"]]:
    """Accuracy, FPR, FNR, recall and F1 of each class against the rest.

    Args:
        table: counts (..., C, 3); for the classes within each group, (..., G, C, 3).

    Returns:
        By name (..., C) percent. F1 of a class that is neither there nor predicted is NaN.

    Example:
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


def group_accuracy(counts: Counts, dense: Counts = ()) -> GroupValues:
    """Accuracy of each group, the mean over tasks.

    Args:
        counts: of each task (..., G, C, 3).
        dense: unused; every metric takes both.

    Returns:
        (..., G) percent.
    """
    return np.mean([_accuracy(table) for table in counts], axis=0)


def accuracy(counts: Counts, dense: Counts = ()) -> Value:
    """Accuracy over all samples, the mean over tasks.

    Args:
        counts: of each task (..., G, C, 3).
        dense: unused; every metric takes both.

    Returns:
        (...) percent.
    """
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


def fpr(counts: Counts, dense: Counts = ()) -> Value:
    """False positive rate over all samples, the mean over tasks.

    Args:
        counts: of each task (..., G, C, 3).
        dense: unused; every metric takes both.

    Returns:
        (...) percent: of class 1 if there are two, else the mean over the classes that occur.
    """
    return _rate(counts, "fpr", per_group=False)


def fnr(counts: Counts, dense: Counts = ()) -> Value:
    """False negative rate over all samples, the mean over tasks.

    Args:
        counts: of each task (..., G, C, 3).
        dense: unused; every metric takes both.

    Returns:
        (...) percent: of class 1 if there are two, else the mean over the classes that occur.
    """
    return _rate(counts, "fnr", per_group=False)


def f1(counts: Counts, dense: Counts = ()) -> Value:
    """F1 over all samples, the mean over tasks; of many classes macro F1.

    Args:
        counts: of each task (..., G, C, 3).
        dense: unused; every metric takes both.

    Returns:
        (...) percent: of class 1 if there are two, else the mean over the classes that occur.
    """
    return _rate(counts, "f1", per_group=False)


def group_fpr(counts: Counts, dense: Counts = ()) -> GroupValues:
    """False positive rate of each group, the mean over tasks.

    Args:
        counts: of each task (..., G, C, 3).
        dense: unused; every metric takes both.

    Returns:
        (..., G) percent: of class 1 if there are two, else the mean over the classes that occur.
    """
    return _rate(counts, "fpr", per_group=True)


def group_fnr(counts: Counts, dense: Counts = ()) -> GroupValues:
    """False negative rate of each group, the mean over tasks.

    Args:
        counts: of each task (..., G, C, 3).
        dense: unused; every metric takes both.

    Returns:
        (..., G) percent: of class 1 if there are two, else the mean over the classes that occur.
    """
    return _rate(counts, "fnr", per_group=True)


def group_f1(counts: Counts, dense: Counts = ()) -> GroupValues:
    """F1 of each group, the mean over tasks; of many classes macro F1.

    Args:
        counts: of each task (..., G, C, 3).
        dense: unused; every metric takes both.

    Returns:
        (..., G) percent: of class 1 if there are two, else the mean over the classes that occur.
    """
    return _rate(counts, "f1", per_group=True)
