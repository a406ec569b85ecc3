"""Pictures by name, wherever they lie: a folder, a tar (tars inside it too), a zip."""

from __future__ import annotations

import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from fairgrape_jax.data.images import archives
from fairgrape_jax.errors import UsageError

PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
ARCHIVES = (".tar", ".tar.gz", ".tgz", ".zip")
# What reading an archive raises: RuntimeError for an encrypted member, ValueError for some headers.
UNREADABLE = (
    tarfile.TarError, zipfile.BadZipFile, zlib.error, OSError, EOFError, KeyError, RuntimeError,
    ValueError,
)  # fmt: skip


class Entry(NamedTuple):
    """Where the bytes of one picture are.

    holder: the file itself, or the archive that holds it; name: its path inside a folder or an
    archive; offset: where it begins in a tar, -1 elsewhere; size: its bytes.
    """

    holder: Path
    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        return str(self.holder) if self.holder.name == self.name else f"{self.holder}:{self.name}"


def read(entry: Entry) -> bytes:
    """The bytes of a picture; any number of threads may read at once. OSError if they are gone."""
    if entry.holder.suffix.lower() == ".zip":
        try:
            with zipfile.ZipFile(entry.holder) as archive:
                return archive.read(entry.name)
        except UNREADABLE as error:
            raise OSError(f"{entry}: {error}") from error
    with entry.holder.open("rb") as file:
        file.seek(max(entry.offset, 0))
        return file.read(entry.size)


def find(place: Path, scratch: Path, expected: str) -> list[Entry]:
    """Every picture in `place`, by path: a folder with its subfolders, or an archive.

    A folder without pictures but with archives is those archives. A compressed tar cannot be read
    at random, so it is unpacked once to a plain tar in `scratch`.
    UsageError if there is no such place, or an archive cannot be read, or there is no picture.
    """
    if not place.exists():
        raise UsageError(f"{place}: no such file or folder; give {expected}")
    if place.is_dir():
        entries = sorted(_walk(place))
        if not entries:
            packed = sorted(p for p in place.iterdir() if p.name.lower().endswith(ARCHIVES))
            entries = [entry for path in packed for entry in archived(path, scratch)]
    elif place.name.lower().endswith(ARCHIVES):
        entries = list(archived(place, scratch))
    else:
        raise UsageError(f"{place}: not a folder, {' or '.join(ARCHIVES)}; give {expected}")
    if not entries:
        raise UsageError(f"{place}: no picture in it; give {expected}")
    for entry in entries:
        archives.check_size(entry, entry.size)
    return entries


def by_name(entries: list[Entry], parts: int = 1) -> dict[str, Entry]:
    """Pictures by the last `parts` of their paths. UsageError if two have the same."""
    found: dict[str, Entry] = {}
    for entry in entries:
        name = "/".join(PurePosixPath(entry.name).parts[-parts:])
        if name in found:
            raise UsageError(f"{entry}: has the name of {found[name]}; give each name once")
        found[name] = entry
    return found


def _walk(place: Path) -> Iterator[Entry]:
    for folder, _, names in os.walk(place):
        for name in names:
            if name.lower().endswith(PICTURES):
                path = Path(folder, name)
                if not path.is_file():
                    raise UsageError(f"{path}: no file, or a link to none; remove it")
                yield Entry(path, str(path.relative_to(place)), -1, path.stat().st_size)


def archived(path: Path, scratch: Path) -> Iterator[Entry]:
    """The pictures of one archive. UsageError that names it if it cannot be read."""
    if not path.is_file():
        raise UsageError(f"{path}: no file, or a link to none; remove it")
    try:
        if path.suffix.lower() == ".zip":
            with zipfile.ZipFile(path) as archive:
                for info in archive.infolist():
                    if info.filename.lower().endswith(PICTURES) and not info.is_dir():
                        yield Entry(path, info.filename, -1, info.file_size)
            return
        plain = path if path.suffix.lower() == ".tar" else _unpacked(path, scratch)
        with plain.open("rb") as file:
            yield from _members(plain, file, 0, "")
    except UsageError:
        raise
    except UNREADABLE as error:
        raise UsageError(f"{path}: cannot be read ({error}); fetch the archive again") from error


def _members(holder: Path, file: IO[bytes], start: int, prefix: str) -> Iterator[Entry]:
    with tarfile.open(fileobj=file, mode="r:") as archive:
        for member in archives.regular(archive):
            name, lower = f"{prefix}{member.name}", member.name.lower()
            if lower.endswith(".tar"):
                inner = archive.extractfile(member)
                if inner is not None:
                    within = f"{name.removesuffix('.tar')}/"
                    yield from _members(holder, inner, start + member.offset_data, within)
            elif lower.endswith(PICTURES):
                yield Entry(holder, name, start + member.offset_data, member.size)


def _unpacked(path: Path, scratch: Path) -> Path:
    """The plain tar of a compressed one, made once."""
    stat = path.stat()
    plain = scratch / f"{path.name.split('.')[0]}-{stat.st_size}-{int(stat.st_mtime)}.tar"
    if not plain.exists():
        scratch.mkdir(parents=True, exist_ok=True)
        half = plain.with_suffix(".half")
        try:
            with archives.unpacked(path) as content, half.open("wb") as out:
                shutil.copyfileobj(content, out, 1 << 20)
            half.rename(plain)
        finally:
            half.unlink(missing_ok=True)
    return plain
