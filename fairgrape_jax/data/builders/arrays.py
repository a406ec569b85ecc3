"""Write the arrays of `from_arrays` as a prepared dataset, which `prepared` reads too."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fairgrape_jax.data.builders import shards
from fairgrape_jax.data.builders.listing import WHOLE, Column, Listing, Options, Row, check_names
from fairgrape_jax.data.builders.prepare import shuffle_rows
from fairgrape_jax.data.images.entries import Entry
from fairgrape_jax.data.images.records import ABOUT, THREADS
from fairgrape_jax.data.sources.arrays import (
    DATASET,
    GROUP,
    Content,
    describe,
    pack,
)
from fairgrape_jax.data.sources.splits import NAMES


def write(content: Content, fingerprint: str, target: Path) -> None:
    """Write the records; another process may be doing the same.

    Args:
        content: The arrays.
        fingerprint: Of them.
        target: The directory of the prepared dataset; there whole, or not at all.

    Raises:
        UsageError: A name of a task, class or group cannot be stored.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".arrays-", dir=target.parent))
    try:
        job = shards.Job(
            listing=listing_of(content, scratch / "pictures.bin"),
            options=Options(),
            made_by={
                "builder": "from_arrays",
                "options": describe(content) | {"fingerprint": fingerprint},
            },
            place=target,
            partial=scratch,
        )
        written = shards.write(job, DATASET, scratch / "whole")
        with contextlib.suppress(OSError):  # another process was first, with the same arrays
            os.rename(written, target)
        if not (target / ABOUT).exists():
            os.rename(written, target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def listing_of(content: Content, blob: Path) -> Listing:
    """The rows of a prepared dataset; their pictures are written one after another to a file.

    Args:
        content: The arrays.
        blob: The file.
    """
    columns = [Column(task.name, task.classes, group=False) for task in content.tasks]
    columns.append(Column(GROUP, content.names, group=True))
    width = len(str(len(content.images)))
    rows, begin = [], 0
    with blob.open("wb") as file, ThreadPoolExecutor(THREADS) as pool:
        for number, picture in enumerate(pool.map(pack, content.images)):
            file.write(picture)
            name = f"{number:0{width}}"
            part = int(content.parts[number])
            rows.append(
                Row(
                    name=name,
                    file=Entry(blob, name, begin, len(picture)),
                    where=f"sample {number}",
                    values=(*content.labels[number].tolist(), int(content.groups[number])),
                    source=name,
                    split=NAMES[part] if part >= 0 else WHOLE,
                )
            )
            begin += len(picture)
    channels = content.images.shape[-1]
    mean, std = content.mean, content.std
    if channels != 3:
        mean, std = content.mean[:1] * 3, content.std[:1] * 3
    notes = content.notes
    if channels not in (1, 3):
        notes += (f"pictures of {channels} channels: those of a pixel lie side by side",)
    listing = Listing(
        columns=tuple(columns),
        rows=tuple(shuffle_rows(rows)),
        labels=tuple(task.name for task in content.tasks),
        groups=(GROUP,),
        notes=notes,
        mean=mean,
        std=std,
    )
    check_names(listing)
    return listing
