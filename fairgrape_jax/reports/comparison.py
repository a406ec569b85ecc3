"""Compressed models beside their dense ones: every statistic with its interval, and warnings."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from fairgrape_jax import metrics

# What is given with an interval, in this order; metrics of groups take a place per group.
STATISTICS = (
    *("accuracy", "group_accuracy", "group_change", "rho_accuracy", "rho_change"),
    *("worst_group", "gap", "ratio", "fpr", "fnr", "group_fpr", "group_fnr"),
    *("cev_classes", "sde_classes", "cev_groups", "sde_groups"),
    *("demographic_parity_difference", "equalized_odds_difference"),
)
NOISY = {
    "rho_change": "rho(Delta)",
    "cev_classes": "CEV over classes",
    "sde_classes": "SDE over classes",
    "cev_groups": "CEV over groups",
    "sde_groups": "SDE over groups",
}
SMALL = 100  # samples of a group below which its accuracy is known to no better than some points


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One set of models (a method, one model per seed) beside their dense ones.

    counts, dense: the counts of each task, (S, G, C, 3). mean: the value of every
    statistic, the mean over models or that of their mean rates; low, high: its interval.
    density: weights alive over all prunable weights, NaN where nobody said.
    """

    name: str
    density: float
    counts: list[np.ndarray]
    dense: list[np.ndarray]
    mean: dict[str, np.ndarray]
    low: dict[str, np.ndarray]
    high: dict[str, np.ndarray]

    @property
    def sizes(self) -> np.ndarray:
        """Samples of each group, (G,)."""
        return self.counts[0][0, ..., 1].sum(axis=-1)

    def excluded(self, what: str) -> int:
        """How many classes or groups CEV and SDE leave out."""
        return int(metrics.of_set(f"{what}_excluded")(self.counts, self.dense))


def compare(
    name: str,
    density: float,
    labels: np.ndarray,
    groups: np.ndarray,
    predictions: np.ndarray,
    dense: np.ndarray,
    classes: Sequence[int],
    num_groups: int,
    *,
    convention: metrics.Convention = "simon-says",
    replicates: int | None = None,
) -> Comparison:
    """A comparison with 95 % bootstrap intervals; arrays as for `metrics.bootstrap`."""

    def tally(models: np.ndarray) -> list[np.ndarray]:
        tables = [metrics.tally(labels, m, groups, num_groups, classes) for m in models]
        return [np.stack(task) for task in zip(*tables, strict=True)]

    def statistic(counts: metrics.Counts, dense: metrics.Counts) -> np.ndarray:
        found = [metrics.of_set(row, convention)(counts, dense) for row in STATISTICS]
        columns = [
            value if row.startswith("group_") else value[..., None]
            for row, value in zip(STATISTICS, found, strict=True)
        ]
        return np.concatenate(columns, axis=-1)

    counts, dense_counts = tally(predictions), tally(dense)
    low, high = metrics.bootstrap(
        statistic, labels, groups, predictions, dense, classes, num_groups, replicates=replicates
    )
    widths = [num_groups if row.startswith("group_") else 1 for row in STATISTICS]

    def named(vector: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(STATISTICS, np.split(vector, np.cumsum(widths)[:-1]), strict=True))

    return Comparison(
        name=name,
        density=density,
        counts=counts,
        dense=dense_counts,
        mean=named(statistic(counts, dense_counts)),
        low=named(low),
        high=named(high),
    )


def cautions(
    comparisons: Sequence[Comparison], groups: Sequence[str], classes: Sequence[Sequence[str]]
) -> list[str]:
    """What a reader must know before using the numbers, in plain words.

    classes: the names of each task's classes.
    """
    lines = []
    for group, size in zip(groups, comparisons[0].sizes, strict=True):
        if size < SMALL:
            lines.append(
                f"Group {group} has {size} samples: its numbers are uncertain, read the intervals."
            )
    for each in comparisons:
        lines += [f"{each.name}: {line}" for line in _cautions(each, groups, classes)]
    return lines


def _cautions(
    one: Comparison, groups: Sequence[str], classes: Sequence[Sequence[str]]
) -> list[str]:
    lines = []
    change = one.mean["group_change"]
    worst, best = int(np.argmin(change)), int(np.argmax(change))
    if worst != best and one.high["group_change"][worst] >= one.low["group_change"][best]:
        lines.append(
            f"the intervals of the change of {groups[worst]} (the largest loss) and of "
            f"{groups[best]} (the smallest) overlap: these samples do not tell which of the two "
            "loses more."
        )
    noise = [NOISY[row] for row in NOISY if one.low[row][0] > one.mean[row][0]]
    if noise:
        lines.append(
            f"{listed(noise)}: the interval lies above the value, so this is mostly noise of few "
            "samples (resampling adds to a spread what sampling added before); do not compare it."
        )
    changes = metrics.class_changes(*pooled(one))
    for names, found in zip(classes, changes, strict=True):
        left_out = [name for name, row in zip(names, found, strict=True) if np.isnan(row).any()]
        if left_out:
            lines.append(
                f"{len(left_out)} of {len(names)} classes are left out of CEV and SDE over classes "
                f"({listed(left_out)}): the dense model makes no false positives or no false "
                "negatives there, or there are no samples, so a relative change is undefined."
            )
    found = metrics.group_changes(*pooled(one))
    left_out = [name for name, row in zip(groups, found, strict=True) if np.isnan(row).any()]
    if left_out:
        lines.append(
            f"{len(left_out)} of {len(groups)} groups are left out of CEV and SDE over groups "
            f"({listed(left_out)}) for the same reason."
        )
    return lines


def pooled(one: Comparison) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The counts of all models of a comparison together, (G, C, 3), and of their dense ones."""
    return [t.sum(axis=0) for t in one.counts], [t.sum(axis=0) for t in one.dense]


def listed(names: Sequence[str], most: int = 8) -> str:
    """Some names, and how many more there are.

    >>> listed(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
