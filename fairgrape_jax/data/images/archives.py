"""Archives from anywhere, read without trusting them: nothing of them is ever written by its name.

Members are looked at in place or decoded from memory; their names are words to match tables with.
Links, devices and sparse files are passed over, and what unpacks to far more than it is is refused.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from fairgrape_jax.errors import UsageError

PICTURE_BYTES = 1 << 28  # no picture is larger
# Pictures are compressed already: a compressed archive of them unpacks to about its own size.
ROOM, TIMES = 1 << 30, 20


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
def unpacked(path: Path) -> Iterator[IO[bytes]]:
    """The bytes of a file, of what is in it if it is gzipped; no more than it may unpack to."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        if not packed:
            yield file
            return
        most = max(ROOM, TIMES * path.stat().st_size)
        with gzip.open(file) as stream:
            yield io.BufferedReader(_Bounded(stream, path, most), 1 << 20)


def regular(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The regular files of a tar in their order. tarfile.ReadError where they go in a circle."""
    at = -1
    for member in archive:
        if member.size < 0 or member.offset <= at:
            raise tarfile.ReadError("its entries lead back to one another")
        at = member.offset
        if member.isreg() and not member.issparse():
            yield member


def check_size(name: object, size: int) -> None:
    """UsageError for a picture that is too large to be one."""
    if size > PICTURE_BYTES:
        raise UsageError(f"{name}: {size:,} bytes are no picture; remove it")
