"""Load a dataset that `fairgrape data prepare` wrote; splits and columns are chosen on loading."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

import numpy as np

from fairgrape_jax.data.dataset import NO_GROUP, Dataset, Split, Task
from fairgrape_jax.data.images.decode import Fit
from fairgrape_jax.data.images.records import (
    Pictures,
    dataset_directory,
    default_data_dir,
    expand_home,
)
from fairgrape_jax.data.sources.base import Reading, Source, check_options, kept_indices
from fairgrape_jax.data.sources.splits import NAMES, Division, Rule, sides
from fairgrape_jax.data.sources.stored import Stored, stored_in
from fairgrape_jax.errors import UsageError
from fairgrape_jax.progress import Progress

SIZE = 224
CACHE_BYTES = 4 << 30  # decoded pictures that cache="auto" holds in memory
NAMED = 10


@dataclasses.dataclass(frozen=True)
class Prepared(Source):
    """Any dataset made by `fairgrape data prepare`: FairFace, UTKFace, CelebA, ImageNet, your own.

    path: the folder of prepared datasets; empty: TFDS's own (TFDS_DATA_DIR). label and group are
    columns of the dataset: several labels with commas between them are several tasks, "all" is
    every label; a group may be a product, "race+gender".
    """

    dataset: str = ""
    """Its name: fair_face, utk_face, celeb_a_attributes, imagenet2012, ... or your own."""
    split_by: Rule = "content"
    """content: 80/10/10 by seed, with all pictures of one source, and all equal files, on one side;
    source: equal files of several sources may fall apart, as in the paper; given: as its authors
    split it, a tenth of train for what they did not give."""
    fold: str = ""
    """i/k, from 1/k to k/k: test on part i of k, validate on the next, train on the rest."""
    fit: Fit = "stretch"
    """stretch a picture to the square, or crop: scale its shorter side and take the middle."""
    broken: Literal["error", "skip"] = "error"
    """A picture that cannot be decoded: stop and name it, or leave it out and count it."""

    name: ClassVar[str] = "prepared"

    @property
    def division(self) -> Division:
        """How its pictures are divided into training, validation and test."""
        return Division(self.split_by, self.fold, self.seed)


def load(
    source: Prepared, progress: Progress | None = None, reading: Reading | None = None
) -> Dataset:
    """Read what is kept of a prepared dataset.

    Args:
        source: Its options.
        progress: Called now and then with (pictures decoded, pictures in all).
        reading: How pictures are read.

    Returns:
        The dataset; pictures are in memory, or on disk (then some 200 bytes of memory each).

    Raises:
        UsageError: An option or the files cannot be used.
    """
    reading = reading or Reading()
    for option in ("split_by", "fit", "broken"):
        _check_literal(source, option)
    for field, problem in reading.problems():
        raise UsageError(f"{field}: {problem}")
    stored = read(source)
    tasks, labels = label_columns(stored, source)
    names, groups = group_column(stored, source)
    check_options(source, names)
    splits, notes = [], list(stored.about["notes"])
    unlabelled: np.ndarray = np.any(labels < 0, axis=1)
    if unlabelled.any():
        notes.append(f"{unlabelled.sum():,} pictures without a label are left out")
    parts = []
    for number, side in enumerate(sides(stored.columns, source.division)):
        members = side[~unlabelled[side]]
        kept = kept_indices(source, groups[members], names, training=number == 0)
        parts.append(members[kept])
    done, total = 0, sum(map(len, parts))
    for part in parts:
        pictures = _pictures(stored, source, part, reading.workers)
        images: np.ndarray | Pictures = pictures
        if _hold_in_memory(reading, total, pictures.size):
            images, good = pictures.in_memory(_shift(progress, done, total))
            part, images = part[good], images if good.all() else images[good]
            notes += _lost(pictures)
        done += len(part)
        splits.append(Split(images, labels[part], groups[part], stored.columns["name"][part]))
    train, validation, test = splits
    notes += _without_group(splits)
    return Dataset(
        train=train,
        validation=validation,
        test=test,
        tasks=tasks,
        groups=names,
        mean=tuple(stored.about["mean"]),
        std=tuple(stored.about["std"]),
        notes=tuple(notes),
        allow_missing_groups=bool((groups == NO_GROUP).any()),
    )


def _pictures(stored: Stored, source: Prepared, part: np.ndarray, workers: int) -> Pictures:
    """Some of the pictures, on disk."""
    return Pictures(
        stored.records,
        part,
        stored.columns["name"][part],
        stored.columns["digest"].view(np.uint8).reshape(-1, 32)[part],
        size=source.size or SIZE,
        fit=source.fit,
        broken=source.broken,
        workers=workers,
    )


def _hold_in_memory(reading: Reading, count: int, size: int) -> bool:
    """Whether so many pictures of that side are decoded once, and held."""
    fits = 3 * count * size * size <= CACHE_BYTES
    return reading.cache == "memory" or (reading.cache == "auto" and fits)


def read(source: Prepared) -> Stored:
    """What lies under the name of the source; no picture is read.

    Args:
        source: Its options.

    Returns:
        The dataset as it lies on disk.

    Raises:
        UsageError: There is no whole dataset.
    """
    place = expand_home(source.path) if source.path else default_data_dir()
    if not source.dataset:
        raise UsageError(
            f"dataset is empty: name one of those in {place} (`fairgrape data list` shows them)"
        )
    return stored_in(dataset_directory(source.dataset, place))


def label_columns(stored: Stored, source: Prepared) -> tuple[tuple[Task, ...], np.ndarray]:
    """The tasks asked for, or the dataset's first label.

    Args:
        stored: The dataset.
        source: With its `label`.

    Returns:
        The tasks, and their labels (N, T) int32; NO_GROUP where a column of groups that is a task
        has no value.

    Raises:
        UsageError: There is no such column.
    """
    numbers = {column["name"]: i for i, column in enumerate(stored.about["columns"])}
    names = source.label.split(",") if source.label else stored.about["labels"][:1]
    if source.label == "all":
        names = stored.about["labels"]
    chosen = [_number("label", name.strip(), numbers, source) for name in names]
    columns = [stored.about["columns"][i] for i in chosen]
    tasks = tuple(Task(column["name"], tuple(column["classes"])) for column in columns)
    return tasks, stored.columns["values"][:, chosen].astype(np.int32)


def group_column(stored: Stored, source: Prepared) -> tuple[tuple[str, ...], np.ndarray]:
    """The groups asked for, or those of the dataset's first column of groups.

    A product "a+b" has the groups of a, each cut by those of b; a picture that lacks one of the two
    is in no group.

    Args:
        stored: The dataset.
        source: With its `group`.

    Returns:
        The names of the groups, and (N,) int32 ids; NO_GROUP for a picture in none.

    Raises:
        UsageError: There is no such column of groups.
    """
    columns = stored.about["columns"]
    numbers = {c["name"]: i for i, c in enumerate(columns) if c["group"]}
    crossed: list[tuple[str, ...]] = [()]
    ids = np.zeros(len(stored.columns["values"]), np.int64)
    for name in (source.group or stored.about["groups"][0]).split("+"):
        number = _number("group", name.strip(), numbers, source)
        classes, values = columns[number]["classes"], stored.columns["values"][:, number]
        crossed = [(*group, c) for group in crossed for c in classes]
        missing = (ids == NO_GROUP) | (values == NO_GROUP)
        ids = np.where(missing, NO_GROUP, ids * len(classes) + values)
    names = [" ".join(group) for group in crossed]
    if len(set(names)) < len(names):  # ("a b", "c") and ("a", "b c") are two groups
        names = [" + ".join(map(repr, group)) for group in crossed]
    return tuple(names), ids.astype(np.int32)


def _check_literal(source: Prepared, option: str) -> None:
    known = {
        "split_by": ("content", "source", "given"),
        "fit": ("stretch", "crop"),
        "broken": ("error", "skip"),
    }[option]
    if getattr(source, option) not in known:
        raise UsageError(f"{option}={getattr(source, option)!r}: give {', '.join(known)}")


def _number(kind: str, name: str, numbers: dict[str, int], source: Prepared) -> int:
    if name not in numbers:
        raise UsageError(
            f"{kind}={name!r}: {source.dataset} has no such column; known: {', '.join(numbers)}"
        )
    return numbers[name]


def _shift(progress: Progress | None, done: int, total: int) -> Progress | None:
    return None if progress is None else lambda i, _: progress(done + i, total)


def _lost(pictures: Pictures) -> list[str]:
    names = sorted(pictures.lost)
    shown = ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
    return [f"{len(names):,} skipped, cannot be decoded: {shown}"] if names else []


def _without_group(splits: list[Split]) -> list[str]:
    """A note on the pictures that are in no group."""
    counts = [int((split.groups == NO_GROUP).sum()) for split in splits]
    if not any(counts):
        return []
    each = ", ".join(f"{name} {count:,}" for name, count in zip(NAMES, counts, strict=True))
    return [
        f"{sum(counts):,} of {sum(map(len, splits)):,} pictures are in no group ({each}): they are "
        "trained on and count overall, and for no group"
    ]
