"""Find the pictures of a folder, a tar (tars inside it too) or a zip, and read their bytes.

One listing for every dataset. Links to folders and files are followed, in a circle they are an
error; what operating systems and file managers leave behind is never data.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from fairgrape_jax.data.images import archives, zips
from fairgrape_jax.data.images.entries import (
    IS_LEFTOVER,
    IS_LINK,
    IS_NO_FILE,
    Entry,
    is_leftover,
)
from fairgrape_jax.errors import UsageError

PICTURES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm",
    ".pgm", ".pbm", ".pnm",
)  # fmt: skip
# Pictures that nothing here can decode: there, but not read, which must not go without a word.
OTHER_PICTURES = (
    ".heic", ".heif", ".avif", ".jxl", ".jp2", ".j2k", ".svg", ".psd", ".tga", ".dng", ".cr2",
    ".nef", ".arw", ".exr", ".dcm",
)  # fmt: skip
ARCHIVES = (".tar", ".tar.gz", ".tgz", ".zip")
NAMED = 10  # files that a note names
IS_UNKNOWN = f"a picture of another kind than {', '.join(PICTURES)}"
IS_NO_PICTURE = "not a picture by its name"


class Contents(NamedTuple):
    """What lies in a place.

    Attributes:
        entries: The pictures, in the order of their names.
        others: Names of what else lies there, and why it is not read.
    """

    entries: list[Entry]
    others: dict[str, str]

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know of what is not read: links in archives, unknown pictures."""
        notes = []
        for reason in (IS_LINK, IS_UNKNOWN):
            names = [name for name, why in self.others.items() if why == reason]
            if names:
                shown = ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
                notes.append(f"{len(names):,} not read, {reason}: {shown}")
        return tuple(notes)


def read(entry: Entry) -> bytes:
    """The bytes of a picture; any number of threads may read at once.

    Args:
        entry: One that `find` gave.

    Returns:
        The file as it lies there, not decoded.

    Raises:
        OSError: It is gone, or its archive is damaged.
    """
    if entry.holder.suffix.lower() == ".zip":
        try:
            return zips.read(entry.holder, entry.offset)
        except archives.UNREADABLE as error:
            raise OSError(f"{entry}: {error}") from error
    with entry.holder.open("rb") as file:
        file.seek(max(entry.offset, 0))
        return file.read(entry.size)


def find(place: Path, scratch: Path, expected: str) -> Contents:
    """Every picture in `place`, by path.

    A folder without pictures but with archives is those archives. A compressed tar cannot be read
    at random, so it is unpacked once to a plain tar.

    Args:
        place: A folder, with all folders below it, or an archive.
        scratch: The folder for unpacked tars; made where it is needed.
        expected: What the messages ask for in place of what is there.

    Returns:
        The pictures, and what else lies there.

    Raises:
        UsageError: There is no such place, an archive cannot be read, a link leads nowhere or in a
            circle, or there is no picture.
    """
    check_place(place, expected)
    others: dict[str, str] = {}
    if place.is_dir():
        entries = list(_pictures(walk(place, others), others))
        if not entries:
            packed = [p for p in sorted(place.iterdir()) if _is_archive(p)]
            entries = [
                entry
                for path in packed
                for entry in _pictures(archives.entries(path, scratch, others), others)
            ]
    elif _is_archive(place):
        entries = list(_pictures(archives.entries(place, scratch, others), others))
    else:
        raise UsageError(f"{place}: not a folder, {' or '.join(ARCHIVES)}; give {expected}")
    if not entries:
        reasons = sorted(set(others.values()) - {IS_NO_PICTURE})
        why = f" ({len(others):,} files are there: {'; '.join(reasons)})" if reasons else ""
        raise UsageError(f"{place}: no picture in it{why}; give {expected}")
    for entry in entries:
        archives.check_size(entry, entry.size)
    return Contents(sorted(entries, key=lambda entry: (entry.name, entry.holder)), others)


def check_place(place: Path, expected: str) -> None:
    """Refuse a place that is not there.

    Args:
        place: A folder or a file.
        expected: What to give in its place.

    Raises:
        UsageError: There is no such place.
    """
    if not place.exists():
        if re.match(r"[a-z][a-z0-9+.-]+:/", str(place)):  # scheme://, a slash less as a path
            raise UsageError(f"{place}: data must be on a local disk; copy them to every host")
        link = "a link to nothing" if place.is_symlink() else "no such file or folder"
        raise UsageError(f"{place}: {link}; give {expected}")


def by_name(entries: Sequence[Entry], parts: int = 1) -> dict[str, Entry]:
    """Pictures by the ends of their paths.

    Args:
        entries: The pictures.
        parts: How many parts of a path make a name, counted from its end.

    Returns:
        A picture for each name.

    Raises:
        UsageError: Two have the same name.
    """
    named: dict[str, Entry] = {}
    for entry in entries:
        name = "/".join(PurePosixPath(entry.name).parts[-parts:])
        if name in named:
            raise UsageError(f"{entry}: has the name of {named[name]}; give each name once")
        named[name] = entry
    return named


def _is_archive(path: Path) -> bool:
    return path.name.lower().endswith(ARCHIVES) and not is_leftover(path.name)


def _why_not(name: str) -> str:
    """Why a file is not read as a picture, by its path; "" for a picture."""
    lower = name.lower()
    if lower.endswith(PICTURES):
        return ""
    return IS_UNKNOWN if lower.endswith(OTHER_PICTURES) else IS_NO_PICTURE


def _pictures(entries: Iterator[Entry], others: dict[str, str]) -> Iterator[Entry]:
    """Those that are pictures by their names; the rest goes to `others`."""
    for entry in entries:
        if reason := _why_not(entry.name):
            others[entry.name] = reason
        else:
            yield entry


def walk(folder: Path, others: dict[str, str]) -> Iterator[Entry]:
    """Every file below a folder, but for what is hidden or left behind by a system.

    Args:
        folder: Where to look. Links to folders are followed.
        others: Filled with what else is there, and why it is not read.

    Yields:
        The files, each folder's in the order of their names.

    Raises:
        UsageError: A link leads nowhere, or back to a folder that it lies in.
    """
    yield from _walk(folder, "", (), others)


def _walk(
    folder: Path, prefix: str, above: tuple[tuple[int, int], ...], others: dict[str, str]
) -> Iterator[Entry]:
    """above: device and inode of the folders that lead to this one."""
    status = folder.stat()
    identity = status.st_dev, status.st_ino
    if identity in above:
        raise UsageError(f"{folder}: a link back to a folder that it lies in; remove it")
    with os.scandir(folder) as items:
        ordered = sorted(items, key=lambda item: item.name)
    for item in ordered:
        path, name = Path(item.path), prefix + item.name
        if is_leftover(item.name):
            others[name] = IS_LEFTOVER
        elif item.is_dir():
            yield from _walk(path, f"{name}/", (*above, identity), others)
        elif item.is_file():
            yield Entry(path, name, -1, item.stat().st_size)
        elif item.is_symlink():
            raise UsageError(f"{path}: a link to nothing; mend or remove it")
        else:
            others[name] = IS_NO_FILE
