"""A user's arrays as the data of an experiment: what they may be, in one form."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fairgrape_jax import spelling
from fairgrape_jax.data.builders import listing
from fairgrape_jax.data.dataset import NO_GROUP, Task
from fairgrape_jax.data.images.records import ABOUT, dataset_directory, expand_home
from fairgrape_jax.data.sources.arrays import (
    BY_SEED,
    CHUNK,
    DATASET,
    GROUP,
    IN_MEMORY,
    Arrays,
    Content,
    chosen_tasks,
    fingerprint,
    other_arrays,
)
from fairgrape_jax.data.sources.base import Source
from fairgrape_jax.data.sources.splits import NAMES
from fairgrape_jax.data.sources.stored import stored_in
from fairgrape_jax.data.validate import not_finite, samples
from fairgrape_jax.errors import UsageError

Labels = Any  # (N,), (N, T), or {task: (N,)}


def from_arrays(
    images: Any,
    labels: Labels,
    groups: Any,
    *,
    splits: Any = None,
    classes: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
    group_names: Sequence[str] = (),
    directory: str | Path | None = None,
    **options: Any,
) -> Arrays:
    """Pictures, labels and groups as the `data` of an experiment.

    A run writes them as records (those of `fairgrape data prepare`) into its own folder, so that
    `fairgrape run RUN` goes on without the arrays; other arrays are refused there.

    Args:
        images: (N, H, W, C) or (N, H, W), of NumPy or JAX in any order: whole numbers from 0 to
            255, or floats from 0 to 1, which are rounded to 256 levels.
        labels: (N,) for one task, (N, T) or {name: (N,)} for several; whole numbers from 0, or
            words.
        groups: (N,) whole numbers from 0, negative for a sample in no group; or words, "" or None
            for no group.
        splits: (N,) of "train", "validation", "test", or 0, 1, 2; by default 80/10/10 by the seed,
            equal pictures on one side.
        classes: names of the classes where labels are numbers; {task: names} for several tasks.
        group_names: names of the groups where groups are numbers.
        directory: write the records here, for several runs; by default each run keeps its own.
        options: of every dataset: seed, minority, share, limit, limit_evaluation.

    Returns:
        A source, for `Experiment(data=...)` or `data.load`. A copy of the arrays is held as long as
        it lives.

    Raises:
        UsageError: for what is no picture, label or group, with the samples; for a folder that
            holds other arrays.

    Example:
        >>> from fairgrape_jax import data
        >>> rng = np.random.default_rng(0)
        >>> images = rng.integers(0, 256, (90, 8, 8, 3), np.uint8)
        >>> labels, groups = rng.integers(0, 2, 90), rng.choice(["young", "old", ""], 90)
        >>> source = from_arrays(images, {"smile": labels}, groups, classes=["no", "yes"])
        >>> faces = data.load(source)
        >>> faces.groups, faces.tasks[0].classes, len(faces.train)
        (('old', 'young'), ('no', 'yes'), 72)
    """
    pixels, notes = _images(images)
    tasks, columns = _labels(labels, classes, len(pixels))
    names, ids = _groups(groups, group_names, len(pixels))
    mean, std = _statistics(pixels)
    content = Content(
        pixels, columns, ids, _parts(splits, len(pixels)), tasks, names, mean, std, notes
    )
    digest = fingerprint(content)
    content = IN_MEMORY.setdefault(digest, content)  # stays until `source` holds it
    path = "" if directory is None else str(directory)
    known = {field.name for field in dataclasses.fields(Source)} - {"path"}
    if unknown := options.keys() - known:
        raise UsageError(
            f"from_arrays: no option {min(unknown)!r}; known: {', '.join(sorted(known))}"
        )
    source = Arrays(path=path, fingerprint=digest, **options)
    chosen_tasks(content, source)
    check_names(content)
    if path:
        keep(source)
    return source


def keep(source: Source) -> None:
    """Write the records of arrays that are in memory, unless they are there.

    Args:
        source: Any dataset's; only that of arrays with a folder is looked at.

    Raises:
        UsageError: The folder holds other arrays.
    """
    if not isinstance(source, Arrays) or not source.path:
        return
    content = IN_MEMORY.get(source.fingerprint)
    if content is None:
        return
    target = dataset_directory(DATASET, expand_home(source.path))
    if (target / ABOUT).exists():
        there = stored_in(target).about["options"].get("fingerprint", "")
        if there != source.fingerprint:
            raise UsageError(other_arrays(target, str(there), source.fingerprint))
        return
    from fairgrape_jax.data.builders.arrays import write  # where needed: it brings TFDS

    write(content, source.fingerprint, target)


def check_names(content: Content) -> None:
    """Refuse names that records cannot hold, or that are there twice.

    Args:
        content: The arrays.

    Raises:
        UsageError: It names the task, class or group.
    """
    tables = {f"classes of task {task.name!r}": task.classes for task in content.tasks}
    for what, names in (tables | {"groups": content.names}).items():
        if len(set(names)) < len(names):
            raise UsageError(f"{what}: {max(names, key=names.count)!r} is there twice")
    columns = [listing.Column(task.name, task.classes, group=False) for task in content.tasks]
    columns.append(listing.Column(GROUP, content.names, group=True))
    listing.check_names(listing.Listing(tuple(columns), (), (), ()))


def _images(images: Any) -> tuple[np.ndarray, tuple[str, ...]]:
    """(N, H, W, C) uint8, a copy; and what was lost by rounding."""
    array = np.asarray(images)
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim != 4 or 0 in array.shape:
        raise UsageError(
            f"images: shape {np.shape(images)}; give (N, H, W, C), or (N, H, W), of one or more"
        )
    _, height, width, channels = array.shape
    if height in (1, 3, 4) and width == channels > 4:
        raise UsageError(
            f"images: shape {array.shape} has its channels first; transpose them with (0, 2, 3, 1)"
        )
    if array.dtype == np.uint8:
        return np.array(array, order="C"), ()
    if np.issubdtype(array.dtype, np.integer):
        _refuse("images", "are not from 0 to 255", (array < 0) | (array > 255))
        return array.astype(np.uint8, order="C"), ()
    if array.dtype.name == "bfloat16" or np.issubdtype(array.dtype, np.floating):
        return _rounded(array)
    raise UsageError(f"images: are {array.dtype}; give uint8 (0 to 255), or floats (0 to 1)")


def _rounded(array: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Floats from 0 to 1 as 256 levels."""
    pixels, largest = np.empty(array.shape, np.uint8), 0.0
    for first in range(0, len(array), CHUNK):
        part = array[first : first + CHUNK].astype(np.float64)
        outside = ~((part >= 0) & (part <= 1))
        if outside.any():
            if lost := not_finite(part):
                raise UsageError(f"images: some are{lost.removeprefix(',')}")
            raise UsageError(
                f"images: floats from {part.min():.4g} to {part.max():.4g}; give them from 0 to 1, "
                "or uint8"
            )
        level = np.rint(part * 255)
        pixels[first : first + CHUNK] = level
        largest = max(largest, float(np.abs(part - level / 255).max()))
    if largest < 1e-3 / 255:  # they were uint8 once
        return pixels, ()
    return pixels, (f"images were rounded to 256 levels, by {largest:.2g} at the most",)


def _labels(labels: Labels, classes: Any, count: int) -> tuple[tuple[Task, ...], np.ndarray]:
    """The tasks, and (N, T) int32."""
    if isinstance(labels, Mapping):
        columns = {str(name): np.asarray(column) for name, column in labels.items()}
    else:
        array = np.asarray(labels)
        if array.ndim == 2:
            columns = {f"label {i}": column for i, column in enumerate(array.T)}
        else:
            columns = {"label": array}
    if not columns:
        raise UsageError("labels: no task; give one column or more")
    tasks, codes = [], []
    for name, column in columns.items():
        names = classes.get(name, ()) if isinstance(classes, Mapping) else classes or ()
        known, numbers = _coded(f"labels of task {name!r}", column, names, count)
        if (numbers == NO_GROUP).any():
            _refuse(f"labels of task {name!r}", "are negative or empty", numbers == NO_GROUP)
        tasks.append(Task(name, known))
        codes.append(numbers)
    if isinstance(classes, Mapping) and (unknown := classes.keys() - columns.keys()):
        raise UsageError(f"classes: {min(unknown)!r} is no task; known: {', '.join(columns)}")
    return tuple(tasks), np.stack(codes, axis=1)


def _groups(groups: Any, names: Sequence[str], count: int) -> tuple[tuple[str, ...], np.ndarray]:
    known, numbers = _coded("groups", np.asarray(groups), names, count)
    if not len(known):
        raise UsageError("groups: every sample is in none; give two groups or more")
    return known, numbers


def _coded(
    what: str, column: np.ndarray, names: Sequence[str], count: int
) -> tuple[tuple[str, ...], np.ndarray]:
    """The names of the values of a column in order, and (N,) int32; NO_GROUP for no value."""
    if column.shape != (count,):
        raise UsageError(f"{what}: shape {column.shape}; give ({count},), one for each picture")
    if column.dtype == object or column.dtype.kind in "US":
        return _words(what, column, names)
    if column.dtype == bool:
        column = column.astype(np.int32)
    if not np.issubdtype(column.dtype, np.integer):
        raise UsageError(f"{what}: are {column.dtype}{not_finite(column)}; give whole numbers")
    present = np.unique(column[column >= 0])
    known = tuple(map(str, names)) or tuple(map(str, range(len(present))))
    if len(present) and present[-1] >= len(known):
        if names:
            wrong = column >= len(known)
            _refuse(what, f"are beyond the {len(known)} names", wrong)
        missing = int(np.setdiff1d(np.arange(len(present)), present)[0])
        raise UsageError(
            f"{what}: {missing} has no sample and {present[-1]} has; number them from 0 without a "
            "gap, or name all of them"
        )
    return known, np.where(column < 0, NO_GROUP, column).astype(np.int32)


def _words(
    what: str, column: np.ndarray, names: Sequence[str]
) -> tuple[tuple[str, ...], np.ndarray]:
    if column.dtype.kind == "S":
        column = np.char.decode(column, "utf-8")
    words = ["" if word is None else word for word in column.tolist()]
    wrong = np.array([not isinstance(word, str) for word in words])
    _refuse(what, "are neither words nor None, among words", wrong)
    known = tuple(map(str, names)) or spelling.in_order(filter(None, words))
    numbers = {name: number for number, name in enumerate(known)} | {"": NO_GROUP}
    _refuse(what, "are none of the names", np.array([word not in numbers for word in words]))
    return known, np.array([numbers[word] for word in words], np.int32)


def _parts(splits: Any, count: int) -> np.ndarray:
    if splits is None:
        return np.full(count, BY_SEED, np.int8)
    column = np.asarray(splits)
    if column.shape != (count,):
        raise UsageError(f"splits: shape {column.shape}; give ({count},), one for each picture")
    if np.issubdtype(column.dtype, np.integer):
        _refuse("splits", "are none of 0, 1, 2", (column < 0) | (column > 2))
        parts = column.astype(np.int8)
    else:
        words = list(map(str, column.tolist()))
        _refuse("splits", f"are none of {', '.join(NAMES)}", ~np.isin(words, NAMES))
        parts = np.array([NAMES.index(word) for word in words], np.int8)
    for number, name in enumerate(NAMES):
        if not (parts == number).any():
            raise UsageError(f"splits: no sample is in {name}; give some of each")
    return parts


def _refuse(what: str, problem: str, wrong: np.ndarray) -> None:
    """UsageError if anything of some samples is wrong."""
    if wrong.any():
        bad = np.flatnonzero(wrong.reshape(len(wrong), -1).any(axis=1))
        raise UsageError(f"{what}: some {problem}{samples(bad)}")


def _statistics(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, of pictures in [0, 1]; 1 for a constant one."""
    total = np.zeros((2, images.shape[-1]), np.int64)
    for first in range(0, len(images), CHUNK):
        part = images[first : first + CHUNK].reshape(-1, images.shape[-1]).astype(np.int64)
        total += part.sum(axis=0), np.square(part).sum(axis=0)
    mean, square = total / (images[..., 0].size * np.array([[255.0], [255.0**2]]))
    std = np.sqrt(np.maximum(square - mean**2, 0))
    std = np.where(std < 1e-3, 1.0, std)
    return tuple(mean.round(6).tolist()), tuple(std.round(6).tolist())
