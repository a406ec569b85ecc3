"""Read members of zip archives at random, with each archive opened once per process."""

from __future__ import annotations

import functools
import os
import stat
import threading
import zipfile
from pathlib import Path
from typing import NamedTuple

OPEN_ARCHIVES = 8  # kept open at a time


class _Shared(NamedTuple):
    """An open archive; the lock is held while a member is opened or closed, not while read."""

    archive: zipfile.ZipFile
    lock: threading.Lock


def members(path: Path) -> list[zipfile.ZipInfo]:
    """What the directory of an archive says of its members.

    Args:
        path: A zip archive.

    Returns:
        An entry for each, in the archive's order; folders are among them.

    Raises:
        zipfile.BadZipFile: It is no zip archive, or a damaged one.
    """
    return _open_archive(path).archive.infolist()


def is_link(info: zipfile.ZipInfo) -> bool:
    """Whether a member is a symbolic link, as Unix writes them.

    Args:
        info: A member, of `members`.

    Returns:
        True for a link; its content is then the path that it leads to.
    """
    return stat.S_ISLNK(info.external_attr >> 16)


def read(path: Path, number: int) -> bytes:
    """The content of a member; any number of threads may read at once.

    The directory of an archive is read when it is opened, which costs as much as the archive has
    members: so it is opened once, and again only where the file is another one.

    Args:
        path: A zip archive.
        number: The place of the member in `members`.

    Returns:
        Its bytes, unpacked.

    Raises:
        IndexError: There is no such member.
        zipfile.BadZipFile: It is damaged.
    """
    archive, lock = _open_archive(path)
    with lock:
        member = archive.open(archive.infolist()[number])
    try:
        return member.read()
    finally:
        with lock:
            member.close()


def _open_archive(path: Path) -> _Shared:
    there = path.stat()
    return _open(path, (there.st_ino, there.st_size, there.st_mtime_ns), os.getpid())


@functools.lru_cache(maxsize=OPEN_ARCHIVES)
def _open(path: Path, version: tuple[int, int, int], process: int) -> _Shared:
    """The archive, opened at the first call with these arguments.

    version: another one where the file was replaced; process: a file that is shared with the
    process that this one was forked from is at a place in it that either moves.
    """
    del version, process
    return _Shared(zipfile.ZipFile(path), threading.Lock())
