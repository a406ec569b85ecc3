"""The figures that reports of runs and of audits share: groups, and the plane of error rates."""

from __future__ import annotations

from collections.abc import Sequence

from fairgrape_jax import metrics
from fairgrape_jax.reports import charts, row_charts
from fairgrape_jax.reports.blocks import Block, Figure
from fairgrape_jax.reports.comparison import Comparison, pool_counts, without_ungrouped
from fairgrape_jax.reports.metric_tables import intervals

PLANE = (
    "Change of FPR (across) and FNR (upwards) against the dense model, in percent. Dashed: both "
    "change alike (SDE is the mean distance to it). Ring: the spread about the centre (CEV)."
)


def accuracy_by_group(
    comparisons: Sequence[Comparison], groups: Sequence[str], *, alone: bool = False
) -> Figure:
    """Accuracy of each group with intervals, and that of the dense models.

    Args:
        comparisons: a set of models beside its dense ones, each.
        groups: their names.
        alone: they are compared with nothing.
    """
    names = [one.name for one in comparisons]
    dense = [] if alone else comparisons[0].statistic("group_accuracy", dense=True).tolist()
    values = [intervals(one, "group_accuracy") for one in comparisons]
    title = "Accuracy by group"
    chart = row_charts.interval_rows(
        title, groups, names, values, unit="accuracy (%)", levels=dense
    )
    return Figure(title, [chart], "Bars: 95 % interval.", legend=names)


def change_by_group(comparisons: Sequence[Comparison], groups: Sequence[str]) -> Figure:
    """Change of accuracy of each group, with intervals.

    Args:
        comparisons: a set of models beside its dense ones, each.
        groups: their names.
    """
    names = [one.name for one in comparisons]
    values = [intervals(one, "group_change") for one in comparisons]
    zero = [0.0] * len(groups)
    title = "Change of accuracy by group"
    chart = row_charts.interval_rows(title, groups, names, values, unit="points", levels=zero)
    return Figure(title, [chart], "Against the dense models. Bars: 95 % interval.", legend=names)


def class_figures(
    comparisons: Sequence[Comparison], groups: Sequence[str], classes: Sequence[str], task: int = 0
) -> list[Block]:
    """Where each class and each group moved in the plane of FPR and FNR.

    Args:
        comparisons: a set of models beside its dense ones, each.
        groups: their names.
        classes: their names.
        task: which one.

    Returns:
        A figure of the classes and one of the groups for each set.
    """
    figures: list[Block] = []
    for one in comparisons:
        counts, dense = pool_counts(one)
        of_classes = metrics.class_changes(counts, dense)[task]
        of_groups = metrics.group_changes(
            without_ungrouped(counts, one.num_groups), without_ungrouped(dense, one.num_groups)
        )
        for what, names, changes in (
            ("classes", classes, of_classes),
            ("groups", groups, of_groups),
        ):
            title = f"{one.name}: {what}"
            figures.append(Figure(title, [charts.plane(title, names, 100 * changes)], PLANE))
    return figures
