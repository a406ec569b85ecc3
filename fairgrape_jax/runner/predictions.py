"""Write and read the predictions of a stage, a CSV file."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from fairgrape_jax import storage
from fairgrape_jax.data.dataset import NO_GROUP, Dataset
from fairgrape_jax.training.evaluate import Predictions


def write_predictions(path: Path, predicted: Predictions, dataset: Dataset) -> None:
    """One row per sample: its group ("" for none), then label and prediction of each task."""
    group_names = {NO_GROUP: ""} | dict(enumerate(dataset.groups))
    names = [task.name for task in dataset.tasks]

    def words(numbers: np.ndarray) -> list[str]:
        return [task.classes[c] for task, c in zip(dataset.tasks, numbers, strict=True)]

    with (
        storage.atomic_write(path) as partial,
        partial.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(["index", "group", *names, *[f"{name}_predicted" for name in names]])
        rows = zip(predicted.groups, predicted.labels, predicted.predictions, strict=True)
        for index, (group, labels, guesses) in enumerate(rows):
            writer.writerow([index, group_names[group], *words(labels), *words(guesses)])


def read_predictions(
    path: Path, groups: tuple[str, ...], tasks: list[tuple[str, tuple[str, ...]]]
) -> Predictions:
    """The inverse of `write_predictions`; the losses are not kept and come back as NaN.

    Args:
        path: of the CSV file.
        groups: the names of the groups.
        tasks: the name of each task, and the names of its classes.
    """
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    group_ids = {"": NO_GROUP} | {name: i for i, name in enumerate(groups)}

    def column(suffix: str) -> np.ndarray:
        ids = [[classes.index(row[name + suffix]) for row in rows] for name, classes in tasks]
        return np.asarray(ids, np.int32).T.reshape(len(rows), len(tasks))

    return Predictions(
        labels=column(""),
        predictions=column("_predicted"),
        groups=np.asarray([group_ids[row["group"]] for row in rows], np.int32),
        losses=np.full(len(rows), np.nan, np.float32),
    )
