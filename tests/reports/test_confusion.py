"""Who is taken for whom: counted by hand, of few classes and of many."""

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from fairgrape_jax.metrics.samples import Samples
from fairgrape_jax.reports.blocks import Figure, Folded, Table
from fairgrape_jax.reports.comparison import compare
from fairgrape_jax.reports.confusion import (
    ROWS,
    Answers,
    common_errors,
    label_by_group,
    matrices,
    right_answers,
)


def made(classes, groups, samples=900, seed=0):
    """A dense model, a set of two models, and what both say."""
    rng = np.random.default_rng(seed)
    labels, members = rng.integers(0, classes, samples), rng.integers(-1, groups, samples)

    def says(rate):
        right = rng.random(samples) < rate
        return np.where(right, labels, rng.integers(0, classes, samples))

    dense, models = says(0.95)[None], np.stack([says(0.7), says(0.8)])
    answers = Answers(
        labels,
        members,
        {"m": models},
        dense,
        [f"g{k}" for k in range(groups)],
        [f"c{k}" for k in range(classes)],
    )
    base = np.broadcast_to(dense, models.shape)[..., None]
    shared = Samples(labels[:, None], members, [classes], groups)
    return answers, compare("m", shared, models[..., None], base, replicates=20)


@pytest.mark.parametrize("classes", [2, 5])
def test_confusion_is_that_of_scikit_learn(classes):
    answers, _ = made(classes, 3)
    for group in range(3):
        inside = answers.members == group
        expected = sum(
            confusion_matrix(answers.labels[inside], model[inside], labels=range(classes))
            for model in answers.predictions["m"]
        )
        np.testing.assert_array_equal(answers.confused(answers.predictions["m"], group), expected)


@pytest.mark.parametrize(("classes", "groups"), [(2, 3), (6, 2), (20, 2), (40, 3)])
def test_labels_and_right_answers_are_counted(classes, groups):
    answers, one = made(classes, groups)
    (title, counts) = label_by_group(one, 0, answers)
    cells = {
        (row[0], head): int(cell.replace(",", ""))
        for row in counts.rows
        for head, cell in zip(counts.header[1:], row[1:], strict=True)
    }
    cells |= {(b, a): n for (a, b), n in cells.items()}  # rows may be groups or labels
    assert ("the 30 rarest of 40" in title.text) == (classes > ROWS)
    title, table = right_answers([one], 0, answers)
    assert table.header == ["label, group", "samples", "dense", "m"]
    assert len(table.rows) == min(ROWS, classes * groups)
    assert (f"of {classes * groups}, the 30 that fare worst" in title.text) == (
        classes * groups > ROWS
    )
    for name, samples, _, rate in table.rows:
        label, group = name.split(", ")
        inside = (answers.labels == int(label[1:])) & (answers.members == int(group[1:]))
        assert int(samples) == inside.sum() == cells.get((label, group), inside.sum())
        right = 100 * (answers.predictions["m"][:, inside] == answers.labels[inside]).mean()
        assert float(rate) == pytest.approx(right, abs=0.5)


def test_few_classes_are_drawn_and_of_many_the_errors_that_grew_are_listed():
    answers, _ = made(5, 2)
    figure, folded = matrices(answers)
    assert isinstance(figure, Figure)
    assert isinstance(folded, Folded)
    assert [chart.label for chart in figure.charts] == ["g0", "g1"]
    answers, _ = made(20, 2)
    (table,) = matrices(answers)
    assert isinstance(table, Table)
    assert table.header == ["samples of each model", "group", "dense", "m"]
    grown = [float(row[3]) - float(row[2]) for row in table.rows]
    assert grown == sorted(grown, reverse=True)
    assert grown[0] > 0


def test_an_error_that_is_made_often_is_the_first_one():
    answers, _ = made(20, 2)
    models = answers.predictions["m"].copy()
    models[:, (answers.labels == 7) & (answers.members == 1)] = 3
    changed = Answers(
        answers.labels,
        answers.members,
        {"m": models},
        answers.dense,
        answers.groups,
        answers.classes,
    )
    assert common_errors("m", changed).rows[0][:2] == ["c7 taken for c3", "g1"]
