"""Tables of predictions, CSV or Parquet, from any framework: read as text, matched by id.

A table has a row per sample: an id, the label, one or several columns of predictions (or a score
per class) and columns that say which group the sample belongs to. `names` says which cells are one
name.
"""

from __future__ import annotations

import codecs
import csv
import dataclasses
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
import pyarrow.parquet

from fairgrape_jax import spelling
from fairgrape_jax.errors import UsageError
from fairgrape_jax.reports import csv_files
from fairgrape_jax.reports.audit_request import Columns
from fairgrape_jax.reports.names import Categorical, examples
from fairgrape_jax.storage import require_local

ID = "id"  # the column of ids where none is named
Cells: TypeAlias = dict[str, pa.ChunkedArray]  # of a file, by the name of the column
UNREADABLE = (pa.ArrowException, UnicodeError, OSError, EOFError, zlib.error, csv.Error)


@dataclasses.dataclass(frozen=True)
class Table:
    """What one file says of its samples.

    Attributes:
        path: the file.
        rows: how many samples there are.
        ids: a pyarrow array of strings without nulls; None where there is no such column.
        cells: the label and group columns that the file has, by name.
        predictions: by column; "" where the source named none.
        ids_are_rows: whether the ids are the numbers of rows, from 1.
        ties: samples whose highest score two classes share: the first in order counts.
    """

    path: Path
    rows: int
    ids: pa.StringArray  # or None, which pyarrow, having no types, does not tell from it
    cells: dict[str, Categorical]
    predictions: dict[str, Categorical]
    ids_are_rows: bool = False
    ties: int = 0

    def take(self, rows: np.ndarray) -> Table:
        """Some of the samples.

        Args:
            rows: (M,) places.

        Returns:
            These samples, in that order.
        """
        return dataclasses.replace(
            self,
            rows=len(rows),
            ids=None if self.ids is None else self.ids.take(pa.array(rows)),
            cells={name: cells.take(rows) for name, cells in self.cells.items()},
            predictions={name: cells.take(rows) for name, cells in self.predictions.items()},
        )


def read(path: Path, columns: Columns, predictions: Sequence[str] = ("",)) -> Table:
    """Read one file, or a folder of Parquet files.

    Args:
        path: .csv, .csv.gz, .parquet, .pq, or a folder that holds such Parquet files.
        columns: how the columns are called.
        predictions: the columns of predictions to read; "" for `columns.prediction` or scores.

    Raises:
        UsageError: for what is missing, empty, unreadable or there twice.
    """
    if not path.exists():
        raise UsageError(f"{path}: no such file")
    form = "CSV" if path.is_file() and _is_csv(path) else "Parquet"
    try:
        source = _Csv(path, columns.encoding) if form == "CSV" else _Parquet(path)
        return _read(path, source, columns, predictions)
    except UNREADABLE as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        cure = ""
        if isinstance(error, UnicodeError) or "invalid UTF8" in reason:
            cure = "; name its encoding with --encoding (cp1252, say)"
        raise UsageError(f"{path}: not readable as {form}: {reason}{cure}") from error


def _is_csv(path: Path) -> bool:
    name = path.name.lower()
    if name.endswith((".csv", ".csv.gz")):
        return True
    if name.endswith((".parquet", ".pq")):
        return False
    raise UsageError(f"{path}: neither .csv, .csv.gz nor .parquet")


class _Csv:
    """A CSV file: its columns, blanks around their names apart."""

    def __init__(self, path: Path, encoding: str):
        self.path = path
        try:
            codecs.lookup(encoding or "utf-8")
        except LookupError as error:
            raise UsageError(f"--encoding: {encoding!r} is no encoding") from error
        self.encoding = encoding or csv_files.detect_encoding(path)
        self.header, self.delimiter = csv_files.read_header(path, self.encoding)
        if not self.header:
            raise UsageError(f"{path}: not readable as CSV: it is empty")
        self.names = [name.strip() for name in self.header]

    def read(self, columns: Sequence[str], numbers: Sequence[str]) -> Cells:
        written = [self.header[self.names.index(name)] for name in columns]
        table = csv_files.read(
            self.path,
            written,
            [self.header[self.names.index(name)] for name in numbers],
            encoding=self.encoding,
            delimiter=self.delimiter,
            columns=len(self.header),
        )
        return {name: table[place] for place, name in enumerate(columns)}


class _Parquet:
    """A Parquet file, or a folder of them in natural order; `key=value` folders are columns."""

    def __init__(self, path: Path):
        require_local(path, "a Parquet table")
        self.files, self.base = [path], path.parent
        if path.is_dir():
            inside = [
                file
                for file in path.rglob("*")
                if file.name.lower().endswith((".parquet", ".pq"))
                and not any(part.startswith((".", "_")) for part in file.relative_to(path).parts)
            ]
            if not inside:
                raise UsageError(f"{path}: a folder without .parquet files")
            order = spelling.in_order(str(file.relative_to(path)) for file in inside)
            self.files, self.base = [path / name for name in order], path
        first = self.files[0]
        self.keys = [
            unquote(part.split("=")[0])
            for part in first.relative_to(self.base).parts[:-1]
            if "=" in part
        ]
        self.names = [*pa.parquet.read_schema(first).names, *self.keys]

    def read(self, columns: Sequence[str], numbers: Sequence[str]) -> Cells:
        schema = pa.schema([(key, pa.string()) for key in self.keys])
        chunks: dict[str, list[pa.Array]] = {name: [] for name in columns}
        for file in self.files:
            part = pa.dataset.dataset(
                [str(file)],
                format="parquet",
                partitioning=pa.dataset.HivePartitioning(schema) if self.keys else None,
                partition_base_dir=str(self.base),
            )
            for name in columns:
                if name not in part.schema.names:
                    raise UsageError(f"{file}: no column {name!r}, which {self.files[0]} has")
            table = part.to_table(columns={name: pa.dataset.field(name) for name in columns})
            for name in columns:
                column = table[name]
                chunks[name] += (
                    column.cast(pa.float64()) if name in numbers else _as_text(column)
                ).chunks
        return {
            name: pa.chunked_array(parts, pa.float64() if name in numbers else pa.string())
            for name, parts in chunks.items()
        }


def _as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A Parquet column of any plain type as strings; null and NaN are empty."""
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        column = pa.chunked_array([chunk.storage for chunk in column.chunks], kind.storage_type)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_floating(column.type):
        undefined = pc.is_nan(column.cast(pa.float64()))
        column = pc.if_else(undefined, pa.scalar(None, column.type), column)
    return column.cast(pa.string())


def _read(
    path: Path, source: _Csv | _Parquet, columns: Columns, predictions: Sequence[str]
) -> Table:
    ids, scores, names = _columns_to_read(path, source.names, columns, predictions)
    table = source.read(names, scores)
    rows = len(table[names[0]])
    if not rows:
        raise UsageError(f"{path}: no rows")
    ties = 0
    models: dict[str, Categorical] = {}
    for name in predictions:
        if scores and not name:
            models[name], ties = _highest(path, table, scores, len(columns.scores))
        else:
            models[name] = _categorical(table[name or columns.prediction])
    attributes = [name for name in (columns.label, *columns.groups) if name in table]
    return Table(
        path=path,
        rows=rows,
        ids=_ids(path, ids, table[ids]) if ids else None,
        cells={name: _categorical(table[name]) for name in attributes},
        predictions=models,
        ties=ties,
    )


def _columns_to_read(
    path: Path, there: Sequence[str], columns: Columns, predictions: Sequence[str]
) -> tuple[str, list[str], list[str]]:
    """The column of ids ("" for none), those of scores, and all that are read; each is there."""
    known = f"(its columns: {', '.join(there)})"
    ids = columns.id or (ID if ID in there else "")
    if ids and ids not in there:
        raise UsageError(f"{path}: no column {ids!r} {known}; name it with --id-column")
    names, scores = [ids] * bool(ids), []
    for name in predictions:
        column = name or columns.prediction
        if column in there:
            names.append(column)
        elif name:
            raise UsageError(f"{path}: no column {name!r} {known}")
        else:
            scores = [column for column in there if column.startswith(columns.scores)]
            names += scores
            if len(scores) < 2:
                raise UsageError(
                    f"{path}: no column {column!r} {known}; name it with "
                    "--prediction-column, or give a column of scores per class, see --score-prefix"
                )
    attributes = [name for name in (columns.label, *columns.groups) if name in there]
    names = list(dict.fromkeys([*names, *attributes]))
    for name in names:
        if there.count(name) > 1:
            raise UsageError(f"{path}: two columns are named {name!r}")
    return ids, scores, names


def _ids(path: Path, name: str, column: pa.ChunkedArray) -> pa.StringArray:
    """The ids as one array; those that are no whole numbers are cleaned one by one."""
    ids = pc.utf8_trim_whitespace(column).combine_chunks()
    empty = pc.or_kleene(pc.is_null(ids), pc.equal(ids, ""))
    if pc.any(empty).as_py():
        row = pc.index(empty, True).as_py() + 1
        raise UsageError(
            f"{path}: {pc.sum(empty).as_py():,} rows have no {name} (the first: row {row})"
        )
    plain = pc.all(pc.match_substring_regex(ids, r"\A[\x21-\x7e]*\z")).as_py()
    return ids if plain else pa.array(map(spelling.clean, ids.to_pylist()), pa.string())


def _categorical(column: pa.ChunkedArray) -> Categorical:
    """Distinct cells and their codes."""
    encoded = column.dictionary_encode().unify_dictionaries().combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.chunk(0)
    words = [spelling.clean(word) for word in encoded.dictionary.to_pylist()]
    distinct = tuple(dict.fromkeys(word for word in words if word))
    place = {word: code for code, word in enumerate(distinct)} | {"": -1}
    renamed = np.array([*[place[word] for word in words], -1], np.int32)
    codes = encoded.indices.fill_null(len(words)).to_numpy(zero_copy_only=False)
    return Categorical(renamed[codes], distinct)


def _highest(
    path: Path, table: Cells, scores: Sequence[str], prefix: int
) -> tuple[Categorical, int]:
    """The class with the highest score, and how many samples have two such classes."""
    classes = {spelling.clean(name[prefix:]): name for name in scores}
    if "" in classes or len(classes) < len(scores):
        raise UsageError(f"{path}: score columns {examples(scores)} do not name a class each")
    order = spelling.in_order(classes)
    best = np.full(len(table[scores[0]]), -np.inf)
    codes = np.full(len(best), -1, np.int32)
    tied = np.zeros(len(best), bool)
    for code, name in enumerate(order):  # a column at a time: there may be a thousand of them
        values = table[classes[name]].to_numpy().astype(np.float64)
        if np.isnan(values).any():
            raise UsageError(f"{path}: column {classes[name]} has empty or undefined scores")
        tied = np.where(values > best, False, tied | (values == best))
        higher = values > best
        best[higher], codes[higher] = values[higher], code
    if (none := int((codes < 0).sum())) > 0:
        raise UsageError(f"{path}: {none:,} rows have no score above minus infinity")
    return Categorical(codes, order), int(tied.sum())
