"""ImageNet (ILSVRC 2012): 1,000 classes, which are also the groups unless a CSV gives others."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path, PurePosixPath
from typing import ClassVar

from fairgrape_jax import spelling
from fairgrape_jax.data.builders.listing import (
    Column,
    Listing,
    Options,
    Row,
    leave_out,
    number_names,
)
from fairgrape_jax.data.builders.matching import Names, match
from fairgrape_jax.data.builders.rows import empty_cells
from fairgrape_jax.data.builders.tables import read_table, read_text
from fairgrape_jax.data.dataset import NO_GROUP
from fairgrape_jax.data.images import files
from fairgrape_jax.data.images.entries import Entry, is_leftover
from fairgrape_jax.errors import UsageError

TRAIN_TAR, VALIDATION_TAR = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
LABELS = "ILSVRC2012_validation_synsets.txt"
SYNSET = re.compile(r"n\d{8}")
EACH_OF_CLASS = "a folder with ILSVRC2012_img_{train,val}.tar, or with train/ and val/ of synsets"


@dataclasses.dataclass(frozen=True)
class ImageNet2012(Options):
    """ImageNet's official tars, or a folder train/SYNSET/*.JPEG and val/SYNSET/*.JPEG.

    The validation tar has no labels: beside it lies ILSVRC2012_validation_synsets.txt, a line with
    the synset of each picture in order of name.
    """

    groups: str = ""
    """A CSV with columns file and group; without it the group of a picture is its class."""

    HINT: ClassVar[str] = EACH_OF_CLASS


def read(place: Path, options: ImageNet2012, scratch: Path) -> Listing:
    """A row for each picture.

    Args:
        place: The folder with the tars, or with train/ and val/.
        options: The table of groups, and what may be left out.
        scratch: The folder for unpacked tars.

    Returns:
        The dataset.

    Raises:
        UsageError: It names a wrong tar, a class without a picture, a bad row.
    """
    files.check_place(place, EACH_OF_CLASS)
    if not place.is_dir():
        raise UsageError(f"{place}: not a folder; give {EACH_OF_CLASS}")
    pictures = {
        "train": _by_synset(place, "train", TRAIN_TAR, scratch),
        "validation": _validation(place, scratch),
    }
    synsets = tuple(sorted({synset for synset, _ in pictures["train"]}))
    number_of = number_names(synsets)
    rows = [
        Row(PurePosixPath(e.name).name, e, str(e), (number_of[synset],), e.name, split)
        for split, members in pictures.items()
        for synset, e in members
        if synset in number_of
    ]
    strangers = [str(e) for synset, e in pictures["validation"] if synset not in number_of]
    listing = Listing(
        columns=(Column("class", synsets, group=True),),
        rows=tuple(rows),
        labels=("class",),
        groups=("class",),
        notes=("ImageNet is for non-commercial research.",),
        left_out=leave_out(strangers, "unknown", options),
    )
    return _grouped(listing, Path(options.groups), options) if options.groups else listing


def _by_synset(place: Path, folder: str, tar: str, scratch: Path) -> list[tuple[str, Entry]]:
    """Pictures whose folder, or tar inside the tar, is named by a synset."""
    inside = place / folder if (place / folder).is_dir() else place / tar
    pictures = []
    for entry in files.find(inside, scratch, EACH_OF_CLASS).entries:
        synset = PurePosixPath(entry.name).parent.name
        if not SYNSET.fullmatch(synset):
            raise UsageError(
                f"{entry}: lies in {synset!r}, not in a synset as n01440764; give {EACH_OF_CLASS}"
            )
        pictures.append((synset, entry))
    if inside.is_dir():
        filled = {synset for synset, _ in pictures}
        empty = sorted(
            path.name
            for path in inside.iterdir()
            if path.is_dir() and path.name not in filled and not is_leftover(path.name)
        )
        if empty:
            raise UsageError(f"{inside / empty[0]}: a class without a picture; fill or remove it")
    return pictures


def _validation(place: Path, scratch: Path) -> list[tuple[str, Entry]]:
    if not (place / VALIDATION_TAR).exists() or (place / "val").is_dir():
        return _by_synset(place, "val", VALIDATION_TAR, scratch)
    entries = files.find(place / VALIDATION_TAR, scratch, EACH_OF_CLASS).entries
    labels = place / LABELS
    synsets = read_text(labels, "a line with the synset of each validation picture").split()
    if len(synsets) != len(entries):
        raise UsageError(f"{labels}: {len(synsets)} synsets for {len(entries)} pictures")
    for i, synset in enumerate(synsets, 1):
        if not SYNSET.fullmatch(synset):
            raise UsageError(f"{labels} row {i}: {synset!r} is not a synset as n01440764")
    return list(zip(synsets, sorted(entries, key=lambda entry: entry.name), strict=True))


def _grouped(listing: Listing, table: Path, options: ImageNet2012) -> Listing:
    """The rows that the table gives a group, with it."""
    lines = read_table(table, ("file", "group"))
    names = Names({row.name: row.file for row in listing.rows}, table.parent)
    matches = match([(line.cells["file"], line.where) for line in lines], names, options)
    empty = empty_cells(lines, ("group",), options)
    cells = [spelling.clean(line.cells["group"]) for line in lines]
    unified = spelling.unify_spelling(filter(None, cells))
    group_of = {
        matches.names[line.cells["file"]]: unified.get(cell, "")
        for line, cell in zip(lines, cells, strict=True)
        if line.cells["file"] in matches.names
    }
    classes = spelling.in_order(filter(None, group_of.values()))
    number_of = number_names(classes) | {"": NO_GROUP}
    rows = [
        dataclasses.replace(row, values=(*row.values, number_of[group_of[row.name]]))
        for row in listing.rows
        if row.name in group_of
    ]
    return dataclasses.replace(
        listing,
        columns=(*listing.columns, Column("group", classes, group=True)),
        rows=tuple(rows),
        groups=("group",),
        left_out=(*listing.left_out, *empty, *matches.left_out),
    )
