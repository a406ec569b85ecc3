"""Is a prepared dataset whole, and what is in it: counts, broken files, equal files."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fairgrape_jax import escape, storage
from fairgrape_jax.data.images import decode
from fairgrape_jax.data.images.records import CHUNK, THREADS
from fairgrape_jax.data.sources.prepared import Prepared, Stored, read, sides, unit_of
from fairgrape_jax.progress import Progress

SIDES = ("train", "validation", "test")
NAMED = 10


class Duplicates(NamedTuple):
    """Equal files. sets: record numbers of each set; side: (N,) where a split by source puts each.

    extra: files that equal one before them; crossing: sets on more than one side.
    """

    sets: list[np.ndarray]
    side: np.ndarray
    extra: int
    crossing: list[np.ndarray]


def check(
    source: Prepared, progress: Progress | None = None, names: Path | None = None
) -> tuple[list[str], bool]:
    """Lines that describe the dataset, and whether nothing is broken.

    Every file is decoded and compared with its digest. names: a CSV to write of all equal files.
    UsageError if there is no such dataset.
    """
    stored = read(source)
    count = len(stored.columns["values"])
    lines = [f"{source.dataset}: {count:,} pictures in {len(stored.records.paths)} files"]
    lines += [f"note: {note}" for note in stored.about["notes"]]
    lines += counts(stored, sides(stored.columns, source), source)
    damaged = wrong_sums(stored)
    lines += [
        f"damaged: {path} is not as it was written; prepare the dataset again" for path in damaged
    ]
    broken = broken_pictures(stored, progress)
    lines += [f"broken: {name} ({why})" for name, why in broken]
    found = duplicates(stored, source)
    lines += duplicate_lines(stored, found)
    if names is not None:
        write_duplicates(names, stored, found)
    sound = not broken and not damaged
    lines.append("all pictures can be decoded and are as they were written" if sound else "BROKEN")
    return lines, sound


def counts(stored: Stored, parts: list[np.ndarray], source: Prepared) -> Iterator[str]:
    """Pictures per class of each column and side; per picture's side by the options of `source`."""
    how = f"fold {source.fold}" if source.fold else f"split_by={source.split_by}"
    yield f"{how}, seed {source.seed}: " + ", ".join(
        f"{side} {len(part):,}" for side, part in zip(SIDES, parts, strict=True)
    )
    for i, column in enumerate(stored.about["columns"]):
        values = stored.columns["values"][:, i]
        classes = column["classes"]
        each = [np.bincount(values[part], minlength=len(classes)) for part in parts]
        if len(classes) > 20:
            total = np.sum(each, axis=0)
            low, high = int(total.argmin()), int(total.argmax())
            yield (
                f"{column['name']}: {len(classes):,} classes of {total[low]:,} ({classes[low]}) to "
                f"{total[high]:,} ({classes[high]}) pictures"
            )
            continue
        for c, name in enumerate(classes):
            split = " ".join(f"{n[c]:,}" for n in each)
            yield f"{column['name']} {name}: {sum(int(n[c]) for n in each):,} ({split})"


def wrong_sums(stored: Stored) -> list[str]:
    """Record files that are not as they were written."""
    sums = stored.about["sha256"]
    wrong = []
    for path in map(Path, stored.records.paths):
        if storage.sha256(path) != sums[path.name]:
            wrong.append(str(path))
    return wrong


def broken_pictures(stored: Stored, progress: Progress | None = None) -> list[tuple[str, str]]:
    """Names of pictures that cannot be decoded, or are not the files they were; and why."""
    names, digests = stored.columns["name"], stored.columns["digest"].tolist()

    def look(first: int) -> list[tuple[str, str]]:
        numbers = np.arange(first, min(first + CHUNK, len(names)))
        found = []
        for i in numbers:
            content = stored.records.content(i)
            fault = decode.fault(content)
            if not fault and hashlib.sha256(content).digest() != bytes(digests[i]):
                fault = "another file than the one that was prepared"
            if fault:
                found.append((names[i].decode(), fault))
        return found

    broken = []
    with ThreadPoolExecutor(THREADS) as pool:
        starts = range(0, len(names), CHUNK)
        for first, found in zip(starts, pool.map(look, starts), strict=True):
            broken += found
            if progress:
                progress(min(first + CHUNK, len(names)), len(names))
    return broken


def duplicates(stored: Stored, source: Prepared) -> Duplicates:
    """Equal files, and where a split by source (by file, as the paper's) would put them."""
    by_source = dataclasses.replace(source, split_by="source")
    side = np.empty(len(stored.columns["values"]), np.int64)
    for number, part in enumerate(sides(stored.columns, by_source)):
        side[part] = number
    alone = stored.columns | {"source": stored.columns["name"]}
    unit = unit_of(alone, content=True)
    order = np.argsort(unit, kind="stable")
    cuts = np.flatnonzero(np.diff(unit[order])) + 1
    sets = [members for members in np.split(order, cuts) if len(members) > 1]
    crossing = [members for members in sets if len(set(side[members])) > 1]
    return Duplicates(sets, side, sum(len(s) - 1 for s in sets), crossing)


def duplicate_lines(stored: Stored, found: Duplicates) -> Iterator[str]:
    """What to know of equal files."""
    if not found.sets:
        yield "no two files are equal"
        return
    values = stored.columns["values"]
    columns = [column["name"] for column in stored.about["columns"]]
    disagree = [
        f"{sum(len(set(values[s, i])) > 1 for s in found.sets):,} in {name}"
        for i, name in enumerate(columns[:4])
    ]
    yield (
        f"{found.extra:,} files equal others, in {len(found.sets):,} sets; of the sets "
        + ", ".join(f"{text} disagree" for text in disagree)
    )
    yield (
        f"{len(found.crossing):,} of the sets would cross a split by source"
        " (split_by=content keeps each on one side)" + (":" if found.crossing else "")
    )
    for members in found.crossing[:NAMED]:
        where = [f"{_name(stored, i)} ({SIDES[found.side[i]]})" for i in members]
        yield "  " + ", ".join(where)
    if len(found.crossing) > NAMED:
        yield "  ... (--names FILE writes all)"


def write_duplicates(path: Path, stored: Stored, found: Duplicates) -> None:
    """A row for each file that equals another: set, name, values, side of a split by source."""
    columns = stored.about["columns"]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(escape.cells(["set", "name", *(c["name"] for c in columns), "side"]))
        for number, members in enumerate(found.sets):
            for i in members:
                numbers = stored.columns["values"][i]
                said = [c["classes"][v] for c, v in zip(columns, numbers, strict=True)]
                row = [number, _name(stored, i), *said, SIDES[found.side[i]]]
                writer.writerow(escape.cells(row))


def _name(stored: Stored, i: int) -> str:
    return stored.columns["name"][i].decode()
