"""Compressed models beside their dense ones: every statistic with its interval."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from fairgrape_jax import metrics
from fairgrape_jax.metrics.counts import percent
from fairgrape_jax.metrics.samples import Samples

# What is given with an interval, in this order; metrics of groups take a place per group.
STATISTICS = (
    *("accuracy", "group_accuracy", "group_change", "rho_accuracy", "rho_change"),
    *("excess_gap", "worst_group", "gap", "ratio", "fpr", "fnr", "group_fpr", "group_fnr"),
    *("cev_classes", "sde_classes", "cev_groups", "sde_groups"),
    *("demographic_parity_difference", "equalized_odds_difference"),
)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One set of models (a method, one model per seed) beside their dense ones.

    Attributes:
        name: of the set.
        density: weights alive over all prunable weights, NaN where it is not known.
        num_groups: G.
        counts: the counts of each task, (S, G, C, 3); where samples have no group, (S, G + 1, C,
            3), they being the last.
        dense: those of the dense models, likewise.
        mean: the value of every statistic, the mean over models or that of their mean rates.
        low: the lower end of its 95 % interval.
        high: the upper end.
        draws: its bootstrap replicates, (R, ...).
    """

    name: str
    density: float
    num_groups: int
    counts: list[np.ndarray]
    dense: list[np.ndarray]
    mean: dict[str, np.ndarray]
    low: dict[str, np.ndarray]
    high: dict[str, np.ndarray]
    draws: dict[str, np.ndarray]

    @property
    def weights_left(self) -> str:
        """The weights alive in percent, as "2.63 %"."""
        return f"{100 * self.density:.3g} %"

    @property
    def sizes(self) -> np.ndarray:
        """Samples of each group, (G,)."""
        return self.counts[0][0, : self.num_groups, :, 1].sum(axis=-1)

    @property
    def total(self) -> int:
        """All samples, those of no group too."""
        return int(self.counts[0][0, ..., 1].sum())

    def excluded(self, what: str) -> int:
        """How many classes or groups CEV and SDE leave out.

        Args:
            what: "classes" or "groups".

        Returns:
            Their number.
        """
        return int(self.statistic(f"{what}_excluded"))

    def statistic(self, name: str, *, dense: bool = False) -> np.ndarray:
        """A row of `metrics.METRICS` for this set.

        Args:
            name: of the row.
            dense: of the dense models, beside themselves.

        Returns:
            (), or (G,) for statistics of groups.
        """
        counts = self.dense if dense else self.counts
        return statistic_of(name, counts, self.dense, self.num_groups)


def without_ungrouped(counts: metrics.Counts, num_groups: int) -> list[np.ndarray]:
    """Counts without the samples of no group.

    Args:
        counts: of each task (..., G, C, 3), samples of no group perhaps in one more row.
        num_groups: how many rows are groups.

    Returns:
        Of each task (..., G, C, 3).
    """
    return [table[..., :num_groups, :, :] for table in counts]


def statistic_of(
    name: str,
    counts: metrics.Counts,
    dense: metrics.Counts,
    num_groups: int,
    convention: metrics.Convention = "simon-says",
) -> np.ndarray:
    """A row of `metrics.METRICS` of a set: over all samples, or over groups without the others.

    Args:
        name: of the row.
        counts: of each task (S, ..., G, C, 3).
        dense: those of the dense models, of the same shape.
        num_groups: how many rows are groups.
        convention: of CEV and SDE.

    Returns:
        (...), or (..., G) for statistics of groups.
    """
    if name not in metrics.OF_ALL_SAMPLES:
        counts, dense = without_ungrouped(counts, num_groups), without_ungrouped(dense, num_groups)
    return metrics.set_statistic(name, convention)(counts, dense)


def compare(
    name: str,
    samples: Samples,
    predictions: np.ndarray,
    dense: np.ndarray,
    *,
    density: float = float("nan"),
    convention: metrics.Convention = "simon-says",
    replicates: int | None = None,
) -> Comparison:
    """A comparison with 95 % bootstrap intervals.

    Args:
        name: of the set of models.
        samples: what both were tested on.
        predictions: (S, N, T) int, of the compressed models.
        dense: (S, N, T) int, of the dense model of each.
        density: weights alive over all prunable weights.
        convention: of CEV and SDE.
        replicates: of the bootstrap; as for `metrics.replicate`.
    """
    num_groups = samples.num_groups

    counts, dense_counts = samples.tally(predictions), samples.tally(dense)
    frequent = [_most_frequent(table[0], num_groups) for table in counts]

    def statistic(counts: metrics.Counts, dense: metrics.Counts) -> np.ndarray:
        columns = []
        for row in STATISTICS:
            value = statistic_of(row, counts, dense, num_groups, convention)
            columns.append(value if row.startswith("group_") else value[..., None])
        return np.concatenate(
            [*columns, *(_margin(x, frequent, num_groups) for x in (counts, dense))], axis=-1
        )

    draws = metrics.replicate(statistic, samples, predictions, dense, replicates=replicates)
    low, high = metrics.interval(draws)
    rows = (*STATISTICS, "margin", "dense_margin")
    widths = [num_groups if row.startswith("group_") else 1 for row in STATISTICS]
    ends = np.cumsum([*widths, len(samples.classes) * (num_groups + 1)])

    def named(vector: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(rows, np.split(vector, ends, axis=-1), strict=True))

    return Comparison(
        name=name,
        density=density,
        num_groups=num_groups,
        counts=counts,
        dense=dense_counts,
        mean=named(statistic(counts, dense_counts)),
        low=named(low),
        high=named(high),
        draws=named(draws),
    )


def _most_frequent(table: np.ndarray, num_groups: int) -> np.ndarray:
    """The most frequent label overall and in each group, (1 + G,), from counts (G, C, 3)."""
    labelled = table[..., 1]
    return np.concatenate([[labelled.sum(axis=0)], labelled[:num_groups]]).argmax(axis=-1)


def _margin(counts: metrics.Counts, frequent: Sequence[np.ndarray], num_groups: int) -> np.ndarray:
    """Accuracy minus that of always saying the most frequent label; points, mean over models.

    Of each task overall, then in each group: (..., T (1 + G)) from counts (S, ..., G, C, 3).
    """
    columns = []
    for table, classes in zip(counts, frequent, strict=True):
        whole = table.sum(axis=-3, keepdims=True)
        rows = np.concatenate(
            [whole, table[..., :num_groups, :, :]], axis=-3
        )  # (S, ..., 1+G, C, 3)
        hits, labelled = rows[..., 0].sum(axis=-1), rows[..., 1]
        usual = labelled[..., np.arange(num_groups + 1), classes]
        columns.append(percent(hits - usual, labelled.sum(axis=-1)).mean(axis=0))
    return np.concatenate(columns, axis=-1)


def pool_counts(one: Comparison) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The counts of all models of a comparison together.

    Args:
        one: the comparison.

    Returns:
        Of each task (G, C, 3): of the models, and of their dense ones.
    """
    return [t.sum(axis=0) for t in one.counts], [t.sum(axis=0) for t in one.dense]
