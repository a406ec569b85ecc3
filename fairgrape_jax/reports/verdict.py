"""The answer of a comparison in a sentence: whom it costs what, and whether methods differ."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from fairgrape_jax.reports.blocks import Verdict
from fairgrape_jax.reports.charts import Interval
from fairgrape_jax.reports.comparison import Comparison
from fairgrape_jax.reports.differences import Difference, Models, extremes
from fairgrape_jax.reports.precision import bracket, decimals, number, with_interval

WORST_GROUP = 1  # the place of the measure in `differences.Models`


@dataclasses.dataclass(frozen=True)
class Standing:
    """Which of several sets of models is first, and how far it is from the second.

    Attributes:
        leader: the place of the set with the most accurate worst group; -1 where none is better
            than always saying the most frequent class.
        runner_up: that of the next one; -1 where there is none, or they cannot be compared.
        difference: of their worst groups, corrected for picking two of several; None likewise.
    """

    leader: int
    runner_up: int = -1
    difference: Difference | None = None


def beats_one_class(one: Comparison) -> bool:
    """Whether these samples show a set to be right more often than one class for everybody is.

    Args:
        one: a set of models.

    Returns:
        True if they do for any task, or if no task has two labels.
    """
    low, width = one.low["margin"], one.num_groups + 1
    known = []
    for task, table in enumerate(one.counts):
        if (table[0, ..., 1].sum(axis=0) > 0).sum() > 1:
            known.append(bool(low[task * width] > 0))
    return any(known) or not known


def margin(one: Comparison) -> Interval:
    """Accuracy minus that of one class for everybody, of the task where it is largest.

    Args:
        one: a set of models.
    """
    places = np.arange(len(one.counts)) * (one.num_groups + 1)
    best = places[np.argmax(one.mean["margin"][places])]
    return Interval(*(float(part["margin"][best]) for part in (one.mean, one.low, one.high)))


def standing(comparisons: Sequence[Comparison], compared: Models | None) -> Standing:
    """Who is first.

    Args:
        comparisons: the sets of models.
        compared: their measures, resampled together; None where they cannot be.

    Returns:
        The leader and the runner-up.
    """
    able = [place for place, one in enumerate(comparisons) if beats_one_class(one)]
    if not able:
        return Standing(-1)
    worst = [float(one.mean["worst_group"][0]) for one in comparisons]
    if compared is not None:
        worst = compared.values[:, WORST_GROUP].tolist()
    order = sorted(able, key=lambda place: -worst[place])
    if compared is None or len(order) < 2:
        return Standing(order[0])
    return Standing(order[0], order[1], compared.difference(order[0], order[1], WORST_GROUP))


def verdict(
    comparisons: Sequence[Comparison],
    groups: Sequence[str],
    compared: Models | None,
    *,
    alone: bool = False,
    one_class: str = "",
) -> Verdict:
    """The verdict on sets of models.

    Args:
        comparisons: each beside its dense ones.
        groups: their names.
        compared: the measures of several sets, resampled together.
        alone: they are compared with nothing.
        one_class: what the dense models are called if they are not better than one class; "" if
            they are.

    Returns:
        A sentence and a note.
    """
    rank = standing(comparisons, compared)
    if rank.leader < 0:
        best = max(comparisons, key=lambda one: margin(one).value)
        several = "none of the methods is" if len(comparisons) > 1 else f"{best.name} is not"
        gap = with_interval(margin(best), sign=True)
        best_is = f"; the best, {best.name}, by" if len(comparisons) > 1 else ":"
        return Verdict(
            f"{at_weights(best)}{several} shown to be right more often than always saying the most "
            f"frequent class{best_is} {gap} points: nothing here can be compared."
        )
    leader = comparisons[rank.leader]
    text = _alone(leader, groups) if alone else _cost(leader, groups)
    if rank.difference is not None:
        other = comparisons[rank.runner_up].name
        text += f"; {_against(rank.difference, other, len(comparisons))}"
    if one_class:
        text += f". But {one_class}"
    return Verdict(f"{text}.", _note(leader, groups, len(comparisons), alone=alone))


def at_weights(one: Comparison) -> str:
    """The part of the weights at which a set stands, to begin a sentence with.

    Args:
        one: a set of models.

    Returns:
        "At 2 % of the weights ", or nothing where the part is not known.
    """
    return f"At {one.weights_left} of the weights " if np.isfinite(one.density) else ""


def _cost(one: Comparison, groups: Sequence[str]) -> str:
    """Whom it costs more than whom, or that these data do not tell."""
    spread = extremes(one.mean["group_change"], one.draws["group_change"])
    name = one.name.removesuffix(f", {one.weights_left}")  # the weights stand before it
    begin = f"{at_weights(one)}{name} "
    if spread is None:
        return f"{begin}costs every group the same"
    more = f"{groups[spread.low]} {points(spread)} more than {groups[spread.high]}"
    if spread.clear:
        return f"{begin}costs {more} {interval_of(spread)}"
    return f"{begin}is not shown to cost any group more than another ({more} {interval_of(spread)})"


def _alone(one: Comparison, groups: Sequence[str]) -> str:
    spread = extremes(one.mean["group_accuracy"], one.draws["group_accuracy"])
    if spread is None:
        return f"{one.name} is as accurate for every group"
    low, high = groups[spread.low], groups[spread.high]
    text = f"{points(spread)} less accurate for {low} than for {high} {interval_of(spread)}"
    if spread.clear:
        return f"{one.name} is {text}"
    return f"{one.name} is not shown to serve any group worse than another ({text})"


def _against(difference: Difference, other: str, count: int) -> str:
    runner = f", the runner-up of {count}," if count > 2 else ""
    text = (
        f"against {other}{runner} its worst group is {points(difference)} better "
        f"{interval_of(difference)}"
    )
    return text if difference.clear else f"{text}: these data do not tell the two apart"


def points(difference: Difference) -> str:
    """A difference in words.

    Args:
        difference: of two numbers in percent.

    Returns:
        "3.4 points", with the digits that its interval supports.

    Example:
        >>> points(Difference(0, 1, 3.44, (1.1, 5.9), 2)), points(Difference(0, 1, 1.0, (1, 1), 2))
        ('3.4 points', '1.00 points')
    """
    return f"{number(difference.value, decimals([as_interval(difference)]))} points"


def interval_of(difference: Difference) -> str:
    """The interval of a difference.

    Args:
        difference: of two numbers.

    Example:
        >>> interval_of(Difference(0, 1, 3.44, (1.1, 5.9), 2))
        '[1.1, 5.9]'
    """
    one = as_interval(difference)
    return bracket(one, decimals([one]))


def as_interval(difference: Difference) -> Interval:
    """A difference as a number with its interval.

    Args:
        difference: of two numbers.
    """
    return Interval(difference.value, *difference.interval)


def _note(one: Comparison, groups: Sequence[str], methods: int, *, alone: bool) -> str:
    """How the intervals are to be read."""
    what = "" if alone else ", the same draw for pruned and dense"
    note = f"In brackets the 95 % interval of each difference (bootstrap{what})"
    picked = [f"two of {len(groups)} groups"] * (len(groups) > 2)
    picked += [f"two of {methods} methods"] * (methods > 2)
    if picked:
        note += f", corrected for picking {' and '.join(picked)}"
    seeds = len(one.counts[0])
    return (
        f"{note}, over samples and {seeds} models of each."
        if seeds > 1
        else f"{note}, of one model each."
    )
