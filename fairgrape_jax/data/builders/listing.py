"""What a builder reads before a single picture is opened: every row, its file and its values."""

from __future__ import annotations

import csv
import dataclasses
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np

from fairgrape_jax import escape
from fairgrape_jax.data.builders.files import Entry
from fairgrape_jax.errors import UsageError

WHOLE = "full"  # the split of a dataset that its authors did not split; TFDS keeps "all"
COLUMN = re.compile(r"[\w(\[][\w ()\[\]+&,;:.%-]{0,99}")
SPLIT = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,49}")
RESERVED = ("image", "name", "source")  # what is stored of every picture besides its columns
NAMED = 10  # bad rows that an error or a note names


@dataclasses.dataclass(frozen=True)
class Options:
    """What every builder may be told."""

    lenient: bool = False
    """Leave out, and count, what would be an error: rows without a picture, pictures without a
    row, pictures that cannot be decoded, classes without a picture."""

    HINT: ClassVar[str] = ""


class Column(NamedTuple):
    """One thing known of every picture, and the names of its values in the order of their numbers.

    group: whether people would be fair over it, that is whether it is offered as a group column.
    """

    name: str
    classes: tuple[str, ...]
    group: bool


@dataclasses.dataclass(frozen=True)
class Row:
    """One picture. where: the file and row that speak of it, for messages.

    source: the picture it was cut from; all of one source go to one side of a split.
    values: one number per column; split: the part of the data its authors put it in.
    """

    name: str
    file: Entry
    where: str
    values: tuple[int, ...]
    source: str
    split: str = WHOLE


@dataclasses.dataclass(frozen=True)
class Listing:
    """All rows of a dataset; notes: what a user should know of how it was read.

    labels, groups: the columns that a task or a group is by default.
    mean, std: per-channel normalisation of pictures scaled to [0, 1].
    """

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    labels: tuple[str, ...]
    groups: tuple[str, ...]
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)


def read_text(path: Path, what: str) -> str:
    """The text of a file. UsageError if there is none, or it is not UTF-8."""
    if not path.is_file():
        raise UsageError(f"{path}: no such file; {what}")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 ({error.reason}); save it as UTF-8") from error


def read_table(path: Path, needed: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Rows of a CSV with a header, as (place, values): place is "FILE row N", the header row 1.

    UsageError if there is no such file, if a needed column is missing, or if a row is short.
    """
    text = read_text(path, f"it must hold the columns {', '.join(needed)}")
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        header = [name.strip() for name in next(reader, [])]
        if missing := [name for name in needed if name not in header]:
            raise UsageError(
                f"{path} row 1: no column {missing[0]!r} in the header ({', '.join(header)}); "
                f"needed: {', '.join(needed)}"
            )
        if twice := [name for name in needed if header.count(name) > 1]:
            raise UsageError(f"{path} row 1: two columns are named {twice[0]!r}")
        for values in reader:
            if not values:
                continue
            place = f"{path} row {reader.line_num}"
            if len(values) < len(header):
                raise UsageError(f"{place}: {len(values)} values, the header names {len(header)}")
            yield place, dict(zip(header, values, strict=False))
    except csv.Error as error:
        raise UsageError(f"{path} row {reader.line_num}: not CSV ({error})") from error


def number(place: str, column: str, value: str, classes: Mapping[str, int] | Sequence[str]) -> int:
    """The number of a value. UsageError that names file, row and value where it is unknown."""
    known = classes if isinstance(classes, Mapping) else {c: i for i, c in enumerate(classes)}
    if value.strip() not in known:
        shown = ", ".join(list(known)[:12]) + (", ..." if len(known) > 12 else "")
        raise UsageError(f"{place}: unknown {column} {value!r}; known: {shown}")
    return known[value.strip()]


def settled(
    problems: Sequence[str], what: str, options: Options, cure: str = ""
) -> tuple[str, ...]:
    """No problem: nothing. Lenient: a note that counts and names them. Else UsageError."""
    if not problems:
        return ()
    shown = "; ".join(problems[:NAMED]) + ("; ..." if len(problems) > NAMED else "")
    if options.lenient:
        return (f"{len(problems):,} {what}, left out: {shown}",)
    raise UsageError(f"{len(problems):,} {what}: {shown}. {cure}--lenient leaves them out")


def matched(
    rows: Iterable[tuple[str, str]],
    files: Mapping[str, Entry],
    options: Options,
    *,
    unlisted: bool = True,
) -> tuple[set[str], tuple[str, ...]]:
    """The names that have both a row and a picture, and notes on the rest.

    rows: (name, place) of each; unlisted: whether a picture without a row is a problem.
    UsageError unless lenient where some have only one of both, or where a name has two rows.
    """
    places: dict[str, str] = {}
    for name, place in rows:
        if name in places:
            raise UsageError(f"{place}: {name} has a row before, {places[name]}; give one of them")
        places[name] = place
    missing = [f"{name} ({place})" for name, place in places.items() if name not in files]
    notes = settled(missing, "rows without a picture", options)
    if unlisted:
        extra = [str(files[name]) for name in sorted(files.keys() - places.keys())]
        notes += settled(extra, "pictures without a row", options)
    return places.keys() & files.keys(), notes


def check_names(listing: Listing) -> None:
    """UsageError for a name that cannot be stored: splits and columns are parts of file names."""
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


def without_empty(listing: Listing, options: Options) -> Listing:
    """The listing, if it has rows and every class of every column has one.

    UsageError otherwise; lenient: a note, the class stays without a picture.
    """
    if not listing.rows:
        raise UsageError("no picture is left; see what was left out and why")
    values = np.array([row.values for row in listing.rows], np.int64)
    empty = []
    for i, column in enumerate(listing.columns):
        counts = np.bincount(values[:, i], minlength=len(column.classes))
        empty += [f"{column.name} {column.classes[c]!r}" for c in np.flatnonzero(counts == 0)]
    if not empty:
        return listing
    text = f"{len(empty):,} classes without a picture: " + ", ".join(empty[:NAMED])
    if not options.lenient:
        where = listing.rows[0].where.rsplit(" row ", 1)[0]
        raise UsageError(f"{where}: {text}; --lenient keeps them as they are")
    return dataclasses.replace(listing, notes=(*listing.notes, text))
