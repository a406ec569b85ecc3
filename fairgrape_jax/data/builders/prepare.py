"""Prepare a dataset: read its listing, compare it with what is there, write it, put it in place.

A dataset is there whole, or not: it is written in a folder of its own, `.VERSION.partial`, and put
in its place by one rename. Killed, the same call goes on; refused, nothing is left behind.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.util
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from fairgrape_jax.data.builders import builder, shards
from fairgrape_jax.data.builders.changes import changes
from fairgrape_jax.data.builders.listing import (
    Listing,
    Options,
    Row,
    check_allowed,
    check_any,
    check_names,
    drop_unused,
)
from fairgrape_jax.data.builders.shard_plan import SHARD_BYTES
from fairgrape_jax.data.images import files
from fairgrape_jax.data.images.records import ABOUT, VERSION, dataset_directory
from fairgrape_jax.data.sources.stored import stored_in
from fairgrape_jax.errors import UsageError
from fairgrape_jax.progress import Progress
from fairgrape_jax.storage import lock
from fairgrape_jax.storage.schema import JsonObject


class Result(NamedTuple):
    """A prepared dataset.

    Attributes:
        directory: Where it lies.
        is_new: Whether it was written now; False where it was there, unchanged.
    """

    directory: Path
    is_new: bool


def prepare(
    name: str,
    place: Path,
    options: Options,
    *,
    data_dir: Path,
    called: str = "",
    overwrite: bool = False,
    tfrecord: bool = False,
    shard_bytes: int = SHARD_BYTES,
    progress: Progress | None = None,
) -> Result:
    """Read `place` with the builder `name`, and write the dataset.

    A dataset that is there already is compared with what `place` holds now: table, names and the
    bytes of every picture.

    Args:
        name: A row of the table of builders.
        place: What it reads.
        options: Those of the builder.
        data_dir: The folder of prepared datasets.
        called: The name to store it under; the builder's by default.
        overwrite: Replace a dataset of that name.
        tfrecord: Write TFRecord files beside the ArrayRecord ones, which `tfds.load` needs.
        shard_bytes: Bytes of pictures that are written again after a kill, about.
        progress: Called with (pictures done, pictures in all).

    Returns:
        Where it lies, and whether it is new.

    Raises:
        UsageError: It names what is wrong with the files or rows, or what has changed since the
            dataset was prepared; nothing half-written looks whole.
    """
    row, called = builder(name), called or name
    if not called.isidentifier() or called != called.lower():
        raise UsageError(f"--name {called!r}: give small letters, digits and underscores")
    if tfrecord and importlib.util.find_spec("tensorflow") is None:
        raise UsageError("--tfrecord: needs TensorFlow, as tfds.load does; install tensorflow-cpu")
    check_allowed(options)
    files.check_place(place, options.HINT)
    target = dataset_directory(called, data_dir)
    made_by = {"builder": name, "options": json.loads(json.dumps(dataclasses.asdict(options)))}
    is_there = (target / ABOUT).exists() and not overwrite
    if is_there:
        check_options(target, options, made_by)
    with _partial_folder(target) as partial:
        listing = row.read(place, options, partial / "unpacked")
        check_any(len(listing.rows), place, listing.left_out)
        listing = drop_unused(listing, options)
        check_names(listing)
        if is_there:
            check_unchanged(target, listing, options, progress)
            return Result(target, is_new=False)
        listing = dataclasses.replace(listing, rows=tuple(shuffle_rows(listing.rows)))
        job = shards.Job(
            listing=listing,
            options=options,
            made_by=made_by,
            place=place,
            partial=partial,
            shard_bytes=shard_bytes,
            tfrecord=tfrecord,
            progress=progress,
        )
        shutil.rmtree(partial / "whole", ignore_errors=True)
        written = shards.write(job, called, partial / "whole")
        if target.exists():
            os.rename(target, partial / f"replaced-{os.getpid()}")
        os.rename(written, target)
    return Result(target, is_new=True)


@contextlib.contextmanager
def _partial_folder(target: Path) -> Iterator[Path]:
    """A folder to write in, which is gone afterwards unless this process is killed or interrupted.

    What an earlier attempt left is kept where this one is refused before it has written anything.
    """
    partial = target.parent / f".{VERSION}.partial"
    before = partial.exists() and any(partial.glob("shard-*.json"))
    done = False
    try:
        with lock.hold(partial.with_name(f"{partial.name}.lock")):
            partial.mkdir(parents=True, exist_ok=True)
            try:
                yield partial
                done = True
            except UsageError:
                done = not before
                raise
            finally:
                if done:
                    shutil.rmtree(partial)
    finally:
        with contextlib.suppress(OSError):  # it holds a dataset, or what goes on later
            target.parent.rmdir()


def check_options(target: Path, options: Options, made_by: JsonObject) -> None:
    """Refuse to take a dataset for another one.

    Args:
        target: A prepared dataset.
        options: The options asked for.
        made_by: The builder and the options asked for, as plain values.

    Raises:
        UsageError: It was made by another builder, or with other options; it names them.
    """
    about = stored_in(target).about
    # An option that came later had its default.
    defaults = json.loads(json.dumps(dataclasses.asdict(type(options)())))
    before, now = defaults | about["options"], made_by["options"]
    differing = [
        f"{option} was {before.get(option)!r}, now {now.get(option)!r}"
        for option in {**before, **now}
        if before.get(option) != now.get(option)
    ]
    if about["builder"] != made_by["builder"]:
        differing = [f"by {about['builder']}, now {made_by['builder']}"]
    if differing:
        raise UsageError(
            f"{target}: was prepared otherwise ({'; '.join(differing)}); give another --name, or "
            "--overwrite to replace it"
        )


def check_unchanged(
    target: Path, listing: Listing, options: Options, progress: Progress | None = None
) -> None:
    """Refuse to keep a dataset whose source is no longer what it was.

    Args:
        target: The prepared dataset.
        listing: What its source holds now.
        options: What may be left out.
        progress: Called with (pictures compared, pictures in all).

    Raises:
        UsageError: It names what has changed.
    """
    if texts := changes(stored_in(target), listing, options, progress):
        raise UsageError(
            f"{target}: is there already, of other data: {'; '.join(texts)}. Give --overwrite to "
            "replace it, or another --name"
        )


def shuffle_rows(rows: Sequence[Row]) -> list[Row]:
    """Put rows in an order that follows from their names alone: no run of one class or person.

    Args:
        rows: All rows.

    Returns:
        Each split's rows together, by a hash of their names.
    """
    return sorted(rows, key=lambda row: (row.split, hashlib.sha256(row.name.encode()).digest()))
