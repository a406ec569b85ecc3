"""Any folder of pictures with a table of labels and groups: the door for everybody's own data."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import ClassVar

from fairgrape_jax.data.builders.listing import Listing
from fairgrape_jax.data.builders.matching import Names
from fairgrape_jax.data.builders.rows import Roles, TableOptions, check_columns, from_lines
from fairgrape_jax.data.builders.tables import read_table
from fairgrape_jax.data.images import files
from fairgrape_jax.errors import UsageError


@dataclasses.dataclass(frozen=True)
class FolderCsv(TableOptions):
    """Your own data: pictures in a folder, .tar[.gz] or .zip, and a CSV with a row for each."""

    csv: str = "labels.csv"
    """The table, CSV or JSON lines; a plain name is looked for in the folder of the pictures."""
    file: str = "file"
    """Column with the path of the picture below the folder."""
    split: str = ""
    """Column with the split that each row belongs to; without it the seed decides."""

    HINT: ClassVar[str] = "a folder of pictures, with a CSV of their labels and groups"


def read(place: Path, options: FolderCsv, scratch: Path) -> Listing:
    """A row for each row of the table that has a picture.

    Args:
        place: A folder or an archive of pictures.
        options: The table and its columns.
        scratch: The folder for unpacked tars.

    Returns:
        The dataset; its classes are the values that are met, in natural order.

    Raises:
        UsageError: It names the file and row of what is wrong.
    """
    check_columns(options)
    files.check_place(place, options.HINT)
    table = Path(options.csv)
    if len(table.parts) == 1 and not table.exists():
        table = (place if place.is_dir() else place.parent) / table
    extra = tuple(filter(None, (options.source, options.split)))
    lines = read_table(table, (options.file, *options.columns, *extra))
    contents = files.find(place, scratch, options.HINT)
    names = Names(by_path(contents), place, contents.others)
    listing = from_lines(lines, names, options, Roles(options.file, options.split))
    return dataclasses.replace(listing, notes=contents.notes)


def by_path(contents: files.Contents) -> dict[str, files.Entry]:
    """Pictures by their whole paths.

    Args:
        contents: The pictures of a place.

    Returns:
        A picture for each path.

    Raises:
        UsageError: Two have the same path, as in two archives of one folder.
    """
    named: dict[str, files.Entry] = {}
    for entry in contents.entries:
        if entry.name in named:
            raise UsageError(f"{entry}: has the path of {named[entry.name]}; give each once")
        named[entry.name] = entry
    return named
