"""CSV files read as text: any line ends, quoted cells over several lines, encodings, gzip."""

from __future__ import annotations

import codecs
import collections
import csv
import gzip
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import pyarrow as pa
import pyarrow.csv

from fairgrape_jax.errors import UsageError
from fairgrape_jax.storage import is_object_path

# What the first bytes of a file say of its encoding; the longer marks first.
MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
BLOCK = 1 << 20  # bytes that are parsed at once; more where a row does not fit
LARGEST = (1 << 31) - 1
DELIMITERS = ";\t"  # instead of the comma, where it cuts the header nowhere


def detect_encoding(path: Path) -> str:
    """The encoding of a file.

    Args:
        path: the file, compressed if it ends in .gz.

    Returns:
        What its byte order mark names; "utf-8" without one.
    """
    with _open(path) as file:
        head = file.read(4)
    return next((name for mark, name in MARKS.items() if head.startswith(mark)), "utf-8")


def read_header(path: Path, encoding: str) -> tuple[list[str], str]:
    """The first row of a CSV file, and what stands between its cells.

    Args:
        path: the file, compressed if it ends in .gz.
        encoding: of its text.

    Returns:
        The names of the columns as they are written, none if it is empty; and the delimiter.
    """
    with _text(path, encoding) as file:
        names: list[str] = next(filter(None, csv.reader(file)), [])
        if len(names) != 1:
            return names, ","
        for delimiter in DELIMITERS:
            if delimiter in names[0]:
                file.seek(0)
                return next(filter(None, csv.reader(file, delimiter=delimiter))), delimiter
    return names, ","


def read(
    path: Path,
    names: Sequence[str],
    numbers: Sequence[str] = (),
    *,
    encoding: str = "utf-8",
    delimiter: str = ",",
    columns: int = 2,
    block: int = BLOCK,
) -> pa.Table:
    """The columns `names` of a CSV file, as a pyarrow table of strings.

    Args:
        path: the file, compressed if it ends in .gz.
        names: the columns to read, as the header writes them.
        numbers: those of them that are numbers.
        encoding: of the file; a byte order mark is no part of the text.
        delimiter: what stands between cells.
        columns: how many the file has. An empty line of a file of one is an empty cell.
        block: bytes to parse at once; what is read does not depend on it.

    Raises:
        UsageError: a quote is never closed, which would hide all rows behind it.
    """
    if _open_quote(path, encoding, delimiter):
        raise UsageError(f"{path}: a quoted cell has no end; rows behind it would be lost")
    while True:
        try:
            with _arrow(path) as file:
                return pa.csv.read_csv(
                    file,
                    read_options=pa.csv.ReadOptions(
                        block_size=block,
                        encoding="utf8" if encoding.startswith("utf-8") else encoding,
                    ),
                    parse_options=pa.csv.ParseOptions(
                        delimiter=delimiter,
                        newlines_in_values=True,
                        ignore_empty_lines=columns > 1,
                    ),
                    convert_options=pa.csv.ConvertOptions(
                        include_columns=names,
                        column_types={
                            name: pa.float64() if name in numbers else pa.string() for name in names
                        },
                        strings_can_be_null=True,
                        null_values=[""],  # a class may be called NA
                    ),
                )
        except pa.ArrowInvalid as error:
            if block == LARGEST or not _too_small(str(error)):
                raise
            block = min(8 * block, LARGEST)


def _too_small(message: str) -> bool:
    """Whether a block held no whole row, or not the whole header."""
    return "straddling" in message or "Empty CSV file or block" in message


def _open_quote(path: Path, encoding: str, delimiter: str) -> bool:
    """Whether the file ends within quotes, which pyarrow takes for the end of the cell."""
    with _text(path, encoding) as file:
        if not any('"' in chunk for chunk in iter(lambda: file.read(BLOCK), "")):
            return False
    limit = csv.field_size_limit(LARGEST)
    try:
        with _text(path, encoding) as file:
            collections.deque(csv.reader(file, delimiter=delimiter, strict=True), maxlen=0)
    except csv.Error as error:
        return "unexpected end of data" in str(error)
    finally:
        csv.field_size_limit(limit)
    return False


def _is_gzip(path: Path) -> bool:
    return path.name.lower().endswith(".gz")


def _open(path: Path) -> gzip.GzipFile | io.BufferedReader:
    if not _is_gzip(path):
        return path.open("rb")
    whole = is_object_path(path)
    return gzip.GzipFile(fileobj=io.BytesIO(path.read_bytes())) if whole else gzip.GzipFile(path)


def _text(path: Path, encoding: str) -> TextIO:
    return io.TextIOWrapper(_open(path), encoding=encoding, newline="", errors="surrogateescape")


def _arrow(path: Path) -> pa.NativeFile:
    content = pa.BufferReader(path.read_bytes()) if is_object_path(path) else str(path)
    return pa.input_stream(content, compression="gzip" if _is_gzip(path) else None)
