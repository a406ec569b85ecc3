"""What a builder reads before a single picture is opened: every row, its file and its values."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np

from fairgrape_jax import escape
from fairgrape_jax.data.dataset import NO_GROUP
from fairgrape_jax.data.images.entries import Entry
from fairgrape_jax.errors import UsageError

WHOLE = "full"  # the split of a dataset that its authors did not split; TFDS keeps "all"
COLUMN = re.compile(r"[\w(\[][\w ()\[\]+&,;:.%-]{0,99}")
SPLIT = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,49}")
RESERVED = ("image", "name", "source")  # what is stored of every picture besides its columns
NAMED = 20  # bad rows that an error or a note names

# What may be wrong with data and still be left out, one by one: `--allow KIND,...`.
PROBLEMS = {
    "unlisted": "pictures without a row",
    "missing": "rows without a picture",
    "broken": "pictures that cannot be decoded",
    "empty": "empty cells",
    "misnamed": "names that are not age_gender_race_date.jpg",
    "unknown": "pictures of a class that is not in train",
    "unused": "classes without a picture",
}


@dataclasses.dataclass(frozen=True)
class Options:
    """What every builder may be told."""

    allow: str = ""
    """Problems that are left out and counted, not errors, with commas between them: unlisted
    (pictures without a row), missing (rows without a picture), broken (cannot be decoded), empty
    (cells: without a label a row is left out, without a group it stays in no group), misnamed,
    unknown (a class that train lacks), unused (classes without a picture)."""
    lenient: bool = False
    """Allow all of them."""

    HINT: ClassVar[str] = ""

    @property
    def allowed(self) -> tuple[str, ...]:
        """Names of the problems that are left out."""
        names = tuple(name.strip() for name in self.allow.split(",") if name.strip())
        return tuple(PROBLEMS) if self.lenient else names


def check_allowed(options: Options) -> None:
    """Refuse to allow what is no problem.

    Args:
        options: With its `allow`.

    Raises:
        UsageError: It names a problem that there is not.
    """
    if unknown := [name for name in options.allowed if name not in PROBLEMS]:
        raise UsageError(
            f"--allow: {unknown[0]!r} is none of {', '.join(PROBLEMS)}; give some of them, with "
            "commas between them"
        )


class Column(NamedTuple):
    """One thing known of every picture.

    Attributes:
        name: What it is called.
        classes: Names of its values, in the order of their numbers.
        group: Whether people would be fair over it: whether it is offered as a group column.
    """

    name: str
    classes: tuple[str, ...]
    group: bool


@dataclasses.dataclass(frozen=True)
class Row:
    """One picture.

    Attributes:
        name: What it is called in predictions and messages; each once.
        file: Where its bytes are.
        where: The file and row that speak of it, for messages.
        values: One number per column; NO_GROUP where a column of groups has no value.
        source: The picture it was cut from; all of one source go to one side of a split.
        split: The part of the data its authors put it in.
    """

    name: str
    file: Entry
    where: str
    values: tuple[int, ...]
    source: str
    split: str = WHOLE


@dataclasses.dataclass(frozen=True)
class Listing:
    """All rows of a dataset.

    Attributes:
        columns: What is known of every picture.
        rows: The pictures.
        labels: Names of the columns that a task is by default.
        groups: Names of the columns that a group is by default.
        notes: What a user should know of the dataset.
        left_out: What was left out, and why.
        mean: Per-channel mean of pictures scaled to [0, 1].
        std: Their standard deviation.
    """

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    labels: tuple[str, ...]
    groups: tuple[str, ...]
    notes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)


def class_number(where: str, column: str, value: str, classes: Mapping[str, int]) -> int:
    """The number of a value.

    Args:
        where: The file and row of the value, for the message.
        column: The name of its column.
        value: The cell.
        classes: The number of each name.

    Returns:
        The number.

    Raises:
        UsageError: There is no such class; it names file, row and value.
    """
    name = value.strip()
    if name not in classes:
        shown = ", ".join(list(classes)[:12]) + (", ..." if len(classes) > 12 else "")
        raise UsageError(f"{where}: unknown {column} {value!r}; known: {shown}")
    return classes[name]


def number_names(classes: Sequence[str]) -> dict[str, int]:
    """The number of each class.

    Args:
        classes: Their names in order.

    Returns:
        The place of each.

    Example:
        >>> number_names(("no", "yes"))
        {'no': 0, 'yes': 1}
    """
    return {name: number for number, name in enumerate(classes)}


def leave_out(problems: Sequence[str], kind: str, options: Options) -> tuple[str, ...]:
    """Leave out what may be left out, or refuse it.

    Args:
        problems: A text for each thing that is wrong.
        kind: What is wrong with them, one of `PROBLEMS`.
        options: What may be left out.

    Returns:
        Nothing without a problem, else a note that counts and names them.

    Raises:
        UsageError: There are some, and they may not be left out.
    """
    if not problems:
        return ()
    shown = "; ".join(problems[:NAMED]) + ("; ..." if len(problems) > NAMED else "")
    if kind in options.allowed:
        return (f"{len(problems):,} {PROBLEMS[kind]}, left out: {shown}",)
    raise UsageError(
        f"{len(problems):,} {PROBLEMS[kind]}: {shown}. --allow {kind} leaves out and counts them"
    )


def check_names(listing: Listing) -> None:
    """Refuse names that cannot be stored: splits and columns are parts of file names.

    Args:
        listing: All rows and columns.

    Raises:
        UsageError: It names the column, or the row.
    """
    names = [column.name for column in listing.columns]
    for column in listing.columns:
        if not COLUMN.fullmatch(column.name) or column.name in RESERVED:
            raise UsageError(
                f"column {column.name!r}: cannot be stored under this name; give letters, digits, "
                f"spaces and underscores, and none of {', '.join(RESERVED)}"
            )
        if names.count(column.name) > 1:
            raise UsageError(f"column {column.name!r}: is there twice")
        for name in column.classes:
            if name != escape.visible(name):
                raise UsageError(f"column {column.name!r}: {name!r} is no name for a value")
    for row in listing.rows:
        if not SPLIT.fullmatch(row.split) or row.split == "all":
            raise UsageError(f"{row.where}: {row.split!r} is no name for a split; give train or so")
        if row.name + row.source != escape.visible(row.name + row.source):
            raise UsageError(f"{row.where}: {row.name!r} of {row.source!r}: not names that show")


def check_any(count: int, place: Path, left_out: Sequence[str]) -> None:
    """Refuse a dataset of which nothing is left.

    Args:
        count: Pictures that are left.
        place: Where they were looked for.
        left_out: What was left out, and why.

    Raises:
        UsageError: No picture is left; it says why.
    """
    if not count:
        why = "; ".join(left_out) or "none has a row"
        raise UsageError(f"{place}: no picture is left ({why})")


def drop_unused(listing: Listing, options: Options) -> Listing:
    """The listing, if every class of every column has a picture.

    Args:
        listing: All rows and columns; one row at least.
        options: With "unused" among what is allowed such classes stay, and are noted.

    Returns:
        The listing, with a note where there is something to note.

    Raises:
        UsageError: A class has no picture, and that is not allowed.
    """
    values = np.array([row.values for row in listing.rows], np.int64)
    unused = []
    for i, column in enumerate(listing.columns):
        present = values[values[:, i] != NO_GROUP, i]
        counts = np.bincount(present, minlength=len(column.classes))
        unused += [f"{column.name} {column.classes[c]!r}" for c in np.flatnonzero(counts == 0)]
    if not unused:
        return listing
    shown = ", ".join(unused[:NAMED]) + (", ..." if len(unused) > NAMED else "")
    text = f"{len(unused):,} {PROBLEMS['unused']}: {shown}"
    if "unused" not in options.allowed:
        where = listing.rows[0].where.rsplit(" row ", 1)[0]
        why = "".join(f" ({note})" for note in listing.left_out)
        raise UsageError(f"{where}: {text}{why}; --allow unused keeps them as they are")
    return dataclasses.replace(listing, left_out=(*listing.left_out, text))
