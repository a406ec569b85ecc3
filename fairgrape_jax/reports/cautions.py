"""What a reader must know before using the numbers: small groups, collapsed models, noise."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from fairgrape_jax import metrics
from fairgrape_jax.reports.comparison import Comparison, pool_counts, without_ungrouped
from fairgrape_jax.reports.differences import Difference, extremes

NOISY = {
    "rho_change": "rho(Delta)",
    "cev_classes": "CEV over classes",
    "sde_classes": "SDE over classes",
    "cev_groups": "CEV over groups",
    "sde_groups": "SDE over groups",
}
SMALL = 100  # samples of a group below which its accuracy is known to no better than some points

Tasks = Sequence[tuple[str, Sequence[str]]]
"""The name of each task and the names of its classes."""


def cautions(comparisons: Sequence[Comparison], groups: Sequence[str], tasks: Tasks) -> list[str]:
    """What a reader must know before using the numbers of compressed models.

    Args:
        comparisons: a set of models beside its dense ones, each.
        groups: their names.
        tasks: the name of each task and the names of its classes.

    Returns:
        A line each, those of a set with its name.
    """
    lines = [*small_groups(comparisons[0], groups)]
    lines += [
        f"dense: {line}" for line in collapse_warnings(comparisons[0], groups, tasks, dense=True)
    ]
    for each in comparisons:
        both = [*collapse_warnings(each, groups, tasks), *_of_changes(each, groups, tasks)]
        lines += [f"{each.name}: {line}" for line in both]
    return lines


def cautions_alone(one: Comparison, groups: Sequence[str], tasks: Tasks) -> list[str]:
    """What a reader must know of models that are compared with nothing.

    Args:
        one: a set of models.
        groups: their names.
        tasks: the name of each task and the names of its classes.

    Returns:
        A line each.
    """
    lines = [f"{one.name}: {line}" for line in collapse_warnings(one, groups, tasks)]
    spread = extremes(one.mean["group_accuracy"], one.draws["group_accuracy"])
    if spread and not spread.clear:
        lines.append(
            f"{one.name}: accuracy is highest for {groups[spread.high]} and lowest for "
            f"{groups[spread.low]}, but their difference, {spread.text()}, does not leave out "
            "zero: these samples do not tell which of the two is higher."
        )
    return [*small_groups(one, groups), *lines]


def findings(comparisons: Sequence[Comparison], groups: Sequence[str]) -> list[str]:
    """Which group loses most, where the samples tell.

    Args:
        comparisons: a set of models beside its dense ones, each.
        groups: their names.

    Returns:
        A line for each set where they do.
    """
    lines = []
    for one in comparisons:
        spread = change_spread(one)
        if spread and spread.clear:
            lines.append(
                f"{one.name}: the loss is largest for {groups[spread.low]} and smallest for "
                f"{groups[spread.high]}; the difference is {spread.text()} points."
            )
    return lines


def findings_alone(one: Comparison, groups: Sequence[str]) -> list[str]:
    """Which groups a set of models serves best and worst.

    Args:
        one: a set of models.
        groups: their names.

    Returns:
        A line, or none where the samples do not tell.
    """
    spread = extremes(one.mean["group_accuracy"], one.draws["group_accuracy"])
    if not spread or not spread.clear:
        return []
    return [
        f"{one.name}: accuracy is highest for {groups[spread.high]} and lowest for "
        f"{groups[spread.low]}; the difference is {spread.text()} points."
    ]


def change_spread(one: Comparison) -> Difference | None:
    """The smallest minus the largest loss of a group.

    Args:
        one: a set of models beside its dense ones.

    Returns:
        The difference; None where fewer than two groups have a change.
    """
    return extremes(one.mean["group_change"], one.draws["group_change"])


def small_groups(one: Comparison, groups: Sequence[str]) -> Iterable[str]:
    """A line for each group with few samples.

    Args:
        one: a set of models beside its dense ones.
        groups: their names.

    Returns:
        The lines.
    """
    for group, size in zip(groups, one.sizes, strict=True):
        if size < SMALL:
            yield (
                f"Group {group} has {size} samples: its numbers are uncertain, read the intervals."
            )


def collapse_warnings(
    one: Comparison, groups: Sequence[str], tasks: Tasks, *, dense: bool = False
) -> Iterable[str]:
    """Where models say one class for everybody, or are not shown to do better than that.

    Args:
        one: a set of models beside its dense ones.
        groups: their names.
        tasks: the name of each task and the names of its classes.
        dense: speak of its dense models.

    Returns:
        A line each.
    """
    for task, (name, classes) in enumerate(tasks):
        where = f", task {name}" if len(tasks) > 1 else ""
        table = (one.dense if dense else one.counts)[task]
        yield from _one_class(one, table, groups, classes, where)
        yield from _not_better_than_one_class(one, task, groups, classes, where=where, dense=dense)


def _one_class(
    one: Comparison, table: np.ndarray, groups: Sequence[str], classes: Sequence[str], where: str
) -> Iterable[str]:
    """Where every prediction is one class though the labels are not; table: (S, G, C, 3)."""
    whole = table.sum(axis=1, keepdims=True)
    rows = np.concatenate([whole, table[:, : one.num_groups]], axis=1)  # (S, 1 + G, C, 3)
    several_labels = (rows[0, ..., 1] > 0).sum(axis=-1) > 1
    single = (rows[..., 2] > 0).sum(axis=-1) == 1  # (S, 1 + G)
    class_of = rows[..., 2].argmax(axis=-1)

    def count_of_models(place: int) -> str:
        count, seeds = int(single[:, place].sum()), len(rows)
        return "" if count == seeds else f" ({count} of {seeds} models)"

    def predicted_class(place: int) -> str:
        return " or ".join(dict.fromkeys(classes[c] for c in class_of[single[:, place], place]))

    if several_labels[0] and single[:, 0].any():
        yield (
            f"says one class for everyone{where}: {predicted_class(0)}{count_of_models(0)}. A "
            "model that does not look at its input treats all groups alike; nothing here speaks "
            "for it."
        )
    if single[:, 0].all():
        return
    places = [
        place
        for place in range(1, one.num_groups + 1)
        if several_labels[place] and (single[:, place] & ~single[:, 0]).any()
    ]
    if places:
        each = [f"{groups[p - 1]}: {predicted_class(p)}{count_of_models(p)}" for p in places]
        yield f"says one class for everyone in a group{where} ({join_names(each)})."


def _not_better_than_one_class(
    one: Comparison,
    task: int,
    groups: Sequence[str],
    classes: Sequence[str],
    *,
    where: str,
    dense: bool,
) -> Iterable[str]:
    """Where these samples do not show a model to beat its most frequent class."""
    key = "dense_margin" if dense else "margin"
    part = slice(task * (one.num_groups + 1), (task + 1) * (one.num_groups + 1))
    value, low, high = (numbers[key][part] for numbers in (one.mean, one.low, one.high))
    labelled = one.counts[task][0, ..., 1]
    rows = np.concatenate([[labelled.sum(axis=0)], labelled[: one.num_groups]])
    weak = ((rows > 0).sum(axis=-1) > 1) & ~(low > 0)

    def margin(place: int) -> str:
        interval = f"{value[place]:+.1f} points [{low[place]:+.1f}, {high[place]:+.1f}]"
        return f"{interval} against always {classes[rows[place].argmax()]}"

    if weak[0]:
        yield (
            "is not shown to be more often right than who always says the most frequent class"
            f"{where}: {margin(0)}."
        )
    places = [place for place in range(1, len(weak)) if weak[place]]
    if places:
        each = [f"{groups[p - 1]}: {margin(p)}" for p in places]
        yield (
            "is not shown to be more often right than who always says the most frequent class of "
            f"a group{where} ({join_names(each)})."
        )


def _of_changes(one: Comparison, groups: Sequence[str], tasks: Tasks) -> Iterable[str]:
    spread = change_spread(one)
    if spread and not spread.clear:
        yield (
            f"the loss is largest for {groups[spread.low]} and smallest for {groups[spread.high]}, "
            f"but their difference, {spread.text()}, does not leave out zero: these samples do not "
            "tell which of the two loses more."
        )
    noise = [NOISY[row] for row in NOISY if one.low[row][0] > one.mean[row][0]]
    if noise:
        yield (
            f"{join_names(noise)}: the interval lies above the value, so this is mostly noise of "
            "few samples (resampling adds to a spread what sampling added before); do not compare "
            "it."
        )
    counts, dense = pool_counts(one)
    changes = metrics.class_changes(counts, dense)
    for (_, classes), change in zip(tasks, changes, strict=True):
        left_out = [name for name, row in zip(classes, change, strict=True) if np.isnan(row).any()]
        if left_out:
            yield (
                f"{len(left_out)} of {len(classes)} classes are left out of CEV and SDE over "
                f"classes ({join_names(left_out)}): the dense model makes no false positives or no "
                "false negatives there, or there are no samples, so a relative change is undefined."
            )
    change = metrics.group_changes(
        without_ungrouped(counts, one.num_groups), without_ungrouped(dense, one.num_groups)
    )
    left_out = [name for name, row in zip(groups, change, strict=True) if np.isnan(row).any()]
    if left_out:
        yield (
            f"{len(left_out)} of {len(groups)} groups are left out of CEV and SDE over groups "
            f"({join_names(left_out)}) for the same reason."
        )


def join_names(names: Sequence[str], most: int = 8) -> str:
    """Some names, and how many more there are.

    Args:
        names: the names.
        most: how many of them to write out.

    Returns:
        A text.

    Example:
        >>> join_names(["a", "b", "c"], most=2)
        'a, b and 1 more'
    """
    first = ", ".join(names[:most])
    return first if len(names) <= most else f"{first} and {len(names) - most} more"
