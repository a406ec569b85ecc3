"""Who pays for compression: a group's loss beyond the average, classes apart, gaps that grow."""

from __future__ import annotations

import numpy as np

from fairgrape_jax.metrics.counts import (
    Counts,
    GroupValues,
    Value,
    accuracy,
    class_metrics,
    group_accuracy,
)
from fairgrape_jax.metrics.spread import group_change

EVEN = 1e-9


def group_excess(counts: Counts, dense: Counts) -> GroupValues:
    """By how much more a group loses, psi_k, against the unpruned model than all samples do.

    Args:
        counts: of each task (..., G, C, 3).
        dense: those of the unpruned model, of the same shape.

    Returns:
        (..., G) percentage points; negative for a group that loses less.

    Source:
        Hashemizadeh et al., "Balancing Act: Constraining Disparate Impact in Sparse Models" (ICLR
        2024, arXiv 2310.20673), the excess accuracy gap.

    Example:
        >>> from fairgrape_jax.metrics import from_confusion
        >>> dense = from_confusion(np.array([[[10, 0], [0, 10]], [[10, 0], [0, 10]]]))
        >>> pruned = from_confusion(np.array([[[10, 0], [0, 10]], [[8, 2], [2, 8]]]))
        >>> group_excess([pruned], [dense]).tolist()
        [-10.0, 10.0]
    """
    loss = accuracy(dense) - accuracy(counts)
    return -group_change(counts, dense) - np.asarray(loss)[..., None]


def excess_gap(counts: Counts, dense: Counts) -> Value:
    """What the group that pays most loses beyond the average, max_k psi_k; one-sided.

    Unlike rho(Delta) it does not punish a group that gains.

    Args:
        counts: of each task (..., G, C, 3).
        dense: those of the unpruned model, of the same shape.

    Returns:
        (...) percentage points, at least 0.

    Source:
        Hashemizadeh et al. (arXiv 2310.20673), the worst excess gap.
    """
    return group_excess(counts, dense).max(axis=-1)


def pairwise_gap(counts: Counts, dense: Counts) -> Value:
    """The largest difference between the losses of two groups, max_k psi_k - min_k psi_k.

    Args:
        counts: of each task (..., G, C, 3).
        dense: those of the unpruned model, of the same shape.

    Returns:
        (...) percentage points.

    Source:
        Hashemizadeh et al. (arXiv 2310.20673), the maximal pairwise gap.
    """
    return np.ptp(group_change(counts, dense), axis=-1)


def class_variance(counts: Counts, dense: Counts = ()) -> Value:
    """The variance over classes of their accuracy (CWV), of divisor C.

    Args:
        counts: of each task (..., G, C, 3).
        dense: unused; every metric takes both.

    Returns:
        (...) squared percentage points, the mean over tasks; a class without samples stays out.

    Source:
        Gao et al., "Efficient DNN-Powered Software with Fair Sparse Models" (ISSTA 2024, arXiv
        2407.02805), the class-wise variance, of fractions there.
    """
    return np.mean([np.nanvar(recall, axis=-1) for recall in _recalls(counts)], axis=0)


def class_discrepancy(counts: Counts, dense: Counts = ()) -> Value:
    """The highest minus the lowest accuracy of a class (MCD).

    Args:
        counts: of each task (..., G, C, 3).
        dense: unused; every metric takes both.

    Returns:
        (...) percentage points, the mean over tasks; a class without samples stays out.

    Source:
        Gao et al. (arXiv 2407.02805), the maximum class accuracy discrepancy.

    Example:
        >>> from fairgrape_jax.metrics import from_confusion
        >>> class_discrepancy([from_confusion(np.array([[[8, 2], [0, 10]]]))])
        np.float64(20.0)
    """
    return np.mean(
        [np.fmax.reduce(r, -1) - np.fmin.reduce(r, -1) for r in _recalls(counts)], axis=0
    )


def intensification(counts: Counts, dense: Counts) -> Value:
    """Whether groups that fared badly fare relatively worse: the slope of their balances.

    The balance of a group is (A_k - A) / A; the slope, through the origin, is that of the pruned
    model's balances over the unpruned one's. Above 1 pruning intensifies what was uneven, below 1
    it levels it.

    Args:
        counts: of each task (..., G, C, 3).
        dense: those of the unpruned model, of the same shape.

    Returns:
        (...) a ratio; NaN where the unpruned model is as accurate for all groups.

    Source:
        Good et al., "Recall Distortion in Neural Network Pruning and the Undecayed Pruning
        Algorithm" (NeurIPS 2022, arXiv 2206.02976); its classes are groups here.

    Example:
        >>> from fairgrape_jax.metrics import from_confusion
        >>> dense = from_confusion(np.array([[[10, 0], [0, 10]], [[8, 2], [2, 8]]]))
        >>> pruned = from_confusion(np.array([[[9, 1], [1, 9]], [[7, 3], [3, 7]]]))
        >>> float(intensification([pruned], [dense]).round(3))
        1.125
    """
    before = _balance(group_accuracy(dense), accuracy(dense))
    after = _balance(group_accuracy(counts), accuracy(counts))
    return _slope(before, after)


def intensification_classes(counts: Counts, dense: Counts) -> Value:
    """As `intensification`, of the recall of classes, as published.

    Args:
        counts: of each task (..., G, C, 3).
        dense: those of the unpruned model, of the same shape.

    Returns:
        (...) a ratio, the mean over tasks; a class without samples stays out.

    Source:
        Good et al. (arXiv 2206.02976), the intensification ratio.
    """
    slopes = []
    for table, base in zip(counts, dense, strict=True):
        before, after = (
            _balance(recall, accuracy([each]))
            for (recall,), each in ((_recalls([base]), base), (_recalls([table]), table))
        )
        slopes.append(_slope(before, after))
    return np.mean(slopes, axis=0)


def _recalls(counts: Counts) -> list[np.ndarray]:
    """Of each task the accuracy of every class over all groups, (..., C) percent."""
    return [class_metrics(table.sum(axis=-3))["recall"] for table in counts]


def _balance(rates: np.ndarray, overall: np.ndarray) -> np.ndarray:
    overall = np.asarray(overall)[..., None]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(overall > 0, rates / overall - 1, np.nan)


def _slope(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Least squares through the origin over the last axis; what is NaN on a side stays out.

    Balances of less than EVEN are rounding.
    """
    known = ~(np.isnan(before) | np.isnan(after))
    x, y = np.where(known, before, 0), np.where(known, after, 0)
    squares = (x * x).sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(squares > EVEN**2, (x * y).sum(axis=-1) / squares, np.nan)[()]
