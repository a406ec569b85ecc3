"""Write and read the predictions of a stage, a CSV file."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fairgrape_jax import storage
from fairgrape_jax.data.dataset import NO_GROUP, Dataset, Task, score_columns
from fairgrape_jax.training.evaluate import Predictions

PICTURE = "picture"  # the column of the files' names


def write_predictions(path: Path, predicted: Predictions, dataset: Dataset) -> None:
    """Write a row per sample.

    Its place in the test split, its picture where the dataset is of files, its group ("" for none),
    label and prediction of each task, and the scores of `dataset.score_columns`.

    Args:
        path: of the file; there whole or not at all.
        predicted: of the test split.
        dataset: for names of groups, tasks and classes.
    """
    group_names = {NO_GROUP: ""} | dict(enumerate(dataset.groups))
    places = predicted.places
    columns: dict[str, Sequence[object]] = {
        "index": range(len(predicted.groups)) if places is None else places.tolist()
    }
    if predicted.names is not None:
        columns[PICTURE] = predicted.names
    columns["group"] = [group_names[group] for group in predicted.groups.tolist()]
    for suffix, codes in (("", predicted.labels), ("_predicted", predicted.predictions)):
        for task, column in zip(dataset.tasks, codes.T.tolist(), strict=True):
            columns[task.name + suffix] = [task.classes[code] for code in column]
    if predicted.scores is not None:
        names = score_columns(dataset.tasks)
        for name, column in zip(names, predicted.scores.T.tolist(), strict=True):
            columns[name] = [f"{score:.6g}" for score in column]
    with (
        storage.atomic_write(path) as partial,
        partial.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def read_predictions(
    path: Path, groups: tuple[str, ...], tasks: list[tuple[str, tuple[str, ...]]]
) -> Predictions:
    """Read what `write_predictions` wrote, in this version or before there were names and scores.

    Args:
        path: of the file.
        groups: their names, in order.
        tasks: the name of each and its classes, in order.

    Returns:
        The predictions; losses are not kept and come back as NaN.
    """
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    columns = dict(zip(header, zip(*rows, strict=True), strict=True)) if rows else {}
    group_codes = {"": NO_GROUP} | {name: code for code, name in enumerate(groups)}

    def classes_of(suffix: str) -> np.ndarray:
        codes = []
        for name, classes in tasks:
            codes_of = {word: code for code, word in enumerate(classes)}
            codes.append([codes_of[word] for word in columns[name + suffix]])
        return np.asarray(codes, np.int32).T.reshape(len(rows), len(tasks))

    scores = score_columns([Task(name, classes) for name, classes in tasks])
    complete = all(name in columns for name in scores)
    return Predictions(
        labels=classes_of(""),
        predictions=classes_of("_predicted"),
        groups=np.asarray([group_codes[name] for name in columns["group"]], np.int32),
        losses=np.full(len(rows), np.nan, np.float32),
        scores=np.array([columns[name] for name in scores], np.float32).T if complete else None,
        places=np.asarray(columns["index"], np.int64),
        names=columns.get(PICTURE),
    )
