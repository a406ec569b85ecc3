"""CelebA (Liu, Luo, Wang and Tang, ICCV 2015): 39 attributes to predict, Male as the group."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import ClassVar

from fairgrape_jax.data.builders import files
from fairgrape_jax.data.builders.listing import (
    WHOLE,
    Column,
    Listing,
    Options,
    Row,
    matched,
    number,
    read_text,
)
from fairgrape_jax.errors import UsageError

GROUP = "Male"
ANSWERS = ("no", "yes")
SIGNS = {"-1": 0, "1": 1}
SPLITS = {"0": "train", "1": "validation", "2": "test"}


@dataclasses.dataclass(frozen=True)
class CelebAAttributes(Options):
    """CelebA: the folder that holds img_align_celeba (a folder, .zip or .tar[.gz]) and
    list_attr_celeba.txt; for non-commercial research.

    With list_eval_partition.txt beside them, the authors' splits are kept.
    """

    attributes: str = ""
    """The attribute list, where it has another name."""

    HINT: ClassVar[str] = "a folder with img_align_celeba[.zip] and list_attr_celeba.txt"


def read(place: Path, options: CelebAAttributes, scratch: Path) -> Listing:
    """A row for each line of the list. UsageError names the file and line of what is wrong."""
    table = Path(options.attributes) if options.attributes else place / "list_attr_celeba.txt"
    names, lines = read_attributes(table)
    splits = read_partition(place / "list_eval_partition.txt")
    entries = files.by_name(files.find(pictures(place), scratch, options.HINT))
    both, notes = matched([(name, where) for where, name, _ in lines], entries, options)
    rows = []
    for where, name, signs in lines:
        if name in both:
            values = tuple(number(where, n, s, SIGNS) for n, s in zip(names, signs, strict=True))
            if splits and name not in splits:
                raise UsageError(f"{where}: {name} is not in list_eval_partition.txt")
            rows.append(Row(name, entries[name], where, values, name, splits.get(name, WHOLE)))
    return Listing(
        columns=tuple(Column(name, ANSWERS, group=True) for name in names),
        rows=tuple(rows),
        notes=("CelebA is for non-commercial research: do not publish its pictures.", *notes),
        labels=tuple(name for name in names if name != GROUP),
        groups=(GROUP,),
    )


def pictures(place: Path) -> Path:
    """The folder or archive of aligned pictures in `place`; the place itself if none is named."""
    for name in ("img_align_celeba", "img_align_celeba.zip", "img_align_celeba.tar.gz"):
        if (place / name).exists():
            return place / name
    return place


def read_attributes(path: Path) -> tuple[list[str], list[tuple[str, str, list[str]]]]:
    """Attribute names, and (place, picture, signs) of each line below the first two.

    UsageError if the count in the first line, the header or a line is wrong.
    """
    text = read_text(path, "it is CelebA's list of attributes").splitlines()
    names = text[1].split() if len(text) > 1 else []
    if not text or not text[0].strip().isdecimal() or GROUP not in names:
        raise UsageError(
            f"{path} row 1: expected the number of pictures, then a row of names with {GROUP}; "
            "give CelebA's list_attr_celeba.txt"
        )
    lines = []
    for i, line in enumerate(text[2:], 3):
        name, *signs = line.split() or [""]
        if name and len(signs) != len(names):
            raise UsageError(f"{path} row {i}: {len(signs)} values, the header names {len(names)}")
        if name:
            lines.append((f"{path} row {i}", name, signs))
    if len(lines) != int(text[0]):
        raise UsageError(f"{path} row 1: says {text[0].strip()} pictures, {len(lines)} rows follow")
    return names, lines


def read_partition(path: Path) -> dict[str, str]:
    """The authors' split of each picture; empty where there is no such file."""
    splits: dict[str, str] = {}
    if not path.exists():
        return splits
    for i, line in enumerate(read_text(path, "it is CelebA's partition").splitlines(), 1):
        name, *rest = line.split() or [""]
        if name and (len(rest) != 1 or rest[0] not in SPLITS):
            raise UsageError(f"{path} row {i}: {line!r} is not a picture and 0, 1 or 2")
        if name:
            splits[name] = SPLITS[rest[0]]
    return splits
