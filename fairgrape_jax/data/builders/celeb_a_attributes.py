"""CelebA (Liu, Luo, Wang and Tang, ICCV 2015): 39 attributes to predict, Male as the group."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import ClassVar, NamedTuple

from fairgrape_jax.data.builders.listing import (
    WHOLE,
    Column,
    Listing,
    Options,
    Row,
    class_number,
)
from fairgrape_jax.data.builders.matching import Names, match
from fairgrape_jax.data.builders.tables import read_table, read_text
from fairgrape_jax.data.images import files
from fairgrape_jax.errors import UsageError

GROUP, PICTURE = "Male", "image_id"
ANSWERS = ("no", "yes")
SIGNS = {"-1": 0, "1": 1}
SPLITS = {"0": "train", "1": "validation", "2": "test"}


ATTRIBUTES = ("list_attr_celeba.txt", "list_attr_celeba.csv")
PARTITIONS = ("list_eval_partition.txt", "list_eval_partition.csv")


@dataclasses.dataclass(frozen=True)
class CelebAAttributes(Options):
    """CelebA: the folder that holds img_align_celeba (a folder, .zip or .tar[.gz]) and
    list_attr_celeba.txt, or Kaggle's list_attr_celeba.csv; for non-commercial research.

    With list_eval_partition.txt or .csv beside them, the authors' splits are kept.
    """

    attributes: str = ""
    """The attribute list, where it has another name."""

    HINT: ClassVar[str] = "a folder with img_align_celeba[.zip] and list_attr_celeba.txt or .csv"


class Attributes(NamedTuple):
    """The list of attributes.

    Attributes:
        names: What the attributes are called.
        lines: File and row, picture, and the signs of each row.
    """

    names: list[str]
    lines: list[tuple[str, str, list[str]]]


def read(place: Path, options: CelebAAttributes, scratch: Path) -> Listing:
    """A row for each line of the list.

    Args:
        place: The folder.
        options: The name of the list, and what may be left out.
        scratch: The folder for unpacked tars.

    Returns:
        The dataset.

    Raises:
        UsageError: It names the file and line of what is wrong.
    """
    files.check_place(place, options.HINT)
    table = Path(options.attributes) if options.attributes else first_of(place, ATTRIBUTES)
    attributes = read_attributes(table)
    partition = first_of(place, PARTITIONS)
    splits = read_partition(partition)
    contents = files.find(pictures(place), scratch, options.HINT)
    names = Names(files.by_name(contents.entries), place, contents.others)
    matches = match([(name, where) for where, name, _ in attributes.lines], names, options)
    rows = []
    for where, listed, signs in attributes.lines:
        if name := matches.names.get(listed):
            values = tuple(
                class_number(where, attribute, sign, SIGNS)
                for attribute, sign in zip(attributes.names, signs, strict=True)
            )
            if splits and listed not in splits:
                raise UsageError(f"{where}: {listed} is not in {partition.name}")
            split = splits.get(listed, WHOLE)
            rows.append(Row(name, names.files[name], where, values, name, split))
    return Listing(
        columns=tuple(Column(name, ANSWERS, group=True) for name in attributes.names),
        rows=tuple(rows),
        labels=tuple(name for name in attributes.names if name != GROUP),
        groups=(GROUP,),
        notes=(
            "CelebA is for non-commercial research: do not publish its pictures.",
            *contents.notes,
        ),
        left_out=matches.left_out,
    )


def first_of(place: Path, names: tuple[str, ...]) -> Path:
    """The first file that is there.

    Args:
        place: A folder.
        names: Names of files.

    Returns:
        Its path; that of the first name where none is there.
    """
    return next((place / name for name in names if (place / name).is_file()), place / names[0])


def pictures(place: Path) -> Path:
    """Where the aligned pictures are.

    Args:
        place: The folder of the dataset.

    Returns:
        The folder or archive of aligned pictures in it; the place itself if none is named.
    """
    for name in ("img_align_celeba", "img_align_celeba.zip", "img_align_celeba.tar.gz"):
        if (place / name).exists():
            return place / name
    return place


def read_attributes(path: Path) -> Attributes:
    """Read the list of attributes, as its authors ship it or as a CSV.

    Args:
        path: The file.

    Returns:
        The attributes' names and the rows.

    Raises:
        UsageError: The count in the first line, the header or a line is wrong.
    """
    if path.suffix.lower() == ".csv":
        lines = read_table(path, (PICTURE, GROUP))
        names = [name for name in (lines[0].cells if lines else ()) if name != PICTURE]
        rows = [(where, c[PICTURE], [c[name] for name in names]) for where, c in lines]
        return Attributes(names, rows)
    text = read_text(path, "it is CelebA's list of attributes").splitlines()
    names = text[1].split() if len(text) > 1 else []
    if not text or not text[0].strip().isdecimal() or GROUP not in names:
        raise UsageError(
            f"{path} row 1: expected the number of pictures, then a row of names with {GROUP}; "
            "give CelebA's list_attr_celeba.txt"
        )
    rows = []
    for i, line in enumerate(text[2:], 3):
        name, *signs = line.split() or [""]
        if name and len(signs) != len(names):
            raise UsageError(f"{path} row {i}: {len(signs)} values, the header names {len(names)}")
        if name:
            rows.append((f"{path} row {i}", name, signs))
    if len(rows) != int(text[0]):
        raise UsageError(f"{path} row 1: says {text[0].strip()} pictures, {len(rows)} rows follow")
    return Attributes(names, rows)


def read_partition(path: Path) -> dict[str, str]:
    """Read the authors' splits, as they ship them or as a CSV.

    Args:
        path: The file.

    Returns:
        The split of each picture; empty where there is no such file.

    Raises:
        UsageError: It names the row that is no picture with 0, 1 or 2.
    """
    if not path.exists():
        return {}
    if path.suffix.lower() == ".csv":
        lines = read_table(path, (PICTURE, "partition"))
        rows = [(where, [c[PICTURE], c["partition"].strip()]) for where, c in lines]
    else:
        text = read_text(path, "it is CelebA's partition").splitlines()
        rows = [(f"{path} row {i}", line.split()) for i, line in enumerate(text, 1)]
    splits: dict[str, str] = {}
    for where, words in rows:
        if words and (len(words) != 2 or words[1] not in SPLITS):
            raise UsageError(f"{where}: {' '.join(words)!r} is not a picture and 0, 1 or 2")
        if words:
            splits[words[0]] = SPLITS[words[1]]
    return splits
