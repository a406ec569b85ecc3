"""ImageNet (ILSVRC 2012): 1,000 classes, which are also the groups unless a CSV gives others."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path, PurePosixPath
from typing import ClassVar

from fairgrape_jax.data.builders import files
from fairgrape_jax.data.builders.files import Entry
from fairgrape_jax.data.builders.folder_csv import ordered
from fairgrape_jax.data.builders.listing import (
    Column,
    Listing,
    Options,
    Row,
    matched,
    read_table,
    read_text,
    settled,
)
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
    """A row for each picture. UsageError for a wrong tar, a class without a picture, a bad row."""
    if not place.is_dir():
        raise UsageError(f"{place}: not a folder; give {EACH_OF_CLASS}")
    found = {
        "train": _by_synset(place, "train", TRAIN_TAR, scratch),
        "validation": _validation(place, scratch),
    }
    synsets = tuple(sorted({synset for synset, _ in found["train"]}))
    known = {synset: i for i, synset in enumerate(synsets)}
    notes: tuple[str, ...] = ()
    rows = []
    for split, pictures in found.items():
        strangers = [str(entry) for synset, entry in pictures if synset not in known]
        notes += settled(strangers, f"pictures of {split} in no class of train", options)
        rows += [
            Row(PurePosixPath(e.name).name, e, str(e), (known[synset],), e.name, split)
            for synset, e in pictures
            if synset in known
        ]
    columns: tuple[Column, ...] = (Column("class", synsets, group=True),)
    if options.groups:
        rows, extra = _grouped(rows, Path(options.groups), options)
        classes = ordered({row.source for row in rows})
        numbers = {name: i for i, name in enumerate(classes)}
        rows = [
            dataclasses.replace(r, values=(*r.values, numbers[r.source]), source=r.file.name)
            for r in rows
        ]
        columns, notes = (*columns, Column("group", classes, group=True)), (*notes, *extra)
    return Listing(
        columns=columns,
        rows=tuple(rows),
        notes=("ImageNet is for non-commercial research.", *notes),
        labels=("class",),
        groups=("group",) if options.groups else ("class",),
    )


def _by_synset(place: Path, folder: str, tar: str, scratch: Path) -> list[tuple[str, Entry]]:
    """Pictures whose folder, or tar inside the tar, is named by a synset."""
    inside = place / folder if (place / folder).is_dir() else place / tar
    pictures = []
    for entry in files.find(inside, scratch, EACH_OF_CLASS):
        synset = PurePosixPath(entry.name).parent.name
        if not SYNSET.fullmatch(synset):
            raise UsageError(
                f"{entry}: lies in {synset!r}, not in a synset as n01440764; give {EACH_OF_CLASS}"
            )
        pictures.append((synset, entry))
    if inside.is_dir():
        filled = {synset for synset, _ in pictures}
        empty = sorted(p.name for p in inside.iterdir() if p.is_dir() and p.name not in filled)
        if empty:
            raise UsageError(f"{inside / empty[0]}: a class without a picture; fill or remove it")
    return pictures


def _validation(place: Path, scratch: Path) -> list[tuple[str, Entry]]:
    if not (place / VALIDATION_TAR).exists() or (place / "val").is_dir():
        return _by_synset(place, "val", VALIDATION_TAR, scratch)
    entries = files.find(place / VALIDATION_TAR, scratch, EACH_OF_CLASS)
    labels = place / LABELS
    synsets = read_text(labels, "a line with the synset of each validation picture").split()
    if len(synsets) != len(entries):
        raise UsageError(f"{labels}: {len(synsets)} synsets for {len(entries)} pictures")
    for i, synset in enumerate(synsets, 1):
        if not SYNSET.fullmatch(synset):
            raise UsageError(f"{labels} row {i}: {synset!r} is not a synset as n01440764")
    return list(zip(synsets, sorted(entries, key=lambda entry: entry.name), strict=True))


def _grouped(
    rows: list[Row], table: Path, options: ImageNet2012
) -> tuple[list[Row], tuple[str, ...]]:
    """The rows that the table gives a group, which stands in `source` for now."""
    lines = list(read_table(table, ("file", "group")))
    by_name = {row.name: row.file for row in rows}
    both, notes = matched([(line["file"], where) for where, line in lines], by_name, options)
    groups = {line["file"]: line["group"].strip() for _, line in lines}
    return [
        dataclasses.replace(row, source=groups[row.name]) for row in rows if row.name in both
    ], notes
