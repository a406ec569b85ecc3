"""Tables of predictions, CSV or Parquet, from any framework: reading them, and matching them by id.

A table has a row per sample: an id, the label, the prediction (or a score per class) and columns
that say which group the sample belongs to. Everything is read as text, so that 3, "3" and 3.0 are
one class whatever wrote them. The one file that imports pyarrow.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from fairgrape_jax.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Columns:
    """The names of the columns."""

    id: str = "id"
    label: str = "label"
    prediction: str = "prediction"
    groups: tuple[str, ...] = ("group",)
    """Several are crossed: every combination that occurs is a group."""
    scores: str = "score_"
    """What the names of score columns begin with; the rest is the class. The highest score is the
    prediction, where a table has no column of predictions."""


@dataclasses.dataclass(frozen=True)
class Words:
    """A column of words: (N,) int32 codes into `names`, -1 for an empty cell."""

    codes: np.ndarray
    names: tuple[str, ...]

    def take(self, rows: np.ndarray) -> Words:
        """The words of `rows`, in that order."""
        return Words(self.codes[rows], self.names)


@dataclasses.dataclass(frozen=True)
class Table:
    """What one file says of its samples; label and group are None where it has no such column."""

    path: Path
    ids: Any  # a pyarrow array of strings, without nulls and duplicates
    label: Words | None
    prediction: Words
    group: Words | None

    def take(self, rows: np.ndarray) -> Table:
        """The samples of `rows`, in that order."""
        words = [
            None if w is None else w.take(rows) for w in (self.label, self.prediction, self.group)
        ]
        return Table(self.path, self.ids.take(pa.array(rows)), *words)  # type: ignore[arg-type]


def read(path: Path, columns: Columns) -> Table:
    """Read one file. UsageError for what is missing, empty, unreadable or there twice."""
    kind = path.name.lower()
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    if not kind.endswith((".csv", ".csv.gz", ".parquet", ".pq")):
        raise UsageError(f"{path}: neither .csv, .csv.gz nor .parquet")
    csv = ".csv" in kind
    try:
        return _read(path, columns, csv)
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        form = "CSV" if csv else "Parquet"
        raise UsageError(f"{path}: not readable as {form}: {reason}") from error


def _read(path: Path, columns: Columns, csv: bool) -> Table:
    there = _header(path) if csv else pa.parquet.read_schema(path).names
    wanted, scores = _wanted(path, columns, there)
    table = _read_csv(path, wanted, scores) if csv else pa.parquet.read_table(path, columns=wanted)
    if not len(table):
        raise UsageError(f"{path}: no rows")
    grouped = set(columns.groups) <= set(wanted)
    groups = [_words(table[name]) for name in columns.groups] if grouped else []
    return Table(
        path=path,
        ids=_ids(path, columns.id, table),
        label=_words(table[columns.label]) if columns.label in wanted else None,
        prediction=_best(path, table, scores, len(columns.scores))
        if scores
        else _words(table[columns.prediction]),
        group=_crossed(groups) if grouped else None,
    )


def _header(path: Path) -> list[str]:
    with pa.csv.open_csv(path) as reader:
        return reader.schema.names


def _wanted(path: Path, columns: Columns, there: list[str]) -> tuple[list[str], list[str]]:
    """The columns to read, and which of them are scores."""
    known = f"(its columns: {', '.join(there)})"
    scores: list[str] = []
    if columns.id not in there:
        raise UsageError(f"{path}: no column {columns.id!r} {known}; name it with --id-column")
    if columns.prediction not in there:
        scores = [name for name in there if name.startswith(columns.scores)]
        if len(scores) < 2:
            raise UsageError(
                f"{path}: no column {columns.prediction!r} {known}; name it with "
                "--prediction-column, or give a column of scores per class, see --score-prefix"
            )
    found = [columns.id, *(scores or [columns.prediction])]
    found += [name for name in (columns.label, *columns.groups) if name in there]
    wanted = list(dict.fromkeys(found))
    for name in wanted:
        if there.count(name) > 1:
            raise UsageError(f"{path}: two columns are named {name!r}")
    return wanted, scores


def _read_csv(path: Path, wanted: list[str], scores: list[str]) -> Any:
    options = pa.csv.ConvertOptions(
        include_columns=wanted,
        column_types={n: pa.float64() if n in scores else pa.string() for n in wanted},
        strings_can_be_null=True,
        null_values=[""],  # a class may be called NA
    )
    return pa.csv.read_csv(path, convert_options=options)


def _ids(path: Path, name: str, table: Any) -> Any:
    ids = pc.utf8_trim_whitespace(table[name].cast(pa.string())).combine_chunks()
    empty = pc.or_kleene(pc.is_null(ids), pc.equal(ids, ""))
    if pc.any(empty).as_py():
        row = pc.index(empty, True).as_py() + 1
        raise UsageError(
            f"{path}: {pc.sum(empty).as_py():,} rows have no {name} (the first: row {row})"
        )
    if pc.count_distinct(ids).as_py() < len(ids):
        counts = pc.value_counts(ids)
        twice = counts.filter(pc.greater(counts.field("counts"), 1)).field("values").to_pylist()
        raise UsageError(
            f"{path}: {len(twice):,} ids are there more than once ({examples(twice)}); an id must "
            "name one sample"
        )
    return ids


def _words(column: Any) -> Words:
    """Distinct words and codes; numbers that are equal are one word."""
    encoded = column.cast(pa.string()).dictionary_encode().unify_dictionaries().combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.chunk(0)
    spoken = [plain(word) for word in encoded.dictionary.to_pylist()]
    names = tuple(sorted(set(spoken) - {""}, key=order))
    number = {name: place for place, name in enumerate(names)} | {"": -1}
    renamed = np.array([*[number[word] for word in spoken], -1], np.int32)
    codes = encoded.indices.fill_null(len(spoken)).to_numpy(zero_copy_only=False)
    return Words(renamed[codes], names)


def plain(word: str) -> str:
    """A word without spaces around it, a whole number without a decimal point.

    >>> plain(" cat "), plain("3.0"), plain("2.5"), plain("007")
    ('cat', '3', '2.5', '007')
    """
    word = word.strip()
    whole, point, rest = word.partition(".")
    digits = whole.removeprefix("-").isdecimal() and point and not rest.strip("0")
    return whole if digits else word


def order(word: str) -> tuple[int, float, str]:
    """Numbers by value, then words."""
    try:
        return 0, float(word), word
    except ValueError:
        return 1, 0.0, word


def _best(path: Path, table: Any, scores: list[str], prefix: int) -> Words:
    names = [plain(name[prefix:]) for name in scores]
    sequence = sorted(range(len(names)), key=lambda i: order(names[i]))
    best = np.full(len(table), -np.inf)
    codes = np.zeros(len(table), np.int32)
    for code, i in enumerate(sequence):  # a column at a time: there may be a thousand of them
        values = table[scores[i]].to_numpy().astype(np.float64)
        if np.isnan(values).any():
            raise UsageError(f"{path}: column {scores[i]} has empty or undefined scores")
        higher = values > best
        best[higher], codes[higher] = values[higher], code
    return Words(codes, tuple(names[i] for i in sequence))


def _crossed(columns: list[Words]) -> Words:
    """One column from several: every combination that occurs."""
    if len(columns) == 1:
        return columns[0]
    key = np.zeros(len(columns[0].codes), np.int64)
    empty = np.zeros(len(key), bool)
    for column in columns:
        key = key * (len(column.names) + 1) + column.codes
        empty |= column.codes < 0
    _, first, codes = np.unique(key, return_index=True, return_inverse=True)
    names = [" / ".join(c.names[c.codes[row]] for c in columns) for row in first]
    found = Words(np.where(empty, -1, codes).astype(np.int32), tuple(names))
    return used(found)


def used(words: Words) -> Words:
    """The same column with only the names that occur."""
    there = np.unique(words.codes[words.codes >= 0])
    number = np.full(len(words.names) + 1, -1, np.int32)  # the last place: an empty cell
    number[there] = np.arange(len(there))
    return Words(number[words.codes], tuple(words.names[i] for i in there))


def aligned(tables: Sequence[Table], *, drop: bool = False) -> tuple[list[Table], int]:
    """The tables with the samples of the first in its order, and how many samples were dropped.

    drop: leave out samples that are not in every file; else that is a UsageError.
    """
    first = tables[0]
    keep = np.ones(len(first.ids), bool)
    places, strangers = [], set()
    for table in tables[1:]:
        if table.ids.equals(first.ids):
            places.append(np.arange(len(keep)))
            continue
        found = pc.index_in(first.ids, value_set=table.ids)
        missing = pc.is_null(found).to_numpy(zero_copy_only=False)
        extra = pc.invert(pc.is_in(table.ids, value_set=first.ids))
        for ids, has, lacks in (
            (first.ids.filter(pa.array(missing)), first, table),
            (table.ids.filter(extra), table, first),
        ):
            if len(ids) and not drop:
                raise UsageError(
                    f"{len(ids):,} ids of {has.path} are not in {lacks.path} "
                    f"({examples(ids[:4].to_pylist())}); add --missing drop to audit the samples "
                    "that are in every file"
                )
        strangers.update(table.ids.filter(extra).to_pylist())
        keep &= ~missing
        places.append(found.fill_null(0).to_numpy(zero_copy_only=False))
    if not keep.any():
        raise UsageError(f"{first.path} and the other files have no id in common")
    rows = np.flatnonzero(keep)
    whole = len(rows) == len(keep)
    matched = [first if whole else first.take(rows)]
    for table, place in zip(tables[1:], places, strict=True):
        there = place[rows]
        same = np.array_equal(there, np.arange(len(table.ids)))
        matched.append(table if same else table.take(there))
    return matched, int((~keep).sum()) + len(strangers)


def agreed(tables: Sequence[Table], what: str, column: str) -> Words:
    """The label or group of aligned tables; UsageError where no table has it, or two disagree."""
    known = [(table, getattr(table, what)) for table in tables if getattr(table, what) is not None]
    if not known:
        raise UsageError(
            f"{tables[0].path}: no column {column!r}, nor in the other files; "
            f"name it with --{what}-column"
        )
    (first, words), *others = known
    names = {name: code for code, name in enumerate(words.names)}
    for table, theirs in others:
        same = np.array([*[names.get(name, -2) for name in theirs.names], -1])[theirs.codes]
        different = np.flatnonzero(same != words.codes)
        if len(different):
            row = different[0]
            said = [w.names[w.codes[row]] if w.codes[row] >= 0 else "" for w in (words, theirs)]
            raise UsageError(
                f"{len(different):,} samples have another {what} in {table.path} than in "
                f"{first.path} (id {first.ids[int(row)].as_py()}: {said[1]!r} "
                f"and {said[0]!r})"
            )
    return words


def examples(values: Sequence[Any], most: int = 3) -> str:
    """The first few values, for a message."""
    shown = ", ".join(str(value) for value in values[:most])
    return shown + (", ..." if len(values) > most else "")
