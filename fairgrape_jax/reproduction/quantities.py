"""What papers print besides accuracies and rho(D), measured in the networks of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from fairgrape_jax import metrics
from fairgrape_jax.metrics import Counts, Statistic
from fairgrape_jax.reports.comparison import without_ungrouped
from fairgrape_jax.reports.results import Model

SHARE = "importance of "  # and the name of a group: its share, the mean over layers


class Measured(NamedTuple):
    """A number of ours; NaN where it cannot be told.

    Attributes:
        mean: over seeds.
        low: the lower end of its 95 % interval.
        high: the upper end.
    """

    mean: float
    low: float
    high: float


UNKNOWN = Measured(math.nan, math.nan, math.nan)


def rate_changes(counts: Counts, dense: Counts) -> np.ndarray:
    """The change of FNR and FPR of each group, in points.

    Args:
        counts: of each task (..., G, C, 3).
        dense: those of the dense network.

    Returns:
        (..., G, 2).
    """
    rates = [
        np.stack([metrics.group_fnr(each), metrics.group_fpr(each)], axis=-1)
        for each in (counts, dense)
    ]
    return rates[0] - rates[1]


def spread_of_changes(counts: Counts, dense: Counts) -> np.ndarray:
    """V of Fig. 3: the mean squared distance of the groups' changes to their centroid, in points^2.

    Args:
        counts: of each task (..., G, C, 3).
        dense: those of the dense network.
    """
    changes = rate_changes(counts, dense)
    return np.square(changes - changes.mean(axis=-2, keepdims=True)).sum(axis=-1).mean(axis=-1)


# From counts of all samples, with an interval over samples and seeds.
COUNTED: dict[str, Statistic] = {
    "rho(A)": metrics.set_statistic("rho_accuracy"),
    "rho(D)": metrics.set_statistic("rho_change"),
    "rho(F1)": metrics.set_statistic("rho_f1"),
    "Diff": metrics.set_statistic("gap"),
    "CEV": metrics.set_statistic("cev_classes"),
    "SDE": metrics.set_statistic("sde_classes"),
    "change of FNR": metrics.each(lambda a, b: rate_changes(a, b)[..., 0].mean(axis=-1)),
    "change of FPR": metrics.each(lambda a, b: rate_changes(a, b)[..., 1].mean(axis=-1)),
    "V": metrics.each(spread_of_changes),
}
OF_ALL_SAMPLES = ("CEV", "SDE")  # of a group or of none


def measure(names: Sequence[str], models: Sequence[Model]) -> dict[str, Measured]:
    """Quantities of one method at one density.

    Args:
        names: rows of COUNTED or of_networks; others are unknown.
        models: a network per seed.
    """
    measured = dict.fromkeys(names, UNKNOWN)
    measured |= {name: of_networks(name, models) for name in names if name not in COUNTED}
    counted = [name for name in names if name in COUNTED]
    if not counted:
        return measured
    first, record = models[0].predicted, models[0].record
    samples = metrics.Samples(
        first.labels,
        first.groups,
        [len(classes) for _, classes in record["tasks"]],
        len(record["groups"]),
    )
    predicted = np.stack([model.predicted.predictions for model in models])
    dense = np.stack([model.dense.predictions for model in models])

    def statistic(*all_counts: Counts) -> np.ndarray:
        grouped = [without_ungrouped(each, samples.num_groups) for each in all_counts]
        return np.stack(
            [
                COUNTED[name](*(all_counts if name in OF_ALL_SAMPLES else grouped))
                for name in counted
            ],
            axis=-1,
        )

    values = statistic(samples.tally(predicted), samples.tally(dense))
    low, high = metrics.interval(
        metrics.replicate(statistic, samples, predicted, dense, replicates=1000)
    )
    return measured | {
        name: Measured(*(float(part[i]) for part in (values, low, high)))
        for i, name in enumerate(counted)
    }


def of_networks(name: str, models: Sequence[Model]) -> Measured:
    """A quantity that is a number of each network, or of all together.

    Args:
        name: "PIEs", "AUC", "importance of GROUP"; anything else is unknown.
        models: a network per seed.
    """
    if name == "PIEs":
        together, dense = (
            np.stack([getattr(model, part).predictions[:, 0] for model in models])
            for part in ("predicted", "dense")
        )
        return Measured(float(metrics.pies(together, dense).sum()), math.nan, math.nan)
    if name == "AUC":
        return over_seeds([area_under_curve(model) for model in models])
    if name.startswith(SHARE):
        group = name.removeprefix(SHARE)
        return over_seeds([share_of_importance(model.record, group) for model in models])
    return UNKNOWN


def over_seeds(values: Sequence[float]) -> Measured:
    """The mean of seeds with Student's interval; without one where there are fewer than two.

    Args:
        values: one a seed.

    Example:
        >>> [round(x, 3) for x in over_seeds([1.0, 2.0, 3.0])]
        [2.0, -0.484, 4.484]
    """
    mean = float(np.mean(values))
    if len(values) < 2:
        return Measured(mean, math.nan, math.nan)
    reach = float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))
    return Measured(mean, mean - reach, mean + reach)


def share_of_importance(record: Mapping[str, object], group: str) -> float:
    """A group's share of the importance in a layer, the mean over layers (Fig. 5).

    Args:
        record: of a stage; without importance NaN.
        group: its name, in any case.

    Example:
        >>> record = {"groups": ["a", "B"], "importance": {"x": [1.0, 3.0], "y": [1.0, 1.0]}}
        >>> share_of_importance(record, "b")
        0.625
    """
    layers, groups = record.get("importance"), record["groups"]
    assert isinstance(groups, list)
    names = [name.lower() for name in groups]
    if not isinstance(layers, dict) or not layers or group.lower() not in names:
        return math.nan
    totals = np.array(list(layers.values()), float)
    return float((totals[:, names.index(group.lower())] / totals.sum(axis=1)).mean())


def area_under_curve(model: Model) -> float:
    """ROC-AUC of the second class of two, over all samples; NaN without scores, or other classes.

    Args:
        model: a network of a run.
    """
    predicted = model.predicted
    scores, labels = predicted.scores, predicted.labels[:, 0]
    if scores is None or scores.shape[1] != 2 or len(np.unique(labels)) < 2:
        return math.nan
    positive = labels == 1
    ranks = stats.rankdata(scores[:, 1])
    above = ranks[positive].sum() - positive.sum() * (positive.sum() + 1) / 2
    return float(100 * above / (positive.sum() * (~positive).sum()))
