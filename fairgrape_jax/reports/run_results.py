"""What a report of runs is made from: the last rounds, compared on the same samples and seeds."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fairgrape_jax.reports.confusion import Answers
from fairgrape_jax.reports.differences import Models, compare_models
from fairgrape_jax.reports.results import Cell, Model
from fairgrape_jax.reports.verdict import Standing, standing

MOST_TASKS = 4  # of many tasks, those whose classes are drawn


@dataclasses.dataclass(frozen=True)
class Results:
    """What a report of runs is made from.

    Attributes:
        runs: their directories; the first one's settings are shown.
        models: every evaluated network.
        cells: those that are compared, the dense networks first.
        last: each method after its last round; its name says what is left where that differs.
        compared: the measures of several methods, resampled together; None where they cannot be.
        standing: which of `last` is first.
    """

    runs: Sequence[Path]
    models: Sequence[Model]
    cells: Sequence[Cell]
    last: Sequence[Cell]
    compared: Models | None
    standing: Standing

    @property
    def groups(self) -> list[str]:
        """The names of the groups."""
        names: list[str] = self.models[0].record["groups"]
        return names

    @property
    def tasks(self) -> list[tuple[str, Sequence[str]]]:
        """The name of each task and the names of its classes."""
        return [(name, classes) for name, classes in self.models[0].record["tasks"]]

    @property
    def ranked(self) -> list[Cell]:
        """`last`, the leader first."""
        leader = self.last[max(0, self.standing.leader)]
        return [leader, *(cell for cell in self.last if cell is not leader)]


def gather(runs: Sequence[Path], models: Sequence[Model], cells: Sequence[Cell]) -> Results:
    """Compare the methods.

    Args:
        runs: their directories.
        models: every evaluated network.
        cells: those that are compared, the dense networks first.
    """
    last = last_rounds(cells)
    compared = compare_methods(last)
    return Results(runs, models, cells, last, compared, standing(last, compared))


def last_rounds(cells: Sequence[Cell]) -> list[Cell]:
    """Each method after its last round; its name says what is left, where methods differ in it.

    Args:
        cells: a method after a round, each.

    Returns:
        Of each pruned method the last one.
    """
    pruned = list({cell.name: cell for cell in cells if not cell.dense_itself}.values())
    levels = {f"{100 * cell.density:.3g}" for cell in pruned}
    if len(levels) == 1:
        return pruned
    return [dataclasses.replace(cell, name=f"{cell.name}, {cell.weights_left}") for cell in pruned]


def bare_names(results: Results, cells: Sequence[Cell]) -> list[str]:
    """The names of methods as they are in `models`, without what they left.

    Args:
        results: what a report is made from.
        cells: some of the last ones.
    """
    name_of = {cell.name: cell.models[0].name for cell in results.last}
    return [name_of[cell.name] for cell in cells]


def compare_methods(cells: Sequence[Cell]) -> Models | None:
    """The measures of several methods, on the same samples and seeds.

    Args:
        cells: a method after a round, each.

    Returns:
        None for a single method, or where they share no seed, or not their samples.
    """
    if len(cells) < 2:
        return None
    seeds = sorted(set.intersection(*[{m.seed for m in cell.models} for cell in cells]))
    first = cells[0].models[0].predicted
    same = all(
        np.array_equal(model.predicted.labels, first.labels)
        and np.array_equal(model.predicted.groups, first.groups)
        for cell in cells
        for model in cell.models
    )
    if not seeds or not same:
        return None
    networks = [
        sorted((m for m in cell.models if m.seed in seeds), key=lambda model: model.seed)
        for cell in cells
    ]
    right, dense = (
        np.stack(
            [[p.predictions == p.labels for m in each for p in [pick(m)]] for each in networks]
        )
        for pick in (lambda model: model.predicted, lambda model: model.dense)
    )
    return compare_models(right, dense, first.groups, cells[0].num_groups)


def answers_of(results: Results) -> list[Answers]:
    """What the methods say after their last rounds, of each task.

    Args:
        results: what the report is made from.
    """
    ranked = results.ranked
    first, dense = ranked[0].models[0].predicted, results.cells[0]
    cells = [
        cell
        for cell in ranked
        if all(
            np.array_equal(m.predicted.labels, first.labels)
            and np.array_equal(m.predicted.groups, first.groups)
            for m in cell.models
        )
    ]
    return [
        Answers(
            labels=first.labels[:, task],
            members=first.groups,
            predictions={
                cell.name: np.stack([m.predicted.predictions[:, task] for m in cell.models])
                for cell in cells
            },
            dense=np.stack([m.predicted.predictions[:, task] for m in dense.models]),
            groups=results.groups,
            classes=classes,
        )
        for task, (_, classes) in enumerate(results.tasks[:MOST_TASKS])
    ]


def changed_samples(cell: Cell) -> np.ndarray:
    """The samples on which every network differs from its dense one, in any task.

    Args:
        cell: a method after a round.

    Returns:
        (N,) bool.
    """
    predictions = np.stack([model.predicted.predictions for model in cell.models])
    dense = np.stack([model.dense.predictions for model in cell.models])
    return (predictions != dense).any(axis=-1).all(axis=0)
