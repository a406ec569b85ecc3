"""Parquet files with the bytes of the pictures in a column, as Hugging Face stores datasets."""

from __future__ import annotations

import collections
import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from fairgrape_jax.data.builders.image_folder import split_of
from fairgrape_jax.data.builders.listing import Listing
from fairgrape_jax.data.builders.matching import Names
from fairgrape_jax.data.builders.rows import Roles, TableOptions, check_columns, from_lines
from fairgrape_jax.data.builders.tables import Line, cell_text
from fairgrape_jax.data.images import files
from fairgrape_jax.data.images.entries import Entry
from fairgrape_jax.errors import UsageError
from fairgrape_jax.storage.schema import JsonObject

FILE, SPLIT = " file", " split"  # columns that no table has
ROWS = 64  # pictures in memory at a time


@dataclasses.dataclass(frozen=True)
class HfParquet(TableOptions):
    """Hugging Face's Parquet files: a column with the bytes of the pictures, others with labels.

    Files named train-..., validation-... and test-..., or in such folders, keep these splits.
    """

    image: str = "image"
    """Column of the pictures: bytes, or a struct of bytes and path."""

    HINT: ClassVar[str] = "a folder of .parquet files with the bytes of pictures, or one such file"


def read(place: Path, options: HfParquet, scratch: Path) -> Listing:
    """A row for each row of the files, in their order.

    The pictures are copied into one file per Parquet file, as these cannot be read at random.

    Args:
        place: A folder, or one file.
        options: The columns.
        scratch: The folder for the copies.

    Returns:
        The dataset; numbers of classes whose names the files hold are given by these names.

    Raises:
        UsageError: A file cannot be read, lacks a column or a picture, or has an empty cell.
    """
    check_columns(options)
    paths = _parquet_files(place, options.HINT)
    scratch.mkdir(parents=True, exist_ok=True)
    entries: list[Entry] = []
    lines: list[Line] = []
    for name, path in paths.items():
        for entry, line in _rows(name, path, options, scratch):
            entries.append(entry)
            lines.append(line)
    paths_count = collections.Counter(entry.name for entry in entries)
    named: dict[str, Entry] = {}
    for i, (entry, line) in enumerate(zip(entries, lines, strict=True)):
        # A path that is missing, or there several times, is no name: the file and row are.
        unique = entry.name and paths_count[entry.name] == 1
        name = entry.name if unique else line.cells[FILE]
        named[name] = entry._replace(name=name)
        lines[i] = Line(line.where, line.cells | {FILE: name})
    return from_lines(lines, Names(named, place), options, Roles(FILE, SPLIT))


def _parquet_files(place: Path, hint: str) -> dict[str, Path]:
    files.check_place(place, hint)
    if place.is_file():
        return {place.name: place}
    paths = {
        entry.name: entry.holder
        for entry in files.walk(place, {})
        if entry.name.lower().endswith(".parquet")
    }
    if not paths:
        raise UsageError(f"{place}: no .parquet file in it; give {hint}")
    return paths


def _rows(name: str, path: Path, options: HfParquet, scratch: Path) -> Iterator[tuple[Entry, Line]]:
    """Where the picture of each row is copied to, and its cells."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = [*options.columns, *filter(None, (options.source,))]
    copy = scratch / f"{name.replace('/', '_')}.pictures"
    try:
        with pq.ParquetFile(path) as table, copy.open("wb") as out:
            schema = table.schema_arrow
            for needed in (options.image, *columns):
                if needed not in schema.names:
                    raise UsageError(
                        f"{path}: no column {needed!r}; it has {', '.join(schema.names)}"
                    )
            classes = class_names(schema.metadata or {})
            row = 0
            for batch in table.iter_batches(ROWS, columns=[options.image, *columns]):
                for values in batch.to_pylist():
                    row += 1
                    where = f"{path} row {row}"
                    content, label = _picture(values[options.image], where, options.image)
                    entry = Entry(copy, label, out.tell(), len(content))
                    out.write(content)
                    cells = {c: _cell(values[c], classes.get(c), f"{where}: {c}") for c in columns}
                    cells |= {FILE: f"{name}/{row}", SPLIT: split_of(name)}
                    yield entry, Line(where, cells)
        # A copy is as old as what it was made of: what was written from it is still good.
        os.utime(copy, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"{path}: cannot be read as Parquet ({error})") from error


def class_names(metadata: dict[bytes, bytes]) -> dict[str, list[str]]:
    """The names of classes that Hugging Face's `datasets` puts into a file.

    Args:
        metadata: Of the file's schema.

    Returns:
        The names for each column that holds numbers of classes.

    Example:
        >>> label = {"names": ["cat", "dog"], "_type": "ClassLabel"}
        >>> class_names({b"huggingface": json.dumps({"info": {"features": {"y": label}}}).encode()})
        {'y': ['cat', 'dog']}
    """
    try:
        features: JsonObject = json.loads(metadata[b"huggingface"])["info"]["features"]
        return {
            column: list(map(str, feature["names"]))
            for column, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def _picture(value: object, where: str, column: str) -> tuple[bytes, str]:
    """The bytes of a cell with a picture, and the path that they had."""
    content, path = value, ""
    if isinstance(value, dict):
        content, path = value.get("bytes"), value.get("path") or ""
    if not isinstance(content, bytes):
        held = f"the path {path!r}, not its bytes" if path else "no bytes"
        raise UsageError(f"{where}: column {column!r} holds {held}; give files that hold pictures")
    return content, str(path)


def _cell(value: object, names: list[str] | None, where: str) -> str:
    if isinstance(value, dict | list | bytes):
        raise UsageError(f"{where} holds several values, or bytes; give a column of one value")
    if names is None or value is None:
        return cell_text(value)
    if value == -1:  # Hugging Face's number for no label
        return ""
    if not isinstance(value, int) or value not in range(len(names)):
        raise UsageError(f"{where} is {value!r}; its file names {len(names)} classes")
    return names[value]
