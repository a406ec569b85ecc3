"""Accuracy, error rates and bias metrics from integer counts per group and class.

A metric is a function (counts, dense) -> value, or a value per group, dense being the counts of the
unpruned model, and one row in METRICS; `metrics.counts` says what counts are. All are in percent
and percentage points. A new row is covered by the tests that run over the table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias

import numpy as np

from fairgrape_jax.errors import TrainingError
from fairgrape_jax.metrics.bias import (
    Convention,
    cev,
    cev_classes,
    cev_groups,
    class_changes,
    classes_excluded,
    group_changes,
    groups_excluded,
    pies,
    relative_changes,
    sde,
    sde_classes,
    sde_groups,
)
from fairgrape_jax.metrics.counts import (
    Counts,
    accuracy,
    class_metrics,
    class_rates,
    f1,
    fnr,
    fpr,
    from_confusion,
    group_accuracy,
    group_f1,
    group_fnr,
    group_fpr,
    tally,
)
from fairgrape_jax.metrics.excess import (
    class_discrepancy,
    class_variance,
    excess_gap,
    group_excess,
    intensification,
    intensification_classes,
    pairwise_gap,
)
from fairgrape_jax.metrics.resample import (
    Metric,
    Statistic,
    each,
    interval,
    pooled,
    replicate,
)
from fairgrape_jax.metrics.samples import Samples
from fairgrape_jax.metrics.spread import (
    demographic_parity_difference,
    equalized_odds_difference,
    gap,
    group_change,
    ratio,
    rho,
    rho_accuracy,
    rho_change,
    rho_f1,
    worst_group,
)
from fairgrape_jax.registry import Table

# What JSON holds of a metric: numbers, None for NaN, and lists of them.
Plain: TypeAlias = float | list["Plain"] | None

_ROWS: dict[str, Metric] = {
    "accuracy": accuracy,
    "fpr": fpr,
    "fnr": fnr,
    "f1": f1,
    "rho_accuracy": rho_accuracy,
    "rho_change": rho_change,
    "rho_f1": rho_f1,
    "worst_group": worst_group,
    "gap": gap,
    "ratio": ratio,
    "demographic_parity_difference": demographic_parity_difference,
    "equalized_odds_difference": equalized_odds_difference,
    "cev_classes": cev_classes,
    "sde_classes": sde_classes,
    "cev_groups": cev_groups,
    "sde_groups": sde_groups,
    "classes_excluded": classes_excluded,
    "groups_excluded": groups_excluded,
    "excess_gap": excess_gap,
    "pairwise_gap": pairwise_gap,
    "class_variance": class_variance,
    "class_discrepancy": class_discrepancy,
    "intensification": intensification,
    "intensification_classes": intensification_classes,
    "group_accuracy": group_accuracy,
    "group_change": group_change,
    "group_excess": group_excess,
    "group_fpr": group_fpr,
    "group_fnr": group_fnr,
    "group_f1": group_f1,
}
COLUMNS = ("method", "seed", "round", "density")  # what metrics.csv has besides


def _check_row(name: str, row: object) -> None:
    """ValueError for what is no row of the table of metrics; it is tried on two small tasks."""
    if name in COLUMNS:
        raise ValueError("metrics.csv has another column of this name; give it another one")
    if not callable(row):
        raise ValueError(f"{row!r:.60} is no function of (counts, dense)")
    tables = [np.full((3, 2, 3), 4), np.arange(27).reshape(3, 3, 3)]
    tables[1][0] = 0  # a group without samples
    try:
        with np.errstate(all="ignore"):
            value = np.asarray(row(tables, tables), float)
    except Exception as error:
        raise ValueError(
            f"fails on the counts of three groups, of which one is empty ({type(error).__name__}: "
            f"{error})"
        ) from error
    of_groups = name.startswith("group_")
    if value.shape != ((3,) if of_groups else ()):
        raise ValueError(
            f"gives an array of shape {value.shape} for three groups; a metric gives one number, "
            "or one for each group where its name begins with group_"
        )


METRICS: Table[Metric] = Table("metric", _ROWS, _check_row)
# Their published values for several models are those of the mean rates, not means over the models.
OF_MEAN_RATES = (
    *("cev_classes", "sde_classes", "classes_excluded"),
    *("cev_groups", "sde_groups", "groups_excluded"),
)
# Those over all samples, of a group or of none.
OF_ALL_SAMPLES = (
    *("accuracy", "fpr", "fnr", "f1"),
    *("cev_classes", "sde_classes", "classes_excluded"),
    *("class_variance", "class_discrepancy", "intensification_classes"),
)
# Those that were published with two conventions.
CONVENTIONAL: dict[str, Callable[[Convention], Metric]] = {
    "cev_classes": lambda convention: partial(cev_classes, convention=convention),
    "sde_classes": lambda convention: partial(sde_classes, convention=convention),
    "cev_groups": lambda convention: partial(cev_groups, convention=convention),
    "sde_groups": lambda convention: partial(sde_groups, convention=convention),
}


def set_statistic(name: str, convention: Convention = "simon-says") -> Statistic:
    """A row of METRICS as a statistic of several models: of their mean rates, or the mean.

    Args:
        name: of the row.
        convention: that of CEV and SDE; the others have none.

    Returns:
        The statistic, of counts whose first axis is the models.
    """
    metric = CONVENTIONAL[name](convention) if name in CONVENTIONAL else METRICS[name]
    return (pooled if name in OF_MEAN_RATES else each)(metric)


def evaluate_all(
    counts: Counts,
    dense: Counts,
    num_groups: int | None = None,
    names: Sequence[str] | None = None,
) -> dict[str, Plain]:
    """Rows of METRICS as plain numbers and lists.

    Args:
        counts: of each task (G, C, 3).
        dense: those of the unpruned model, of the same shape.
        num_groups: how many of the counts' rows are groups, all by default; a row beyond them, of
            samples in no group, counts overall alone.
        names: of the rows; those of this package by default.

    Returns:
        By name a number, or a list of one for each group; None for NaN: JSON knows no NaN.

    Raises:
        TrainingError: a metric that was registered from outside fails.
    """

    grouped, dense_grouped = (
        [table[..., :num_groups, :, :] for table in tables] for tables in (counts, dense)
    )

    def value(name: str) -> np.ndarray:
        metric = METRICS[name]
        if name in OF_ALL_SAMPLES:
            return metric(counts, dense)
        if name not in METRICS.origins:
            return metric(grouped, dense_grouped)
        try:
            return np.asarray(metric(grouped, dense_grouped), float)
        except Exception as error:
            raise TrainingError(
                f"metric {name!r} of {METRICS.origins[name]} fails ({type(error).__name__}: "
                f"{error}); what was completed before is kept"
            ) from error

    return {name: _plain(np.asarray(value(name))) for name in names or METRICS.built_in}


def _plain(value: np.ndarray) -> Plain:
    if value.ndim:
        return [_plain(part) for part in value]
    return value.item() if np.isfinite(value) else None


__all__ = [
    "METRICS",
    "OF_ALL_SAMPLES",
    "OF_MEAN_RATES",
    "Convention",
    "Counts",
    "Metric",
    "Samples",
    "Statistic",
    "accuracy",
    "cev",
    "cev_classes",
    "cev_groups",
    "class_changes",
    "class_discrepancy",
    "class_metrics",
    "class_rates",
    "class_variance",
    "classes_excluded",
    "demographic_parity_difference",
    "each",
    "equalized_odds_difference",
    "evaluate_all",
    "excess_gap",
    "f1",
    "fnr",
    "fpr",
    "from_confusion",
    "gap",
    "group_accuracy",
    "group_change",
    "group_changes",
    "group_excess",
    "group_f1",
    "group_fnr",
    "group_fpr",
    "groups_excluded",
    "intensification",
    "intensification_classes",
    "interval",
    "pairwise_gap",
    "pies",
    "pooled",
    "ratio",
    "relative_changes",
    "replicate",
    "rho",
    "rho_accuracy",
    "rho_change",
    "rho_f1",
    "sde",
    "sde_classes",
    "sde_groups",
    "set_statistic",
    "tally",
    "worst_group",
]
