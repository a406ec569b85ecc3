"""UTKFace (Zhang, Song and Qi, CVPR 2017): file names give age, gender and race."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import ClassVar

from fairgrape_jax.data.builders.listing import Column, Listing, Options, Row, leave_out
from fairgrape_jax.data.sources.utkface import (
    AGE_BANDS,
    EXPECTED,
    GENDERS,
    OTHERS,
    RACES,
    age_band,
    faces,
)
from fairgrape_jax.errors import UsageError


@dataclasses.dataclass(frozen=True)
class UTKFace(Options):
    """UTKFace, aligned and cropped: a folder or tar of pictures; for non-commercial research."""

    others: bool = False
    """Keep the pictures of race "Others", which the FairGRAPE paper drops."""

    HINT: ClassVar[str] = EXPECTED


def read(place: Path, options: UTKFace, scratch: Path) -> Listing:
    """A row for each name that can be read; the two odd names of UTKFace can.

    Args:
        place: A folder or an archive.
        options: What to keep, and what to leave out.
        scratch: The folder for unpacked tars.

    Returns:
        The rows, sorted by name.

    Raises:
        UsageError: It names the files whose names cannot be read, unless they may be left out.
    """
    listed = faces(place, scratch)
    notes = ["UTKFace is for non-commercial research: do not publish its pictures.", *listed.notes]
    left_out = leave_out(listed.misnamed, "misnamed", options)
    kept = [face for face in listed.faces if options.others or face.race != OTHERS]
    if not kept:
        raise UsageError(f"{place}: only pictures of race Others; give --others")
    if others := len(listed.faces) - len(kept):
        notes.append(f"{others:,} pictures of race Others left out (--others keeps them).")
    rows = [
        Row(
            name=face.name,
            file=face.file,
            where=str(face.file),
            values=(face.gender, face.race, age_band(face.age)),
            source=face.name,
        )
        for face in kept
    ]
    races = RACES if options.others else RACES[:OTHERS]
    return Listing(
        columns=(
            Column("gender", GENDERS, group=True),
            Column("race", races, group=True),
            Column("age", AGE_BANDS, group=True),
        ),
        rows=tuple(rows),
        labels=("gender", "race", "age"),
        groups=("race", "gender"),
        notes=tuple(notes),
        left_out=left_out,
    )
