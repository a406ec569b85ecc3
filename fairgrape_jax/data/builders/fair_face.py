"""FairFace (Karkkainen and Joo, WACV 2021): 97,698 faces, 7 races, 2 genders, 9 ages."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path, PurePosixPath
from typing import ClassVar

from fairgrape_jax.data.builders.listing import (
    Column,
    Listing,
    Options,
    Row,
    class_number,
    number_names,
)
from fairgrape_jax.data.builders.matching import Names, match
from fairgrape_jax.data.builders.tables import read_table
from fairgrape_jax.data.images import files

RACES = (
    "White",
    "Black",
    "Latino_Hispanic",
    "East Asian",
    "Southeast Asian",
    "Indian",
    "Middle Eastern",
)
GENDERS = ("Male", "Female")
AGES = ("0-2", "3-9", "10-19", "20-29", "30-39", "40-49", "50-59", "60-69", "more than 70")
TABLES = {"train": "fairface_label_train.csv", "validation": "fairface_label_val.csv"}
COLUMNS = ("file", "age", "gender", "race")


@dataclasses.dataclass(frozen=True)
class FairFace(Options):
    """FairFace: the folder that holds train/, val/ and both label CSVs, as its authors ship them.

    The folder with the pictures may lie one level down (fairface-img-margin025-trainval).
    """

    HINT: ClassVar[str] = "a folder with train/, val/ and fairface_label_{train,val}.csv"


def read(place: Path, options: FairFace, scratch: Path) -> Listing:
    """A row for each of both tables.

    Args:
        place: The folder.
        options: What may be left out.
        scratch: The folder for unpacked tars.

    Returns:
        The dataset.

    Raises:
        UsageError: It names the file and row of what is wrong.
    """
    files.check_place(place, options.HINT)
    lines = [
        (split, line)
        for split, table in TABLES.items()
        for line in read_table(place / table, COLUMNS)
    ]
    contents = files.find(place, scratch, options.HINT)
    names = Names(files.by_name(contents.entries, parts=2), place, contents.others)
    matches = match([(line.cells["file"], line.where) for _, line in lines], names, options)
    classes = {"race": RACES, "gender": GENDERS, "age": AGES}
    numbers = {column: number_names(known) for column, known in classes.items()}
    rows = []
    for split, (where, cells) in lines:
        if name := matches.names.get(cells["file"]):
            values = tuple(class_number(where, c, cells[c], numbers[c]) for c in classes)
            rows.append(Row(name, names.files[name], where, values, source(name), split))
    return Listing(
        columns=tuple(Column(name, known, group=True) for name, known in classes.items()),
        rows=tuple(rows),
        labels=("gender", "race", "age"),
        groups=("race", "gender"),
        notes=("FairFace is under CC BY 4.0.", *contents.notes),
        left_out=matches.left_out,
    )


def source(name: str) -> str:
    """The picture that a face was cut from: crops are named PICTURE_faceN.

    Args:
        name: The path of a crop.

    Returns:
        The path of the picture, without its extension.

    Example:
        >>> source("train/7_face1.jpg"), source("train/7.jpg")
        ('train/7', 'train/7')
    """
    return re.sub(r"_face\d+$", "", str(PurePosixPath(name).with_suffix("")))
