"""ImageNet's person subtree with annotations of gender (Yang et al., FAT* 2020), as FairGRAPE's.

The official FairGRAPE code tests `wnid not in imageable['wnid'][...]`, a pandas Series, and `in`
looks at the index of a Series, not at its values: true for every synset, so that with the line as
published nothing is left. The list that its authors ship (10,215 pictures) was made in some other
way. Here a synset must be in both sets, as the paper says.
"""

from __future__ import annotations

import collections
import dataclasses
import json
from pathlib import Path
from typing import ClassVar, TypedDict

from fairgrape_jax.data.builders.listing import Column, Listing, Options, Row, number_names
from fairgrape_jax.data.builders.matching import Names, match
from fairgrape_jax.data.builders.tables import read_table, read_text
from fairgrape_jax.data.images import files
from fairgrape_jax.errors import UsageError
from fairgrape_jax.storage import schema

GENDERS = ("male", "female")
UNSURE = "unsure"
SCORES = ("imageability score", "imageability.score")  # the authors' header, and another's


@dataclasses.dataclass(frozen=True)
class ImageNetPeople(Options):
    """The person subtree: pictures, demographics JSON, synsets_safety.csv, imageability_scores.csv.

    The JSON is given by the ImageNet team on request; the tables are on ImageNet's site.
    """

    annotations: str = "ImageNet demographics annotations.json"
    """The JSON: a list of objects with url (the picture's name) and gender (a list)."""
    imageability: float = 4.0
    """Least imageability of a synset."""
    minimum: int = 10
    """Least number of pictures of a class."""

    HINT: ClassVar[str] = "a folder with the pictures, the JSON and both tables"


def read(place: Path, options: ImageNetPeople, scratch: Path) -> Listing:
    """A row for each picture of a safe and imageable synset with one sure gender.

    Args:
        place: The folder.
        options: Thresholds, and what may be left out.
        scratch: The folder for unpacked tars.

    Returns:
        The dataset; its notes count what was left out.

    Raises:
        UsageError: It names the file and entry of what is wrong.
    """
    files.check_place(place, options.HINT)
    safe = {
        cells["wnid"]
        for _, cells in read_table(place / "synsets_safety.csv", ("wnid", "safety"))
        if cells["safety"].strip() == "safe"
    }
    imageable = _imageable(place / "imageability_scores.csv", options.imageability)
    dropped: collections.Counter[str] = collections.Counter()
    chosen: list[tuple[str, str, str, int]] = []
    for where, name, genders in _annotations(place / options.annotations):
        synset = name.split("_")[0]
        if synset not in safe:
            dropped["of an unsafe synset"] += 1
        elif synset not in imageable:
            dropped[f"of a synset with imageability below {options.imageability:g}"] += 1
        elif len(genders) != 1 or genders[0] == UNSURE:
            dropped["without one sure gender"] += 1
        else:
            chosen.append((where, name, synset, GENDERS.index(genders[0])))
    contents = files.find(place, scratch, options.HINT)
    names = Names(files.by_name(contents.entries), place, contents.others)
    matches = match([(c[1], c[0]) for c in chosen], names, options, unlisted=False)
    chosen = [c for c in chosen if c[1] in matches.names]
    counts = collections.Counter(synset for _, _, synset, _ in chosen)
    synsets = tuple(sorted(s for s, count in counts.items() if count >= options.minimum))
    if not synsets:
        raise UsageError(
            f"{place}: no class has {options.minimum} pictures; give more, or a lower --minimum"
        )
    dropped[f"of a class with fewer than {options.minimum}"] = sum(
        count for synset, count in counts.items() if synset not in synsets
    )
    number_of = number_names(synsets)
    rows = []
    for where, listed, synset, gender in chosen:
        if synset in number_of:
            name = matches.names[listed]
            rows.append(Row(name, names.files[name], where, (number_of[synset], gender), name))
    return Listing(
        columns=(Column("class", synsets, group=False), Column("gender", GENDERS, group=True)),
        rows=tuple(rows),
        labels=("class",),
        groups=("gender",),
        notes=("ImageNet is for non-commercial research.", *contents.notes),
        left_out=(
            *matches.left_out,
            *(f"{count:,} pictures {why} left out." for why, count in dropped.items() if count),
        ),
    )


def _imageable(path: Path, least: float) -> set[str]:
    rows = read_table(path, ("wnid",))
    column = next((name for name in SCORES if rows and name in rows[0].cells), None)
    if column is None:
        raise UsageError(f"{path} row 1: no column {SCORES[0]!r} in the header")
    imageable = set()
    for where, cells in rows:
        try:
            score = float(cells[column])
        except ValueError as error:
            raise UsageError(f"{where}: imageability {cells[column]!r} is no number") from error
        if score >= least:
            imageable.add(cells["wnid"])
    return imageable


class Annotation(TypedDict):
    """An object of the JSON, as far as it is read.

    Attributes:
        url: The name of the picture.
        gender: What the annotators saw in it.
    """

    url: str
    gender: list[str]


def _annotations(path: Path) -> list[tuple[str, str, list[str]]]:
    """(place, picture, genders) of each entry. UsageError if one is not as it should be."""
    text = read_text(path, "ask the ImageNet team for it")
    try:
        values: object = json.loads(text)
    except json.JSONDecodeError as error:
        raise UsageError(f"{path} row {error.lineno}: not JSON ({error.msg})") from error
    except RecursionError as error:
        raise UsageError(f"{path}: not the JSON of the ImageNet team ({error})") from error
    if not isinstance(values, list):
        raise UsageError(f"{path}: expected a list of objects with url and gender")
    annotations = []
    for i, value in enumerate(values, 1):
        where = f"{path} entry {i}"
        if not isinstance(value, dict) or not {"url", "gender"} <= value.keys():
            raise UsageError(f"{where}: expected an object with url and gender")
        if wrong := schema.misfit(value, Annotation):
            raise UsageError(f"{where}: {wrong}")
        genders = value["gender"]
        unknown = [g for g in genders if g not in (*GENDERS, UNSURE)]
        if unknown:
            raise UsageError(f"{where}: unknown gender {unknown[0]!r}; known: male, female, unsure")
        annotations.append((where, value["url"], genders))
    return annotations
