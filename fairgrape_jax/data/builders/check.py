"""Check a prepared dataset: counts, broken files, equal files."""

from __future__ import annotations

import csv
import hashlib
import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fairgrape_jax import escape, storage
from fairgrape_jax.data.dataset import NO_GROUP
from fairgrape_jax.data.images import decode
from fairgrape_jax.data.images.records import CHUNK, THREADS
from fairgrape_jax.data.sources.prepared import Prepared, read
from fairgrape_jax.data.sources.splits import NAMES, sides, unit_of
from fairgrape_jax.data.sources.stored import ColumnOf, Stored
from fairgrape_jax.progress import Progress

NAMED = 10
LARGEST_TABLE = 20  # classes that a table has rows, or columns, for


class Duplicates(NamedTuple):
    """Equal files.

    Attributes:
        sets: Record numbers of each set of equal files.
        side: (N,) where a split by source puts each: 0, 1, 2 for training, validation, test.
        extra: Files that equal one before them.
        crossing: Sets on more than one side.
    """

    sets: list[np.ndarray]
    side: np.ndarray
    extra: int
    crossing: list[np.ndarray]


def check(
    source: Prepared, progress: Progress | None = None, names: Path | None = None
) -> tuple[list[str], bool]:
    """Describe a dataset, and look at every file of it: it is decoded and compared with its digest.

    Args:
        source: The dataset, and the split that is described.
        progress: Called with (pictures looked at, pictures in all).
        names: A CSV to write of all equal files.

    Returns:
        Lines to print, and whether nothing is broken.

    Raises:
        UsageError: There is no such dataset.
    """
    stored = read(source)
    count = len(stored.columns["values"])
    lines = [f"{source.dataset}: {count:,} pictures in {len(stored.records.paths)} files"]
    lines += [f"note: {note}" for note in stored.about["notes"]]
    lines += counts(stored, sides(stored.columns, source.division), source)
    lines += tables(stored)
    damaged = wrong_sums(stored)
    lines += [
        f"damaged: {path} is not as it was written; prepare the dataset again" for path in damaged
    ]
    broken = broken_pictures(stored, progress)
    lines += [f"broken: {name} ({why})" for name, why in broken]
    equal = duplicates(stored, source)
    lines += duplicate_lines(stored, equal)
    if names is not None:
        write_duplicates(names, stored, equal)
    sound = not broken and not damaged
    lines.append("all pictures can be decoded and are as they were written" if sound else "BROKEN")
    return lines, sound


def counts(stored: Stored, parts: list[np.ndarray], source: Prepared) -> Iterator[str]:
    """Pictures per class of each column and side.

    Args:
        stored: The dataset.
        parts: Record numbers of the training, validation and test pictures.
        source: How they were divided.

    Yields:
        Lines to print.
    """
    rule = f"fold {source.fold}" if source.fold else f"split_by={source.split_by}"
    yield f"{rule}, seed {source.seed}: " + ", ".join(
        f"{side} {len(part):,}" for side, part in zip(NAMES, parts, strict=True)
    )
    for i, column in enumerate(stored.about["columns"]):
        values, classes = stored.columns["values"][:, i], column["classes"]
        each = [_sizes(values[part], len(classes)) for part in parts]
        total = np.sum(each, axis=0)
        if len(classes) > LARGEST_TABLE:
            low, high = int(total.argmin()), int(total.argmax())
            yield (
                f"{column['name']}: {len(classes):,} classes of {total[low]:,} ({classes[low]}) to "
                f"{total[high]:,} ({classes[high]}) pictures"
            )
            continue
        for c, name in enumerate(classes):
            split = " ".join(f"{n[c]:,}" for n in each)
            yield f"{column['name']} {name}: {total[c]:,} ({split})"
        if missing := np.count_nonzero(values == NO_GROUP):
            split = " ".join(f"{np.count_nonzero(values[part] == NO_GROUP):,}" for part in parts)
            yield f"{column['name']}, in no group: {missing:,} ({split})"


def _sizes(values: np.ndarray, count: int) -> np.ndarray:
    return np.bincount(values[values != NO_GROUP], minlength=count)


def tables(stored: Stored) -> Iterator[str]:
    """Pictures per label and group, and cautions on classes and cells of one picture.

    Args:
        stored: The dataset.

    Yields:
        Lines to print: a table for each of its labels and groups, then the cautions.
    """
    columns, values = stored.about["columns"], stored.columns["values"]
    number = {column["name"]: i for i, column in enumerate(columns)}
    cautions = []
    for i, column in enumerate(columns):
        sizes = _sizes(values[:, i], len(column["classes"]))
        cautions += [
            f"{column['name']} {column['classes'][c]}: one picture only"
            for c in np.flatnonzero(sizes == 1)
        ]
    for label, group in itertools.product(stored.about["labels"], stored.about["groups"]):
        pair = columns[number[label]], columns[number[group]]
        if label == group:
            continue
        cells = _cells(values[:, number[label]], values[:, number[group]], pair)
        if max(cells.shape) <= LARGEST_TABLE:
            yield from _table(cells, pair)
        singles = np.argwhere(cells == 1)
        texts = [
            f"{label} {pair[0]['classes'][a]} with {group} {pair[1]['classes'][b]}"
            for a, b in singles
        ]
        if texts:
            shown = ", ".join(texts[:NAMED]) + (", ..." if len(texts) > NAMED else "")
            cautions.append(f"{len(texts):,} cells of one picture only: {shown}")
    for text in cautions[:NAMED]:
        yield f"caution: {text}"
    if len(cautions) > NAMED:
        yield f"caution: {len(cautions) - NAMED:,} more of the kind"


def _cells(labels: np.ndarray, groups: np.ndarray, pair: tuple[ColumnOf, ColumnOf]) -> np.ndarray:
    """(classes of the label, groups) pictures in each cell; those in no group are in none."""
    shape = tuple(len(column["classes"]) for column in pair)
    inside = (labels != NO_GROUP) & (groups != NO_GROUP)
    flat = labels[inside].astype(np.int64) * shape[1] + groups[inside]
    return np.bincount(flat, minlength=shape[0] * shape[1]).reshape(shape)


def _table(cells: np.ndarray, pair: tuple[ColumnOf, ColumnOf]) -> Iterator[str]:
    header = [f"{pair[0]['name']} x {pair[1]['name']}", *pair[1]["classes"]]
    rows = [
        [name, *(f"{count:,}" for count in counts)]
        for name, counts in zip(pair[0]["classes"], cells, strict=True)
    ]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, *rows):
        first, *rest = (f"{c:>{w}}" for c, w in zip(row, widths, strict=True))
        yield "  ".join([first.strip().ljust(widths[0]), *rest])


def wrong_sums(stored: Stored) -> list[str]:
    """Record files that are not as they were written.

    Args:
        stored: The dataset.

    Returns:
        Their paths.
    """
    sums = stored.about["sha256"]
    wrong = []
    for path in map(Path, stored.records.paths):
        if storage.sha256(path) != sums[path.name]:
            wrong.append(str(path))
    return wrong


def broken_pictures(stored: Stored, progress: Progress | None = None) -> list[tuple[str, str]]:
    """Pictures that cannot be decoded, or are not the files they were.

    Args:
        stored: The dataset.
        progress: Called with (pictures looked at, pictures in all).

    Returns:
        Their names, and what is wrong with each.
    """
    names, digests = stored.columns["name"], stored.columns["digest"].tolist()

    def look(first: int) -> list[tuple[str, str]]:
        numbers = np.arange(first, min(first + CHUNK, len(names)))
        faults: list[tuple[str, str]] = []
        for i in numbers:
            content = stored.records.content(i)
            fault = decode.fault(content)
            if not fault and hashlib.sha256(content).digest() != bytes(digests[i]):
                fault = "another file than the one that was prepared"
            if fault:
                faults.append((names[i].decode(), fault))
        return faults

    broken = []
    with ThreadPoolExecutor(THREADS) as pool:
        starts = range(0, len(names), CHUNK)
        for first, faults in zip(starts, pool.map(look, starts), strict=True):
            broken += faults
            if progress:
                progress(min(first + CHUNK, len(names)), len(names))
    return broken


def duplicates(stored: Stored, source: Prepared) -> Duplicates:
    """Equal files, and where a split by source (by file, as the paper's) would put them.

    Args:
        stored: The dataset.
        source: With its seed and fold.

    Returns:
        The sets of equal files.
    """
    by_source = source.division._replace(by="source")
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


def duplicate_lines(stored: Stored, equal: Duplicates) -> Iterator[str]:
    """What to know of equal files.

    Args:
        stored: The dataset.
        equal: Its equal files.

    Yields:
        Lines to print.
    """
    if not equal.sets:
        yield "no two files are equal"
        return
    values = stored.columns["values"]
    columns = [column["name"] for column in stored.about["columns"]]
    disagree = [
        f"{sum(len(set(values[s, i])) > 1 for s in equal.sets):,} in {name}"
        for i, name in enumerate(columns[:4])
    ]
    yield (
        f"{equal.extra:,} files equal others, in {len(equal.sets):,} sets; of the sets "
        + ", ".join(f"{text} disagree" for text in disagree)
    )
    yield (
        f"{len(equal.crossing):,} of the sets would cross a split by source"
        " (split_by=content keeps each on one side)" + (":" if equal.crossing else "")
    )
    for members in equal.crossing[:NAMED]:
        where = [f"{_name(stored, i)} ({NAMES[equal.side[i]]})" for i in members]
        yield "  " + ", ".join(where)
    if len(equal.crossing) > NAMED:
        yield "  ... (--names FILE writes all)"


def write_duplicates(path: Path, stored: Stored, equal: Duplicates) -> None:
    """Write a row for each file that equals another: set, name, values, side of a split by source.

    Args:
        path: The CSV.
        stored: The dataset.
        equal: Its equal files.
    """
    columns = stored.about["columns"]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(escape.csv_cells(["set", "name", *(c["name"] for c in columns), "side"]))
        for number, members in enumerate(equal.sets):
            for i in members:
                numbers = stored.columns["values"][i]
                words = [
                    "" if v == NO_GROUP else c["classes"][v]
                    for c, v in zip(columns, numbers, strict=True)
                ]
                row = [number, _name(stored, i), *words, NAMES[equal.side[i]]]
                writer.writerow(escape.csv_cells(row))


def _name(stored: Stored, i: int) -> str:
    return stored.columns["name"][i].decode()
