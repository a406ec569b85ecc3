"""What differs between a prepared dataset and the files and tables that it would be made of now."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from fairgrape_jax.data.builders.listing import Listing, Options, Row
from fairgrape_jax.data.dataset import NO_GROUP
from fairgrape_jax.data.images import decode, files
from fairgrape_jax.data.images.records import CHUNK, THREADS
from fairgrape_jax.data.sources.stored import Stored
from fairgrape_jax.progress import Progress

SHOWN = 5  # names of one kind of change


def changes(
    stored: Stored, listing: Listing, options: Options, progress: Progress | None = None
) -> list[str]:
    """Compare a prepared dataset with its source; every picture is read, none is decoded.

    Args:
        stored: The dataset.
        listing: The rows as they are now.
        options: With "broken" among what is allowed, pictures that are broken are no change.
        progress: Called now and then with (pictures compared, pictures in all).

    Returns:
        A text for each kind of change; empty where there is none.
    """
    texts = [*_of_columns(stored, listing)]
    columns = stored.columns
    names = zip(columns["name"].tolist(), columns["split"].tolist(), strict=True)
    numbers = {(name.decode(), split.decode()): i for i, (name, split) in enumerate(names)}
    rows = {(row.name, row.split): row for row in listing.rows}
    new = [row for key, row in rows.items() if key not in numbers]
    if "broken" in options.allowed:
        new = [row for row in new if not _is_broken(row)]
    gone = [name for name, split in numbers if (name, split) not in rows]
    kept = [(row, numbers[key]) for key, row in rows.items() if key in numbers]
    texts += _shown("new", [row.name for row in new])
    texts += _shown("gone", gone)
    if not texts:
        texts += _shown("with other values", _altered(stored, listing, kept))
        texts += _shown("of another source", _moved(stored, kept))
    texts += _shown("with another file", _rewritten(stored, kept, progress))
    return texts


def _shown(what: str, names: Sequence[str]) -> list[str]:
    if not names:
        return []
    more = ", ..." if len(names) > SHOWN else ""
    noun = "picture" if len(names) == 1 else "pictures"
    return [f"{len(names):,} {noun} {what} ({', '.join(names[:SHOWN])}{more})"]


def _of_columns(stored: Stored, listing: Listing) -> Iterable[str]:
    before = {column["name"]: tuple(column["classes"]) for column in stored.about["columns"]}
    now = {column.name: column.classes for column in listing.columns}
    if list(before) != list(now):
        yield f"the columns were {', '.join(before)}, now {', '.join(now)}"
        return
    for name, classes in now.items():
        if classes != before[name]:
            added = [c for c in classes if c not in before[name]]
            lost = [c for c in before[name] if c not in classes]
            parts = [f"new {', '.join(added[:SHOWN])}"] if added else []
            parts += [f"gone {', '.join(lost[:SHOWN])}"] if lost else []
            yield f"classes of {name}: {'; '.join(parts) or 'in another order'}"


def _altered(stored: Stored, listing: Listing, kept: Sequence[tuple[Row, int]]) -> list[str]:
    """Pictures with another value in a column: what it was, and is."""
    texts = []
    for row, i in kept:
        before = stored.columns["values"][i]
        for column, old, value in zip(listing.columns, before, row.values, strict=True):
            if old != value:
                words = ["none" if v == NO_GROUP else column.classes[v] for v in (old, value)]
                texts.append(f"{row.name}: {column.name} was {words[0]}, now {words[1]}")
    return texts


def _moved(stored: Stored, kept: Sequence[tuple[Row, int]]) -> list[str]:
    sources = stored.columns["source"].tolist()
    return [row.name for row, i in kept if row.source != sources[i].decode()]


def _rewritten(
    stored: Stored, kept: Sequence[tuple[Row, int]], progress: Progress | None
) -> list[str]:
    """Pictures whose files are not those that were prepared."""
    digests = stored.columns["digest"].tolist()

    def other(first: int) -> list[str]:
        return [
            row.name
            for row, i in kept[first : first + CHUNK]
            if hashlib.sha256(_content(row)).digest() != bytes(digests[i])
        ]

    names: list[str] = []
    starts = range(0, len(kept), CHUNK)
    with ThreadPoolExecutor(THREADS) as pool:
        for first, part in zip(starts, pool.map(other, starts), strict=True):
            names += part
            if progress:
                progress(min(first + CHUNK, len(kept)), len(kept))
    return names


def _is_broken(row: Row) -> bool:
    content = _content(row)
    return not content or bool(decode.fault(content))


def _content(row: Row) -> bytes:
    """The bytes of a row's picture; none where they cannot be read."""
    try:
        return files.read(row.file)
    except OSError:
        return b""
