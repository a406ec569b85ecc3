"""UTKFace (Zhang, Song and Qi, CVPR 2017): file names give age, gender and race."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import ClassVar

from fairgrape_jax.data.builders import files
from fairgrape_jax.data.builders.listing import Column, Listing, Options, Row, settled
from fairgrape_jax.data.sources.utkface import (
    AGE_BANDS,
    EXPECTED,
    GENDERS,
    OTHERS,
    RACES,
    age_band,
    fields,
)
from fairgrape_jax.errors import UsageError


@dataclasses.dataclass(frozen=True)
class UTKFace(Options):
    """UTKFace, aligned and cropped: a folder or tar of pictures; for non-commercial research."""

    others: bool = False
    """Keep the pictures of race "Others", which the FairGRAPE paper drops."""

    HINT: ClassVar[str] = f"a folder or .tar[.gz] of {EXPECTED}"


def read(place: Path, options: UTKFace, scratch: Path) -> Listing:
    """A row for each name that can be read; the two odd names of UTKFace can.

    UsageError names the files whose names cannot, unless lenient.
    """
    entries = files.by_name(files.find(place, scratch, options.HINT))
    known = {name: fields(name) for name in entries}
    bad = [str(entries[name]) for name in sorted(known) if known[name] is None]
    notes = ["UTKFace is for non-commercial research: do not publish its pictures."]
    notes += settled(bad, "names that are not age_gender_race_date.jpg", options)
    rows, left_out = [], 0
    for name, values in sorted(known.items()):
        if values is None:
            continue
        age, gender, race = values
        if race == OTHERS and not options.others:
            left_out += 1
            continue
        rows.append(
            Row(name, entries[name], str(entries[name]), (gender, race, age_band(age)), name)
        )
    if left_out and not rows:
        raise UsageError(f"{place}: only pictures of race Others; give --others")
    if left_out:
        notes.append(f"{left_out:,} pictures of race Others left out (--others keeps them).")
    races = RACES if options.others else RACES[:OTHERS]
    return Listing(
        columns=(
            Column("gender", GENDERS, group=True),
            Column("race", races, group=True),
            Column("age", AGE_BANDS, group=True),
        ),
        rows=tuple(rows),
        notes=tuple(notes),
        labels=("gender", "race", "age"),
        groups=("race", "gender"),
    )
