"""Who is taken for whom: label by group, right answers of each, and confusion within each group."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from fairgrape_jax.reports import row_charts
from fairgrape_jax.reports.blocks import Block, Figure, Folded, Table, Text
from fairgrape_jax.reports.charts import Interval
from fairgrape_jax.reports.comparison import Comparison
from fairgrape_jax.reports.precision import decimals, number

DRAWN = 12  # classes of a confusion matrix that is drawn; of more the commonest errors are listed
ROWS = 30  # of a table of labels within groups
ERRORS = 15
COUNTS_IN_A_ROW = 12
PANELS = 12  # groups


@dataclasses.dataclass(frozen=True)
class Answers:
    """What sets of models say of the same samples, in one task.

    Attributes:
        labels: (N,) int.
        members: (N,) int, the group of each; -1 for none.
        predictions: of each set (S, N) int, by name, the leader first.
        dense: (D, N) int; none where the models are compared with nothing.
        groups: their names.
        classes: their names.
    """

    labels: np.ndarray
    members: np.ndarray
    predictions: Mapping[str, np.ndarray]
    dense: np.ndarray
    groups: Sequence[str]
    classes: Sequence[str]

    def confused(self, predictions: np.ndarray, group: int) -> np.ndarray:
        """How often each class of a group is taken for each.

        Args:
            predictions: (S, N) int.
            group: its place.

        Returns:
            (C, C) counts of all models together, by label and prediction.
        """
        size = len(self.classes)
        inside = self.members == group
        codes = self.labels[inside] * size + predictions[:, inside]
        return np.bincount(codes.ravel(), minlength=size * size).reshape(size, size)


def label_by_group(comparison: Comparison, task: int, answers: Answers) -> list[Block]:
    """How many samples of each label there are in each group.

    Args:
        comparison: any set of models.
        task: which one.
        answers: the names of classes and groups.

    Returns:
        A title and a table: of more than ROWS labels the rarest.
    """
    counts = comparison.counts[task][0, : comparison.num_groups, :, 1]
    order = np.arange(len(answers.classes))
    if len(order) > ROWS:
        order = np.sort(np.argsort(counts.min(axis=0), kind="stable")[:ROWS])
    labels = [answers.classes[int(c)] for c in order]
    left = f" (the {ROWS} rarest of {len(answers.classes)} labels)" * (len(order) < counts.shape[1])
    title = Text(f"Test samples of each label and group{left}:")
    if len(answers.groups) < len(labels) <= COUNTS_IN_A_ROW:
        rows = [
            [g, *[f"{n:,}" for n in of_group]]
            for g, of_group in zip(answers.groups, counts, strict=True)
        ]
        return [title, Table(["group, label", *labels], rows)]
    rows = [
        [c, *[f"{n:,}" for n in of_label]]
        for c, of_label in zip(labels, counts.T[order], strict=True)
    ]
    return [title, Table(["label, group", *answers.groups], rows)]


def right_answers(comparisons: Sequence[Comparison], task: int, answers: Answers) -> list[Block]:
    """How often each label is recognised in each group, by the dense models and by each set.

    Args:
        comparisons: sets of models, the leader first.
        task: which one.
        answers: the names of classes and groups.

    Returns:
        A title and tables: ROWS rows at most, those that the leader has lost most of.
    """
    count = comparisons[0].num_groups
    tables = [one.counts[task][:, :count].sum(axis=0) for one in comparisons]
    names = [one.name for one in comparisons]
    if len(answers.dense):
        tables.insert(0, comparisons[0].dense[task][:, :count].sum(axis=0))
        names.insert(0, "dense")
    samples = comparisons[0].counts[task][0, :count, :, 1]
    places = [(c, g) for c in range(samples.shape[1]) for g in range(count) if samples[g, c]]
    left = ""
    if len(places) > ROWS:

        def change(place: tuple[int, int]) -> float:
            c, g = place
            rates = [table[g, c, 0] / table[g, c, 1] for table in tables[:2]]
            return float(rates[1] - rates[0]) if len(answers.dense) else float(rates[0])

        left = f" (of {len(places)}, the {ROWS} that fare worst with {comparisons[0].name})"
        places = sorted(sorted(places, key=change)[:ROWS])
    rates = [[_rate(table[g, c], samples[g, c]) for table in tables] for c, g in places]
    digits = decimals([one for row in rates for one in row])
    rows = [
        [
            f"{answers.classes[c]}, {answers.groups[g]}",
            f"{samples[g, c]:,}",
            *[number(one.value, digits) for one in row],
        ]
        for (c, g), row in zip(places, rates, strict=True)
    ]
    title = Text(f"Read right, in percent of the samples of a label in a group{left}:")
    return [title, Table(["label, group", "samples", *names], rows)]


def _rate(counts: np.ndarray, samples: int) -> Interval:
    """Hits over labelled in percent, and how exactly so many samples tell it."""
    rate = float(100 * counts[0] / counts[1])
    reach = float(1.96 * np.sqrt(max(rate * (100 - rate), 100.0) / samples))
    return Interval(rate, rate - reach, rate + reach)


def matrices(answers: Answers) -> list[Block]:
    """Confusion within each group, of the dense models and of each set; the leader is not folded.

    Args:
        answers: what they say.

    Returns:
        Figures where there are few classes, else the errors that have become commonest.
    """
    if len(answers.classes) > DRAWN:
        return [common_errors(name, answers) for name in list(answers.predictions)[:1]]
    sets = dict(answers.predictions)
    if len(answers.dense):
        leader, *others = sets.items()
        sets = dict([leader, ("dense", answers.dense), *others])
    figures = [_figure(name, predictions, answers) for name, predictions in sets.items()]
    folded = [Folded(f"Confusion: {f.title.partition(': ')[2]}", [f]) for f in figures[1:]]
    return [figures[0], *folded]


def _figure(name: str, predictions: np.ndarray, answers: Answers) -> Figure:
    panels = [
        row_charts.confusion(group, answers.classes, answers.confused(predictions, g))
        for g, group in enumerate(answers.groups[:PANELS])
    ]
    note = "Rows: the label; columns: what the model says; in percent of the label's samples."
    if len(answers.groups) > PANELS:
        note += f" The first {PANELS} of {len(answers.groups)} groups."
    return Figure(f"Confusion by group: {name}", panels, note)


def common_errors(name: str, answers: Answers) -> Table:
    """The errors that a set of models makes more often than its dense models do.

    Args:
        name: of the set.
        answers: what they say.

    Returns:
        A table of ERRORS rows at most.
    """
    errors = []
    for g, group in enumerate(answers.groups):
        after = answers.confused(answers.predictions[name], g) / len(answers.predictions[name])
        before = np.zeros_like(after)
        if len(answers.dense):
            before = answers.confused(answers.dense, g) / len(answers.dense)
        more = after - before
        np.fill_diagonal(more, 0)
        for place in np.argsort(-more, axis=None, kind="stable")[:ERRORS]:
            label, guess = (int(x) for x in np.unravel_index(place, more.shape))
            if more[label, guess] > 0:
                errors.append((more[label, guess], group, label, guess, before, after))
    errors.sort(key=lambda x: -x[0])
    rows = [
        [
            f"{answers.classes[label]} taken for {answers.classes[guess]}",
            group,
            *[f"{before[label, guess]:.1f}"] * bool(len(answers.dense)),
            f"{after[label, guess]:.1f}",
        ]
        for _, group, label, guess, before, after in errors[:ERRORS]
    ]
    header = ["samples of each model", "group", *["dense"] * bool(len(answers.dense)), name]
    return Table(header, rows)
