"""Models that say one class for everybody, or are not shown to do better than that."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable, Sequence

import numpy as np

from fairgrape_jax.reports.comparison import Comparison

Tasks = Sequence[tuple[str, Sequence[str]]]
"""The name of each task and the names of its classes."""


class Gravity(enum.IntEnum):
    """How far a caution reaches, the gravest first."""

    NOTHING_CAN_BE_COMPARED = 0
    NO_BETTER_THAN_ONE_CLASS = 1
    IN_A_GROUP = 2
    FEW_SAMPLES = 3
    NOT_TOLD = 4
    NOISE = 5
    LEFT_OUT = 6


GRAVE = Gravity.NO_BETTER_THAN_ONE_CLASS  # what stands on the first screen


@dataclasses.dataclass(frozen=True)
class Caution:
    """What a reader must know before using some numbers.

    Attributes:
        gravity: how far it reaches.
        text: without its subject.
        subject: the set of models, or "dense"; "" for all.
    """

    gravity: Gravity
    text: str
    subject: str = ""


def collapse_warnings(
    one: Comparison, groups: Sequence[str], tasks: Tasks, *, dense: bool = False
) -> Iterable[Caution]:
    """Where models say one class for everybody, or are not shown to do better than that.

    Args:
        one: a set of models beside its dense ones.
        groups: their names.
        tasks: the name of each task and the names of its classes.
        dense: speak of its dense models.

    Returns:
        A caution each.
    """
    subject = "dense" if dense else one.name
    for task, (name, classes) in enumerate(tasks):
        where = f", task {name}" if len(tasks) > 1 else ""
        table = (one.dense if dense else one.counts)[task]
        warnings = [
            *_one_class(one, table, groups, classes, where),
            *_not_better_than_one_class(one, task, groups, classes, where=where, dense=dense),
        ]
        for gravity, text in warnings:
            yield Caution(gravity, text, subject)


def _one_class(
    one: Comparison, table: np.ndarray, groups: Sequence[str], classes: Sequence[str], where: str
) -> Iterable[tuple[Gravity, str]]:
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
            Gravity.NOTHING_CAN_BE_COMPARED,
            f"says one class for everyone{where}: {predicted_class(0)}{count_of_models(0)}. A "
            "model that does not look at its input treats all groups alike; nothing here speaks "
            "for it.",
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
        yield (
            Gravity.IN_A_GROUP,
            f"says one class for everyone in a group{where} ({join_names(each)}).",
        )


def _not_better_than_one_class(
    one: Comparison,
    task: int,
    groups: Sequence[str],
    classes: Sequence[str],
    *,
    where: str,
    dense: bool,
) -> Iterable[tuple[Gravity, str]]:
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
            Gravity.NO_BETTER_THAN_ONE_CLASS,
            "is not shown to be more often right than who always says the most frequent class"
            f"{where}: {margin(0)}.",
        )
    places = [place for place in range(1, len(weak)) if weak[place]]
    if places:
        each = [f"{groups[p - 1]}: {margin(p)}" for p in places]
        yield (
            Gravity.IN_A_GROUP,
            "is not shown to be more often right than who always says the most frequent class of "
            f"a group{where} ({join_names(each)}).",
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
