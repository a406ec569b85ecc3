"""Check a dataset: can it be trained, pruned and evaluated on?"""

from __future__ import annotations

import numpy as np

from fairgrape_jax.data.dataset import NO_GROUP, Dataset, Split, Task, score_columns
from fairgrape_jax.errors import UsageError


def check(dataset: Dataset) -> None:
    """Refuse a dataset that cannot be trained, pruned and evaluated on.

    Args:
        dataset: All of it; pictures on disk are not decoded.

    Raises:
        UsageError: It says what is wrong, and with which samples.
    """
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
        _check_groups(name, split, dataset)


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
    taken = {"index", "picture", "group", *score_columns(dataset.tasks)}
    taken |= {f"{name}_predicted" for name in tables["tasks"]}
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
    if split.names is not None and len(split.names) != len(labels):
        raise UsageError(f"{name}: {len(split.names)} names for {len(labels)} samples")
    if images.shape[1:] != dataset.shape:
        raise UsageError(f"{name}: pictures are {images.shape[1:]}, in train {dataset.shape}")
    if labels.shape[1:] != (len(dataset.tasks),):
        raise UsageError(f"{name}: labels are {labels.shape}, give (N, {len(dataset.tasks)})")


def not_finite(numbers: np.ndarray) -> str:
    """Which samples have a number that is not finite, in words.

    Args:
        numbers: (N, ...), of any type.

    Returns:
        A text that begins with a comma; "" if none has, or its type holds none.
    """
    if not np.issubdtype(numbers.dtype, np.inexact):
        return ""
    bad = np.flatnonzero(~np.isfinite(numbers.reshape(len(numbers), -1)).all(axis=1))
    return f", not finite{samples(bad)}" if len(bad) else ""


def samples(numbers: np.ndarray) -> str:
    """Numbers of samples in words, the first few of them.

    Args:
        numbers: (N,) places of samples.

    Returns:
        A text in brackets, with a blank before it.

    Example:
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


def _check_groups(name: str, split: Split, dataset: Dataset) -> None:
    least, count = NO_GROUP if dataset.allow_missing_groups else 0, len(dataset.groups)
    wrong = np.flatnonzero((split.groups < least) | (split.groups >= count))
    if len(wrong):
        raise UsageError(
            f"{name}: group {split.groups[wrong[0]]} is out of range: there are {count},"
            f" numbered from 0{samples(wrong)}"
        )
    sizes = np.bincount(split.groups[split.groups != NO_GROUP], minlength=count)
    for group, size in zip(dataset.groups, sizes, strict=True):
        if not size:
            raise UsageError(
                f"{name}: no sample of group {group!r}; give more samples, a higher limit,"
                " or another group column"
            )
