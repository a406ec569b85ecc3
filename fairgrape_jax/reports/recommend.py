"""What to use for some data, from finished runs: one method, or that the data do not tell."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fairgrape_jax import config
from fairgrape_jax.errors import UsageError
from fairgrape_jax.reports import summary
from fairgrape_jax.reports.charts import Interval
from fairgrape_jax.reports.collapse import join_names
from fairgrape_jax.reports.differences import Difference, Models
from fairgrape_jax.reports.precision import decimals, number, with_interval
from fairgrape_jax.reports.results import Cell, Model, cell, read_all
from fairgrape_jax.reports.run_results import compare_methods
from fairgrape_jax.reports.verdict import (
    WORST_GROUP,
    as_interval,
    beats_one_class,
    interval_of,
    points,
    standing,
)

NEAR = (0.7, 1.5)  # times the asked-for part of the weights: a round within stands for it
REPLICATES = 1000


@dataclasses.dataclass(frozen=True)
class Recommendation:
    """What to use.

    Attributes:
        method: its name, RUN:METHOD of several runs; "" where the data do not tell.
        density: the part of the weights at which the methods were compared.
        difference: of the worst groups of the first and the second; None where there is no second.
        text: all of it in a paragraph.
    """

    method: str
    density: float
    difference: Difference | None
    text: str


def recommend(runs: Sequence[Path], density: float | None = None) -> Recommendation:
    """What to use for the data of some finished runs.

    The criterion is the accuracy of the worst group. A method is recommended where the 95 %
    interval of its difference from the runner-up, corrected for picking the two of all methods,
    leaves out zero.

    Args:
        runs: their directories, of the same data and groups.
        density: the part of the weights at which methods are compared; the smallest one that all of
            them have reached by default.

    Raises:
        UsageError: what is no run, runs of other data, no shared seed, a density that no run has
            reached.
    """
    models = read_all(runs)
    level = smallest_shared(models) if density is None else density
    if not 0 < level < 1:
        raise UsageError(f"--density: {level} is not a part of the weights between 0 and 1")
    cells, missing = cells_near(models, level)
    if not cells:
        raise UsageError(
            f"--density: no run has a round near {_percent(level)} of the weights; the smallest "
            f"that all methods reached is {_percent(smallest_shared(models))}"
        )
    compared = compare_methods(cells)
    if len(cells) > 1 and compared is None:
        raise UsageError(
            "the runs share no seed, or not their test samples: their methods cannot be compared; "
            "run them with the same seeds on the same data"
        )
    notes = [f"{name} has no round near {_percent(level)} of the weights." for name in missing]
    shared = set.intersection(*[{model.seed for model in one.models} for one in cells])
    more = [one.name for one in cells if len(one.models) > len(shared)]
    if more:
        seeds = ", ".join(map(str, sorted(shared)))
        notes.append(f"Compared on seeds {seeds} alone; {join_names(more)} have more.")
    return _decide(runs, cells, compared, level, notes)


def smallest_shared(models: Sequence[Model]) -> float:
    """The smallest part of the weights that all methods have reached with all their seeds.

    Args:
        models: evaluated networks.
    """
    last: dict[str, dict[int, float]] = {}
    for model in models:
        if model.record["method"] != "dense":
            of_seed = last.setdefault(model.name, {})
            of_seed[model.seed] = min(model.density, of_seed.get(model.seed, 1.0))
    return max(max(of_seed.values()) for of_seed in last.values())


def cells_near(models: Sequence[Model], density: float) -> tuple[list[Cell], list[str]]:
    """Each method at the round that is nearest to a density.

    Args:
        models: evaluated networks.
        density: part of the weights.

    Returns:
        The methods with their intervals; and the names of those that have no round near it.
    """
    cells, missing = [], []
    for name in dict.fromkeys(m.name for m in models if m.record["method"] != "dense"):
        rounds: dict[int, list[Model]] = {}
        seeds = {model.seed for model in models if model.name == name}
        for model in models:
            if model.name == name:
                rounds.setdefault(model.record["round"], []).append(model)
        whole = [each for each in rounds.values() if len(each) == len(seeds)]
        ratio = {place: each[0].density / density for place, each in enumerate(whole)}
        near = [place for place in ratio if NEAR[0] < ratio[place] < NEAR[1]]
        if not near:
            missing.append(name)
            continue
        best = min(near, key=lambda place: abs(math.log(ratio[place])))
        cells.append(cell(tuple(whole[best]), REPLICATES))
    return cells, missing


def _decide(
    runs: Sequence[Path],
    cells: Sequence[Cell],
    compared: Models | None,
    density: float,
    notes: Sequence[str],
) -> Recommendation:
    """The recommendation and its paragraph."""
    weak = [
        f"{one.name} is left out: it {_NOT_BETTER}." for one in cells if not beats_one_class(one)
    ]
    rank = standing(cells, compared)
    data = _data(runs, cells)
    at = f"at {_percent(density)} of the weights"
    if rank.leader < 0:
        text = f"{data} these data do not tell what to use {at}: no method {_BETTER}."
        return Recommendation("", density, None, " ".join([text, *notes]))
    leader = cells[rank.leader]
    groups = leader.models[0].record["groups"]
    against_dense = _costs(leader, groups)
    if compared is None or rank.difference is None:
        only = "the only method" if len(cells) == 1 else "the only one that does better"
        sentence = f"{data} there is nothing to choose from {at}: {leader.name} is {only}."
        parts = [sentence, against_dense, *weak * (len(cells) > 1), *notes]
        return Recommendation("", density, None, " ".join(parts))
    runner_up, difference = cells[rank.runner_up], rank.difference
    distance = f"{points(difference)} {interval_of(difference)} more accurate than"
    if difference.clear:
        parts = [
            f"{data} use {leader.name} {at}: its worst group is {distance} that of "
            f"{runner_up.name}, the runner-up of {len(cells)}.",
            against_dense,
            _overall(compared, rank.leader, rank.runner_up, runner_up.name),
            "It was chosen by these test samples: look at it on others.",
        ]
    else:
        if difference.value == 0:
            distance = "as accurate as"
        parts = [
            f"{data} these data do not tell what to use {at}: the worst group of {leader.name} is "
            f"{distance} that of {runner_up.name}.",
            *_clearly_worse(cells, compared, rank.leader),
            *_not_to_be_seen(difference),
            against_dense,
        ]
    method = leader.name if difference.clear else ""
    return Recommendation(method, density, difference, " ".join([*parts, *weak, *notes, _NOTE]))


_BETTER = "is shown to be right more often than always saying the most frequent class"
_NOT_BETTER = f"is not {_BETTER.removeprefix('is ')}"
_NOTE = (
    "Intervals: 95 %, paired bootstrap over samples and seeds; of differences between methods "
    "corrected for picking two of several."
)


def _not_to_be_seen(difference: Difference) -> list[str]:
    """How large a difference must have been for these data to tell it."""
    low, high = difference.interval
    if not low < high:
        return []
    least = number((high - low) / 2, decimals([as_interval(difference)]))
    return [
        f"A difference of less than about {least} points could not have been seen: more seeds or "
        "test samples may tell."
    ]


def _percent(density: float) -> str:
    return f"{100 * density:.3g} %"


def _data(runs: Sequence[Path], cells: Sequence[Cell]) -> str:
    """For what data the recommendation is."""
    source = config.read(runs[0] / "config.json")["experiment"]["data"]["name"]
    record = cells[0].models[0].record
    tasks = ", ".join(name for name, _ in record["tasks"][:3])
    seeds = len(set.intersection(*[{model.seed for model in one.models} for one in cells]))
    return (
        f"For {tasks} on {source} ({cells[0].total:,} test samples: "
        f"{summary.sizes(cells[0], record['groups'])}; {seeds} seed{'s' * (seeds != 1)})"
    )


def _costs(one: Cell, groups: Sequence[str]) -> str:
    """What a method costs its worst group and all samples against the dense networks."""
    worst = int(np.nanargmin(one.mean["group_accuracy"]))
    change = Interval(*(float(x["group_change"][worst]) for x in (one.mean, one.low, one.high)))
    accuracy = Interval(*(float(x["group_accuracy"][worst]) for x in (one.mean, one.low, one.high)))
    return (
        f"With {one.name} {groups[worst]}, the worst group, has {with_interval(accuracy)} % right, "
        f"{with_interval(change, sign=True)} points against the dense network."
    )


def _overall(compared: Models, leader: int, other: int, name: str) -> str:
    difference = compared.difference(leader, other, 0)
    text = with_interval(as_interval(difference), sign=True)
    return f"Over all samples its accuracy is {text} points from that of {name}."


def _clearly_worse(cells: Sequence[Cell], compared: Models, leader: int) -> list[str]:
    """The methods whose worst group is shown to be less accurate than the leader's."""
    worse = []
    for place, one in enumerate(cells):
        difference = compared.difference(leader, place, WORST_GROUP)
        if place != leader and difference.clear and beats_one_class(one):
            worse.append(f"{one.name} by {points(difference)} {interval_of(difference)}")
    if not worse:
        return []
    return [f"Worse than {cells[leader].name} in the worst group: {'; '.join(worse)}."]
