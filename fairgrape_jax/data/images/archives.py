"""Read archives without trusting them: nothing of them is ever written by its name.

Members are looked at in place or decoded from memory; their names are words to match tables with.
What unpacks to far more than it is is refused.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from fairgrape_jax.data.images import zips
from fairgrape_jax.data.images.entries import (
    IS_LEFTOVER,
    IS_LINK,
    IS_NO_FILE,
    Entry,
    is_leftover,
)
from fairgrape_jax.errors import UsageError

PICTURE_BYTES = 1 << 28  # no picture is larger
# Pictures are compressed already: a compressed archive of them unpacks to about its own size.
ROOM, TIMES = 1 << 30, 20
# What reading an archive raises: RuntimeError for an encrypted member, ValueError for some headers.
UNREADABLE = (
    tarfile.TarError, zipfile.BadZipFile, zlib.error, OSError, EOFError, LookupError, RuntimeError,
    ValueError,
)  # fmt: skip


class _Bounded(io.RawIOBase):
    """A stream that is no longer than `most` bytes; UsageError where it goes on."""

    def __init__(self, stream: io.BufferedIOBase, path: Path, most: int):
        self.stream, self.path, self.left = stream, path, most

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        content = self.stream.read(len(buffer))
        self.left -= len(content)
        if self.left < 0:
            raise UsageError(
                f"{self.path}: unpacks to more than {TIMES} times its size, as no archive of "
                "pictures does; unpack it yourself if it is to be trusted"
            )
        buffer[: len(content)] = content
        return len(content)


@contextlib.contextmanager
def unpack(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that may be gzipped.

    Args:
        path: The file.

    Yields:
        Its bytes, unpacked as they are read, and no more than it may unpack to.

    Raises:
        UsageError: It unpacks to more than `ROOM` bytes and than `TIMES` its size.
    """
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        if not packed:
            yield file
            return
        most = max(ROOM, TIMES * path.stat().st_size)
        with gzip.open(file) as stream:
            yield io.BufferedReader(_Bounded(stream, path, most), 1 << 20)


def members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Everything in a tar but its folders, in its order.

    Args:
        archive: An open tar.

    Yields:
        Its members: files, links, devices and sparse files.

    Raises:
        tarfile.ReadError: They go in a circle.
    """
    at = -1
    for member in archive:
        if member.size < 0 or member.offset <= at:
            raise tarfile.ReadError("its entries lead back to one another")
        at = member.offset
        if not member.isdir():
            yield member


def check_size(name: object, size: int) -> None:
    """Refuse a picture that is too large to be one.

    Args:
        name: What the message calls it.
        size: Its bytes.

    Raises:
        UsageError: It has more than `PICTURE_BYTES`.
    """
    if size > PICTURE_BYTES:
        raise UsageError(f"{name}: {size:,} bytes are no picture; remove it")


def entries(path: Path, scratch: Path, others: dict[str, str]) -> Iterator[Entry]:
    """The files in one archive, in its order.

    Args:
        path: A tar, plain or compressed, or a zip.
        scratch: The folder for unpacked tars.
        others: Filled with what else is in the archive, and why it is not read.

    Yields:
        Where each file is.

    Raises:
        UsageError: The archive cannot be read.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no file, or a link to none; remove it")
    try:
        if path.suffix.lower() == ".zip":
            yield from _zipped(path, others)
            return
        plain = path if path.suffix.lower() == ".tar" else _unpack_layers(path, scratch)
        with plain.open("rb") as file:
            yield from _in_tar(plain, file, 0, "", others)
    except UsageError:
        raise
    except UNREADABLE as error:
        raise UsageError(f"{path}: cannot be read ({error}); fetch the archive again") from error


def _zipped(path: Path, others: dict[str, str]) -> Iterator[Entry]:
    for number, info in enumerate(zips.members(path)):
        name = _plain_name(info.filename)
        if is_leftover(name):
            others[name] = IS_LEFTOVER
        elif zips.is_link(info):
            others[name] = IS_LINK
        elif not info.is_dir():
            yield Entry(path, name, number, info.file_size)


def _in_tar(
    holder: Path, file: IO[bytes], start: int, prefix: str, others: dict[str, str]
) -> Iterator[Entry]:
    """The files of a tar, and of the tars in it, by the bytes of the outer one."""
    earlier: dict[str, Entry] = {}
    with tarfile.open(fileobj=file, mode="r:") as archive:
        for member in members(archive):
            name = _plain_name(f"{prefix}{member.name}")
            if is_leftover(name):
                others[name] = IS_LEFTOVER
            elif member.islnk() and (target := earlier.get(member.linkname)):
                yield target._replace(name=name)  # a second name of a file of this archive
            elif member.issym() or member.islnk():
                others[name] = IS_LINK
            elif not member.isreg() or member.issparse():
                others[name] = IS_NO_FILE
            elif name.lower().endswith(".tar"):
                inner = archive.extractfile(member)
                if inner is not None:
                    within = f"{name.removesuffix('.tar')}/"
                    begin = start + member.offset_data
                    yield from _in_tar(holder, inner, begin, within, others)
            else:
                entry = Entry(holder, name, start + member.offset_data, member.size)
                earlier[member.name] = entry
                yield entry


def _plain_name(name: str) -> str:
    """The path of a member as it would be below a folder."""
    while name.startswith("./"):
        name = name[2:].lstrip("/")
    return name


def _unpack_layers(path: Path, scratch: Path) -> Path:
    """The plain tar of a compressed one, made once."""
    status = path.stat()
    plain = scratch / f"{path.name}-{status.st_size}-{status.st_mtime_ns}.tar"
    if not plain.exists():
        scratch.mkdir(parents=True, exist_ok=True)
        half = plain.with_suffix(".half")
        try:
            with unpack(path) as content, half.open("wb") as out:
                shutil.copyfileobj(content, out, 1 << 20)
            half.rename(plain)
        finally:
            half.unlink(missing_ok=True)
    return plain
