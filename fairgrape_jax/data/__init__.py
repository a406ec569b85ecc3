"""Datasets: one row per source, one function that loads any of them and checks the result."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from fairgrape_jax.data import prepared, synthetic, utkface, writers
from fairgrape_jax.data.source import Progress, Source
from fairgrape_jax.data.types import Dataset, Split, Task
from fairgrape_jax.errors import TrainingError, UsageError

__all__ = ["SOURCES", "Dataset", "Source", "Split", "Task", "check", "load", "source"]

# A new dataset is one file with an options class and a load function, and one row here.
SOURCES: dict[str, tuple[type[Source], Callable[..., Dataset]]] = {
    "writers": (writers.Writers, writers.load),
    "utkface": (utkface.UTKFace, utkface.load),
    "synthetic": (synthetic.Synthetic, synthetic.load),
    "prepared": (prepared.Prepared, prepared.load),
}


def source(name: str, **options: Any) -> Source:
    """The options of the dataset `name`. UsageError for an unknown dataset or option.

    >>> source("synthetic", samples=500).seed
    42
    """
    kind, _ = _row(name)
    known = [field.name for field in dataclasses.fields(kind)]
    for option in options:
        if option not in known:
            raise UsageError(f"{name} has no option {option!r}; known: {', '.join(known)}")
    return kind(**options)


def load(source: Source, progress: Progress | None = None) -> Dataset:
    """Read the dataset that `source` describes, and check it.

    progress: called now and then with (samples read, samples in all).
    UsageError if the options, the files or the samples in them cannot be used.
    """
    _, read = _row(source.name)
    try:
        dataset = read(source, progress)
    except TrainingError as error:  # a broken picture; nothing is trained yet
        raise UsageError(str(error)) from error
    check(dataset)
    return dataset


def _row(name: str) -> tuple[type[Source], Callable[..., Dataset]]:
    if name not in SOURCES:
        raise UsageError(f"dataset {name!r} is unknown; known: {', '.join(SOURCES)}")
    return SOURCES[name]


def check(dataset: Dataset) -> None:
    """UsageError if the dataset cannot be trained, pruned and evaluated on; says what is wrong."""
    for name, values in (("mean", dataset.mean), ("std", dataset.std)):
        if not np.isfinite(values).all() or (name == "std" and min(values) <= 0):
            raise UsageError(
                f"{name}: {tuple(values)} cannot normalise pictures; give one per channel"
            )
    _check_names(dataset)
    for name in ("train", "validation", "test"):
        split = getattr(dataset, name)
        _check_arrays(name, split, dataset)
        _check_labels(name, split, dataset.tasks)
        _check_groups(name, split, dataset.groups)


def _check_names(dataset: Dataset) -> None:
    """Names are what predictions are stored by: each once, in UTF-8."""
    tables = {"tasks": tuple(task.name for task in dataset.tasks), "groups": dataset.groups}
    tables |= {f"classes of task {task.name!r}": task.classes for task in dataset.tasks}
    for what, names in tables.items():
        if len(set(names)) < len(names):
            raise UsageError(f"{what}: {max(names, key=names.count)!r} is there twice")
        for name in names:
            if not name.isascii() and name != name.encode(errors="replace").decode():
                raise UsageError(f"{what}: {name!r} is not Unicode; name it anew")
    taken = {"index", "group", *(f"{name}_predicted" for name in tables["tasks"])}
    if clash := taken & set(tables["tasks"]):
        raise UsageError(
            f"task {min(clash)!r}: predictions.csv has a column of this name; rename it"
        )


def _check_arrays(name: str, split: Split, dataset: Dataset) -> None:
    images, labels, groups = split.images, split.labels, split.groups
    if images.dtype != np.uint8:
        lost = not_finite(images) if isinstance(images, np.ndarray) else ""
        raise UsageError(f"{name}: images are {images.dtype}{lost}, give uint8 (0 to 255)")
    for kind, numbers in (("labels", labels), ("groups", groups)):
        if not np.issubdtype(numbers.dtype, np.integer):
            lost = not_finite(numbers)
            raise UsageError(f"{name}: {kind} are {numbers.dtype}{lost}, give integers")
    if images.ndim != 4:
        raise UsageError(f"{name}: images have shape {images.shape}, give (N, H, W, C)")
    if not len(images) == len(labels) == len(groups):
        raise UsageError(
            f"{name}: {len(images)} images, {len(labels)} labels and {len(groups)} groups;"
            " give as many of each"
        )
    if images.shape[1:] != dataset.shape:
        raise UsageError(f"{name}: pictures are {images.shape[1:]}, in train {dataset.shape}")
    if labels.shape[1:] != (len(dataset.tasks),):
        raise UsageError(f"{name}: labels are {labels.shape}, give (N, {len(dataset.tasks)})")


def not_finite(numbers: np.ndarray) -> str:
    """Which samples have a number that is not finite, in words; "" if none has, or it cannot."""
    if not np.issubdtype(numbers.dtype, np.inexact):
        return ""
    bad = np.flatnonzero(~np.isfinite(numbers.reshape(len(numbers), -1)).all(axis=1))
    return f", not finite{samples(bad)}" if len(bad) else ""


def samples(numbers: np.ndarray) -> str:
    """Their numbers in words, the first few of them.

    >>> samples(np.array([3, 17]))
    ' (samples 3, 17)'
    """
    more = f" and {len(numbers) - 5} more" if len(numbers) > 5 else ""
    return f" (samples {', '.join(map(str, numbers[:5]))}{more})"


def _check_labels(name: str, split: Split, tasks: tuple[Task, ...]) -> None:
    for task, column in zip(tasks, split.labels.T, strict=True):
        wrong = np.flatnonzero((column < 0) | (column >= len(task.classes)))
        if len(wrong):
            raise UsageError(
                f"{name}: label {column[wrong[0]]} of task {task.name!r} is out of range: it has"
                f" {len(task.classes)} classes, numbered from 0{samples(wrong)}"
            )


def _check_groups(name: str, split: Split, groups: tuple[str, ...]) -> None:
    wrong = np.flatnonzero((split.groups < 0) | (split.groups >= len(groups)))
    if len(wrong):
        raise UsageError(
            f"{name}: group {split.groups[wrong[0]]} is out of range: there are {len(groups)},"
            f" numbered from 0{samples(wrong)}"
        )
    for group, count in zip(groups, np.bincount(split.groups, minlength=len(groups)), strict=True):
        if not count:
            raise UsageError(
                f"{name}: no sample of group {group!r}; give more samples, a higher limit,"
                " or another group column"
            )
