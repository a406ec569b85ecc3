"""Read tables of text, CSV and JSON lines, so that every message can name file and row."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from fairgrape_jax.errors import UsageError


class Line(NamedTuple):
    """A row of a table.

    Attributes:
        where: "FILE row N", the first line of the file being row 1.
        cells: The text of each column; "" for an empty cell.
    """

    where: str
    cells: dict[str, str]


def read_text(path: Path, what: str) -> str:
    """The text of a file in UTF-8.

    Args:
        path: The file.
        what: What it should be, for the message.

    Returns:
        Its text, without a byte order mark.

    Raises:
        UsageError: There is no such file, or it is not UTF-8.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such file; {what}")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 ({error.reason}); save it as UTF-8") from error


def read_table(path: Path, needed: Sequence[str]) -> list[Line]:
    """Read a table: JSON lines where its name ends with .jsonl, else CSV with a header.

    Args:
        path: The file.
        needed: Columns that it must have.

    Returns:
        Its rows, in order.

    Raises:
        UsageError: There is no such file, it is no such table, or a needed column is missing.
    """
    text = read_text(path, f"it must hold the columns {', '.join(needed)}")
    read = _json_lines if path.suffix.lower() == ".jsonl" else _csv
    return list(read(path, text, needed))


def _csv(path: Path, text: str, needed: Sequence[str]) -> Iterator[Line]:
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
            where = f"{path} row {reader.line_num}"
            if len(values) < len(header):
                raise UsageError(f"{where}: {len(values)} values, the header names {len(header)}")
            yield Line(where, dict(zip(header, values, strict=False)))
    except csv.Error as error:
        raise UsageError(f"{path} row {reader.line_num}: not CSV ({error})") from error


def _json_lines(path: Path, text: str, needed: Sequence[str]) -> Iterator[Line]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path} row {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{where}: not JSON ({error})") from error
        if not isinstance(row, dict):
            raise UsageError(f"{where}: not an object with {', '.join(needed)}")
        if missing := [name for name in needed if name not in row]:
            raise UsageError(f"{where}: no {missing[0]!r}; needed: {', '.join(needed)}")
        cells = {name: value for name, value in row.items() if not isinstance(value, dict | list)}
        if nested := [name for name in needed if name not in cells]:
            raise UsageError(f"{where}: {nested[0]!r} holds several values; give one")
        yield Line(where, {name: cell_text(value) for name, value in cells.items()})


def cell_text(value: object) -> str:
    """The text of a value, as a CSV would hold it.

    Args:
        value: Text, a number, a truth value, or None for an empty cell.

    Returns:
        Its text; "" for None and for NaN.

    Example:
        >>> [cell_text(value) for value in ("a", 1, 1.0, True, None, float("nan"))]
        ['a', '1', '1.0', 'True', '', '']
    """
    if value is None or value != value:
        return ""
    return str(value)
