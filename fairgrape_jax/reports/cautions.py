"""What a reader must know before using the numbers: small groups, collapsed models, noise."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from fairgrape_jax import metrics
from fairgrape_jax.reports.collapse import (
    GRAVE,
    Caution,
    Gravity,
    Tasks,
    collapse_warnings,
    join_names,
)
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


def collect(
    comparisons: Sequence[Comparison], groups: Sequence[str], tasks: Tasks, *, alone: bool = False
) -> list[Caution]:
    """All cautions about sets of models, the gravest first.

    Args:
        comparisons: a set of models beside its dense ones, each.
        groups: their names.
        tasks: the name of each task and the names of its classes.
        alone: they are compared with nothing.
    """
    notes = [Caution(Gravity.FEW_SAMPLES, line) for line in small_groups(comparisons[0], groups)]
    if not alone:
        notes += collapse_warnings(comparisons[0], groups, tasks, dense=True)
    for each in comparisons:
        notes += collapse_warnings(each, groups, tasks)
        notes += _of_accuracy(each, groups) if alone else _of_changes(each, groups, tasks)
    return sorted(notes, key=lambda one: one.gravity)


def lines_of(notes: Iterable[Caution]) -> list[str]:
    """Cautions as lines, each text once, with all its subjects before it.

    Args:
        notes: the cautions, in order.

    Example:
        >>> lines_of([Caution(Gravity.NOISE, "is noise.", name) for name in ("a", "b")])
        ['a, b: is noise.']
    """
    subjects: dict[str, list[str]] = {}
    for one in notes:
        subjects.setdefault(one.text, []).append(one.subject)
    return [
        f"{join_names(names, most=20)}: {text}" if names[0] else text
        for text, names in subjects.items()
    ]


def gravest(notes: Sequence[Caution]) -> str:
    """The first caution, if it is one that the first screen must show.

    Args:
        notes: the cautions, the gravest first.

    Returns:
        A sentence; "" where none is as grave.
    """
    grave = [one for one in notes if one.gravity <= GRAVE]
    subjects = [one.subject for one in grave if one.text == grave[0].text]
    if not grave:
        return ""
    return f"{join_names(subjects)}{':' * (len(subjects) > 1)} {grave[0].text}"


def cautions(comparisons: Sequence[Comparison], groups: Sequence[str], tasks: Tasks) -> list[str]:
    """What a reader must know before using the numbers of compressed models.

    Args:
        comparisons: a set of models beside its dense ones, each.
        groups: their names.
        tasks: the name of each task and the names of its classes.

    Returns:
        A line each, the gravest first; those of sets with their names.
    """
    return lines_of(collect(comparisons, groups, tasks))


def cautions_alone(one: Comparison, groups: Sequence[str], tasks: Tasks) -> list[str]:
    """What a reader must know of models that are compared with nothing.

    Args:
        one: a set of models.
        groups: their names.
        tasks: the name of each task and the names of its classes.

    Returns:
        A line each.
    """
    return lines_of(collect([one], groups, tasks, alone=True))


def _of_accuracy(one: Comparison, groups: Sequence[str]) -> Iterable[Caution]:
    spread = extremes(one.mean["group_accuracy"], one.draws["group_accuracy"])
    if spread and not spread.clear:
        text = (
            f"accuracy is highest for {groups[spread.high]} and lowest for "
            f"{groups[spread.low]}, but their difference, {spread.text()}, does not leave out "
            "zero: these samples do not tell which of the two is higher."
        )
        yield Caution(Gravity.NOT_TOLD, text, one.name)


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


def _of_changes(one: Comparison, groups: Sequence[str], tasks: Tasks) -> Iterable[Caution]:
    spread = change_spread(one)
    if spread and not spread.clear:
        text = (
            f"the loss is largest for {groups[spread.low]} and smallest for {groups[spread.high]}, "
            f"but their difference, {spread.text()}, does not leave out zero: these samples do not "
            "tell which of the two loses more."
        )
        yield Caution(Gravity.NOT_TOLD, text, one.name)
    noise = [NOISY[row] for row in NOISY if one.low[row][0] > one.mean[row][0]]
    if noise:
        text = (
            f"{join_names(noise)}: the interval lies above the value, so this is mostly noise of "
            "few samples (resampling adds to a spread what sampling added before); do not compare "
            "it."
        )
        yield Caution(Gravity.NOISE, text, one.name)
    counts, dense = pool_counts(one)
    changes = metrics.class_changes(counts, dense)
    for (_, classes), change in zip(tasks, changes, strict=True):
        left_out = [name for name, row in zip(classes, change, strict=True) if np.isnan(row).any()]
        if left_out:
            text = (
                f"{len(left_out)} of {len(classes)} classes are left out of CEV and SDE over "
                f"classes ({join_names(left_out)}): the dense model makes no false positives or no "
                "false negatives there, or there are no samples, so a relative change is undefined."
            )
            yield Caution(Gravity.LEFT_OUT, text, one.name)
    change = metrics.group_changes(
        without_ungrouped(counts, one.num_groups), without_ungrouped(dense, one.num_groups)
    )
    left_out = [name for name, row in zip(groups, change, strict=True) if np.isnan(row).any()]
    if left_out:
        text = (
            f"{len(left_out)} of {len(groups)} groups are left out of CEV and SDE over groups "
            f"({join_names(left_out)}): a base rate of the dense model is zero there."
        )
        yield Caution(Gravity.LEFT_OUT, text, one.name)
