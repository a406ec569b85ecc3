"""predictions.csv: written and read, with names and scores, without, and as it was before."""

import csv

import numpy as np
import pytest

from fairgrape_jax.data import Dataset, Split, Task
from fairgrape_jax.data.dataset import MOST_SCORES, score_columns
from fairgrape_jax.runner.predictions import read_predictions, write_predictions
from fairgrape_jax.training.evaluate import Predictions

SIZES = {"one task": (3,), "two tasks": (2, 4), "many classes": (MOST_SCORES, 2)}


def predicted(sizes, count=6, names=("ä,b.jpg", 'say "x".png', "n\nl", "c.jpg", "=1", "\x1b[2J")):
    rng = np.random.default_rng(0)
    tasks = tuple(Task(f"t{t}", tuple(f"c{c}" for c in range(n))) for t, n in enumerate(sizes))
    labels, guesses = (
        np.stack([rng.integers(0, n, count) for n in sizes], axis=1).astype(np.int32)
        for _ in range(2)
    )
    groups = np.array([0, 1, -1, 0, 1, 1], np.int32)
    split = Split(np.zeros((count, 1, 1, 1), np.uint8), labels, groups)
    dataset = Dataset(split, split, split, tasks, ("a", "b / c"), (0.0,), (1.0,))
    scores = rng.random((count, len(score_columns(tasks)))).astype(np.float32)
    losses, places = np.zeros(count, np.float32), np.array([0, 1, 2, 5, 7, 8])
    return dataset, Predictions(labels, guesses, groups, losses, scores, places, names)


def same(read, written):
    for field in ("labels", "predictions", "groups", "places"):
        np.testing.assert_array_equal(getattr(read, field), getattr(written, field))
    assert read.names == written.names


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_what_is_written_is_read(sizes, tmp_path):
    dataset, written = predicted(sizes)
    path = tmp_path / "predictions.csv"
    write_predictions(path, written, dataset)
    tasks = [(task.name, task.classes) for task in dataset.tasks]
    read = read_predictions(path, dataset.groups, tasks)
    same(read, written)
    np.testing.assert_allclose(read.scores, written.scores, rtol=1e-5)
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows[3]["index"] == "5"
    assert rows[3]["picture"] == "c.jpg"
    assert rows[2]["group"] == ""
    assert ("t0_score_c1" in rows[0]) == (sum(sizes) <= MOST_SCORES)
    assert ("t0_score" in rows[0]) == (sum(sizes) > MOST_SCORES)


def test_a_file_of_before_is_read(tmp_path):
    dataset, _ = predicted((3,))
    path = tmp_path / "predictions.csv"
    path.write_text("index,group,t0,t0_predicted\n0,a,c0,c1\n1,b / c,c2,c2\n")
    read = read_predictions(path, dataset.groups, [("t0", dataset.tasks[0].classes)])
    assert read.labels.tolist() == [[0], [2]]
    assert read.predictions.tolist() == [[1], [2]]
    assert read.groups.tolist() == [0, 1]
    assert read.places.tolist() == [0, 1]
    assert read.scores is read.names is None
    assert np.isnan(read.losses).all()


def test_other_classes_groups_or_columns_are_no_predictions(tmp_path):
    dataset, written = predicted((3,))
    path = tmp_path / "predictions.csv"
    write_predictions(path, written, dataset)
    for groups, classes, name in (
        (("a", "x"), ("c0", "c1", "c2"), "t0"),
        (("a", "b / c"), ("c0", "c1", "c9"), "t0"),
        (("a", "b / c"), ("c0", "c1", "c2"), "t9"),
    ):
        with pytest.raises((KeyError, ValueError)):
            read_predictions(path, groups, [(name, classes)])
