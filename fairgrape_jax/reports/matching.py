"""The samples of several prediction tables brought together: by id, or by the order of rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fairgrape_jax import spelling
from fairgrape_jax.errors import UsageError
from fairgrape_jax.reports import names
from fairgrape_jax.reports.names import Categorical, examples
from fairgrape_jax.reports.prediction_tables import ID, Table


def align(tables: Sequence[Table], *, drop: bool = False) -> tuple[list[Table], int]:
    """The tables with the samples of the first in its order, and how many samples were dropped.

    Args:
        tables: of one file each. Where none has ids, the order of rows is the id.
        drop: leave out samples that are not in every file; else that is a UsageError.

    Raises:
        UsageError: ids that are there twice, or not everywhere; files with and without ids.
    """
    with_ids = [table for table in tables if table.ids is not None]
    if not with_ids:
        return _match_by_row(tables), 0
    for table in tables:
        if table.ids is None:
            raise UsageError(
                f"{table.path}: no column {ID!r}, which {with_ids[0].path} has; "
                "name one that all files have with --id-column"
            )
    tables = _spell_ids_alike(tables)
    first = tables[0]
    keep = np.ones(first.rows, bool)
    places, elsewhere = [], set()
    for table in tables[1:]:
        if table.ids.equals(first.ids):
            places.append(np.arange(len(keep)))
            continue
        place = pc.index_in(first.ids, value_set=table.ids)
        missing = pc.is_null(place).to_numpy(zero_copy_only=False)
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
        elsewhere.update(table.ids.filter(extra).to_pylist())
        keep &= ~missing
        places.append(place.fill_null(0).to_numpy(zero_copy_only=False))
    if not keep.any():
        raise UsageError(f"{first.path} and the other files have no id in common")
    rows = np.flatnonzero(keep)
    matched = [first if keep.all() else first.take(rows)]
    for table, place in zip(tables[1:], places, strict=True):
        place_of_row = place[rows]
        same = np.array_equal(place_of_row, np.arange(table.rows))
        matched.append(table if same else table.take(place_of_row))
    return matched, int((~keep).sum()) + len(elsewhere)


def _match_by_row(tables: Sequence[Table]) -> list[Table]:
    first = tables[0]
    for table in tables[1:]:
        if table.rows != first.rows:
            raise UsageError(
                f"{table.path}: {table.rows:,} rows, but {first.path} has {first.rows:,}: without "
                f"a column {ID!r} rows are matched by their order; name an id with --id-column"
            )
    ids = pa.array(map(str, range(1, first.rows + 1)))
    return [dataclasses.replace(table, ids=ids, ids_are_rows=True) for table in tables]


def _spell_ids_alike(tables: Sequence[Table]) -> list[Table]:
    """The same with equal ids written alike; UsageError for an id that is there twice."""
    renamed = _one_form([table.ids for table in tables])
    for table, ids in zip(tables, renamed, strict=True):
        if pc.count_distinct(ids).as_py() < len(ids):
            counts = pc.value_counts(ids)
            twice = counts.filter(pc.greater(counts.field("counts"), 1)).field("values").to_pylist()
            raise UsageError(
                f"{table.path}: {len(twice):,} ids are there more than once ({examples(twice)}); "
                "an id must name one sample"
            )
    return [dataclasses.replace(t, ids=ids) for t, ids in zip(tables, renamed, strict=True)]


def _one_form(columns: Sequence[pa.StringArray]) -> list[pa.StringArray]:
    """Ids as `names.unify` writes them; whole numbers and words, nearly all ids, cost no loop."""

    def every(pattern: str) -> bool:
        return all(pc.all(pc.match_substring_regex(ids, pattern)).as_py() for ids in columns)

    if every(r"\A(0|-?[1-9][0-9]*)\z") or not every(rf"\A(?:{spelling.NUMBER.pattern})\z"):
        return list(columns)
    return [pa.array(map(spelling.number_name, ids.to_pylist()), pa.string()) for ids in columns]


def agreed(tables: Sequence[Table], column: str, what: str) -> tuple[Categorical, Table]:
    """A column of aligned tables that stands in one or several of them, and the first that has it.

    Args:
        tables: from `align`.
        column: its name in the files.
        what: label or group, for messages and the option that names it.

    Raises:
        UsageError: where no table has it, or two disagree.
    """
    having = [table for table in tables if column in table.cells]
    if not having:
        raise UsageError(
            f"{tables[0].path}: no column {column!r}, nor in the other files; "
            f"name it with --{what}-column"
        )
    first, *others = names.unify([table.cells[column] for table in having])
    for table, cells in zip(having[1:], others, strict=True):
        different = np.flatnonzero(cells.codes != first.codes)
        if len(different):
            row = int(different[0])
            here, there = (
                c.names[c.codes[row]] if c.codes[row] >= 0 else "" for c in (cells, first)
            )
            raise UsageError(
                f"{len(different):,} samples have another {what} in {table.path} than in "
                f"{having[0].path} (id {having[0].ids[row].as_py()}: {here!r} and {there!r})"
            )
    return first, having[0]
