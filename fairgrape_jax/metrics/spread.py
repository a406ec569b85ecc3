"""How differently groups fare: spread, worst group, gap, parity. Counts as in `metrics.counts`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from fairgrape_jax.metrics.counts import (
    Counts,
    GroupValues,
    Value,
    class_metrics,
    group_accuracy,
    group_f1,
    percent,
)


def rho(values: Sequence[float] | Float[np.ndarray, "... group"]) -> Value:
    """Sample standard deviation over groups, of divisor G - 1.

    Args:
        values: (..., G), of any unit.

    Returns:
        (...) in the unit of the values; NaN for a single group.

    Source:
        FairGRAPE (arXiv 2207.10888), rho of Tables 2, 3 and 6, which divide by G - 1.

    Example:
        >>> float(rho([94.7, 94.5]).round(2))
        0.14
    """
    values = np.asarray(values)
    if values.shape[-1] < 2:
        return np.full(values.shape[:-1], np.nan)[()]
    return np.std(values, axis=-1, ddof=1)


def rho_accuracy(counts: Counts, dense: Counts = ()) -> np.ndarray:
    """rho(A): the spread over groups of the accuracy.

    Args:
        counts: of each task (..., G, C, 3).
        dense: unused; every metric takes both.

    Returns:
        (...) percentage points.

    Source:
        FairGRAPE (arXiv 2207.10888), Tables 2, 3 and 6.
    """
    return rho(group_accuracy(counts))


def rho_f1(counts: Counts, dense: Counts = ()) -> np.ndarray:
    """The spread over groups of F1.

    Args:
        counts: of each task (..., G, C, 3).
        dense: unused; every metric takes both.

    Returns:
        (...) percentage points.

    Source:
        FairGRAPE (arXiv 2207.10888), Fig. 4.
    """
    return rho(group_f1(counts))


def group_change(counts: Counts, dense: Counts) -> GroupValues:
    """Delta A_k: accuracy of each group minus the unpruned model's.

    Args:
        counts: of each task (..., G, C, 3).
        dense: those of the unpruned model, of the same shape.

    Returns:
        (..., G) percentage points.

    Source:
        FairGRAPE (arXiv 2207.10888), Eq. 2.
    """
    return group_accuracy(counts) - group_accuracy(dense)


def rho_change(counts: Counts, dense: Counts) -> Value:
    """rho(Delta): the spread over groups of the change against the unpruned model.

    Args:
        counts: of each task (..., G, C, 3).
        dense: those of the unpruned model, of the same shape.

    Returns:
        (...) percentage points.

    Source:
        FairGRAPE (arXiv 2207.10888), Tables 2, 3 and 6.
    """
    return rho(group_change(counts, dense))


def worst_group(counts: Counts, dense: Counts = ()) -> np.ndarray:
    """The lowest accuracy of a group.

    Args:
        counts: of each task (..., G, C, 3).
        dense: unused; every metric takes both.

    Returns:
        (...) percent.
    """
    return group_accuracy(counts).min(axis=-1)


def gap(counts: Counts, dense: Counts = ()) -> np.ndarray:
    """Highest minus lowest accuracy over groups.

    Args:
        counts: of each task (..., G, C, 3).
        dense: unused; every metric takes both.

    Returns:
        (...) percentage points.
    """
    return np.ptp(group_accuracy(counts), axis=-1)


def ratio(counts: Counts, dense: Counts = ()) -> np.ndarray:
    """Lowest accuracy of a group over the highest.

    Args:
        counts: of each task (..., G, C, 3).
        dense: unused; every metric takes both.

    Returns:
        (...) percent.
    """
    accuracies = group_accuracy(counts)
    return percent(accuracies.min(axis=-1), accuracies.max(axis=-1))


def demographic_parity_difference(counts: Counts, dense: Counts = ()) -> np.ndarray:
    """The largest difference between groups in how often a class is predicted.

    With two classes this is the difference in the positive one (fairlearn's definition); with
    more, the largest over classes.

    Args:
        counts: of each task (..., G, C, 3).
        dense: unused; every metric takes both.

    Returns:
        (...) percentage points, the mean over tasks.

    Example:
        >>> from fairgrape_jax.metrics import from_confusion
        >>> groups = from_confusion(np.array([[[6, 4], [0, 10]], [[9, 1], [5, 5]]]))
        >>> demographic_parity_difference([groups])
        np.float64(40.0)
    """
    selected = [percent(t[..., 2], t[..., 1].sum(axis=-1, keepdims=True)) for t in counts]
    return np.mean([_widest(rates) for rates in selected], axis=0)


def equalized_odds_difference(counts: Counts, dense: Counts = ()) -> np.ndarray:
    """The largest difference between groups in a class's FPR or FNR.

    With two classes this is fairlearn's definition (the larger of the differences in TPR and FPR);
    with more, the largest over classes. A group without positives (or negatives) of a class has
    no such rate there and takes no part.

    Args:
        counts: of each task (..., G, C, 3).
        dense: unused; every metric takes both.

    Returns:
        (...) percentage points, the mean over tasks.

    Example:
        >>> from fairgrape_jax.metrics import from_confusion
        >>> groups = from_confusion(np.array([[[6, 4], [0, 10]], [[9, 1], [5, 5]]]))
        >>> equalized_odds_difference([groups])
        np.float64(50.0)
    """
    worst = []
    for table in counts:
        rates = class_metrics(table)
        worst.append(np.fmax(_widest(rates["fpr"]), _widest(rates["fnr"])))
    return np.mean(worst, axis=0)


def _widest(rates: np.ndarray) -> np.ndarray:
    """The largest range over groups of (..., G, C), over classes; groups without a rate apart."""
    known = ~np.isnan(rates)
    high = np.where(known, rates, -np.inf).max(axis=-2)
    low = np.where(known, rates, np.inf).min(axis=-2)
    return np.where(known.any(axis=-2), high - low, 0.0).max(axis=-1)
