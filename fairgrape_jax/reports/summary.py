"""The small table of a report's first screen, and what was done in a line."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fairgrape_jax.reports.blocks import Table
from fairgrape_jax.reports.charts import Interval
from fairgrape_jax.reports.comparison import Comparison
from fairgrape_jax.reports.differences import extremes
from fairgrape_jax.reports.metric_tables import intervals
from fairgrape_jax.reports.precision import decimals, number, with_interval

FEW_GROUPS = 4  # as many have a column each
MOST_SETS = 8  # rows of the small table, the leader first
GROUPS_NAMED = 8


def small_table(
    comparisons: Sequence[Comparison], groups: Sequence[str], *, alone: bool = False
) -> Table:
    """Accuracy of each set of models, the most accurate worst group first, after the dense ones.

    Args:
        comparisons: sets of models beside their dense ones.
        groups: their names.
        alone: they are compared with nothing.

    Returns:
        The table: with few groups a column for each, else the best and the worst one.
    """
    chosen = sorted(comparisons, key=lambda one: -float(one.mean["worst_group"][0]))[:MOST_SETS]
    pruned = any(np.isfinite(one.density) for one in chosen)
    few = len(groups) <= FEW_GROUPS
    header = ["", *["weights"] * pruned, "all", *(groups if few else ["best group", "worst group"])]
    header += ["lowest / highest" if alone else "extra loss"]
    columns = [
        [intervals(one, "accuracy")[0] for one in chosen],
        *[[intervals(one, "group_accuracy")[k] for one in chosen] for k in range(len(groups))],
    ]
    digits = decimals([one for column in columns for one in column])
    last = [intervals(one, "ratio")[0] if alone else extra_loss(one) for one in chosen]
    last_digits = decimals(last)
    rows = []
    if not alone:
        accuracy = np.atleast_1d(chosen[0].statistic("accuracy", dense=True))
        by_group = chosen[0].statistic("group_accuracy", dense=True)
        cells = [number(value, digits) for value in by_group]
        of_groups = cells if few else _best_and_worst(by_group, cells, groups)
        rows.append(["dense", *["100 %"] * pruned, number(accuracy[0], digits), *of_groups, ""])
    for place, one in enumerate(chosen):
        cells = [with_interval(column[place], digits) for column in columns]
        of_groups = (
            cells[1:] if few else _best_and_worst(one.mean["group_accuracy"], cells[1:], groups)
        )
        weights = [one.weights_left] * pruned
        rows.append(
            [one.name, *weights, cells[0], *of_groups, with_interval(last[place], last_digits)]
        )
    return Table(header, rows)


def _best_and_worst(
    values: np.ndarray, cells: Sequence[str], groups: Sequence[str]
) -> tuple[str, str]:
    filled = np.where(np.isnan(values), np.nanmean(values), values)
    best, worst = int(np.argmax(filled)), int(np.argmin(filled))
    return f"{groups[best]} {cells[best]}", f"{groups[worst]} {cells[worst]}"


def extra_loss(one: Comparison) -> Interval:
    """How much more the group that loses most loses than the one that loses least.

    Args:
        one: a set of models beside its dense ones.

    Returns:
        Points with their interval, corrected for picking the two.
    """
    spread = extremes(one.mean["group_change"], one.draws["group_change"])
    return Interval(spread.value, *spread.interval) if spread else Interval(0.0, 0.0, 0.0)


def sizes(one: Comparison, groups: Sequence[str]) -> str:
    """How many samples there are of each group.

    Args:
        one: a set of models.
        groups: their names.

    Returns:
        "a 120, b 80": of many groups the first and the smallest.
    """
    members = [f"{name} {size:,}" for name, size in zip(groups, one.sizes, strict=True)]
    if len(members) > GROUPS_NAMED:
        least = int(np.argmin(one.sizes))
        left = len(members) - GROUPS_NAMED
        members = [*members[:GROUPS_NAMED], f"{left} more, the smallest {members[least]}"]
    ungrouped = one.total - int(one.sizes.sum())
    return ", ".join([*members, *[f"in no group {ungrouped:,}"] * (ungrouped > 0)])
