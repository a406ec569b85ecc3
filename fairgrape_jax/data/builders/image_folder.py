"""Pictures with a metadata.csv or metadata.jsonl beside them, as Hugging Face's ImageFolder."""

from __future__ import annotations

import dataclasses
import posixpath
from pathlib import Path
from typing import ClassVar

from fairgrape_jax.data.builders.folder_csv import by_path
from fairgrape_jax.data.builders.listing import WHOLE, Listing
from fairgrape_jax.data.builders.matching import Names
from fairgrape_jax.data.builders.rows import Roles, TableOptions, check_columns, from_lines
from fairgrape_jax.data.builders.tables import Line, read_table
from fairgrape_jax.data.images import files
from fairgrape_jax.errors import UsageError

TABLES = ("metadata.csv", "metadata.jsonl")
FILE, SPLIT = "file_name", " split"  # a column that no table has
SPLITS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}


@dataclasses.dataclass(frozen=True)
class ImageFolder(TableOptions):
    """Pictures with metadata.csv or metadata.jsonl (column file_name), as Hugging Face has them.

    Tables in folders train/, validation/ and test/ keep these splits.
    """

    HINT: ClassVar[str] = "a folder of pictures with a metadata.csv or metadata.jsonl"


def read(place: Path, options: ImageFolder, scratch: Path) -> Listing:
    """A row for each row of the tables; file_name is a path from the folder of its table.

    Args:
        place: A folder.
        options: The columns of the tables.
        scratch: Not used: archives hold no tables that are read.

    Returns:
        The dataset.

    Raises:
        UsageError: There is no table, or it names the file and row of what is wrong.
    """
    check_columns(options)
    files.check_place(place, options.HINT)
    if not place.is_dir():
        raise UsageError(f"{place}: not a folder; give {options.HINT}, unpacked")
    contents = files.find(place, scratch, options.HINT)
    tables = sorted(n for n in contents.others if posixpath.basename(n) in TABLES)
    if not tables:
        raise UsageError(f"{place}: no {' or '.join(TABLES)} in it; give {options.HINT}")
    needed = (FILE, *options.columns, *filter(None, (options.source,)))
    lines = []
    for table in tables:
        folder = posixpath.dirname(table)
        split = split_of(folder)
        for where, cells in read_table(place / table, needed):
            path = posixpath.join(folder, cells[FILE].strip()) if cells[FILE].strip() else ""
            lines.append(Line(where, cells | {FILE: path, SPLIT: split}))
    names = Names(by_path(contents), place, contents.others)
    listing = from_lines(lines, names, options, Roles(FILE, SPLIT))
    return dataclasses.replace(listing, notes=contents.notes)


def split_of(folder: str) -> str:
    """The split that a folder, or a file, is named by.

    Args:
        folder: A path.

    Returns:
        train, validation or test; `WHOLE` where no part of the path is such a name.

    Example:
        >>> split_of("data/val"), split_of("data/train-00000-of-00002.parquet"), split_of("data")
        ('validation', 'train', 'full')
    """
    for part in folder.split("/"):
        name = part.split(".")[0].split("-")[0].lower()
        if name in SPLITS:
            return SPLITS[name]
    return WHOLE
