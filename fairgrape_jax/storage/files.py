"""Atomic file writes, and messages for a file that cannot be written."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import socket
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from fairgrape_jax.errors import TrainingError, UsageError
from fairgrape_jax.storage.object_store import ObjectPath

PathT = TypeVar("PathT", bound=Path)

# What a file system says when there is no room or no right to write, and what helps.
CURES = {
    errno.ENOSPC: "free some room",
    errno.EDQUOT: "remove files, or ask for a larger quota",
    errno.EFBIG: "raise the limit on the size of a file (ulimit -f)",
    errno.EROFS: "mount it for writing",
    errno.EACCES: "give this user the right to write there",
    errno.EPERM: "give this user the right to write there",
    errno.EREMOTEIO: "see that the bucket is there, and that these credentials may write to it",
}


@contextlib.contextmanager
def name_path_in_errors(path: Path) -> Iterator[None]:
    """Put the name of a file into an OSError of the body that names none.

    A write that fails names none; TensorStore's errors, which are ValueErrors, name the system's
    code in their text.

    Args:
        path: of the file.

    Example:
        >>> with name_path_in_errors(Path("masks.npz")):
        ...     raise OSError(errno.ENOSPC, "No space left on device")
        Traceback (most recent call last):
            ...
        OSError: [Errno 28] No space left on device: 'masks.npz'
    """
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
    except Exception as error:
        code = re.search(r"os_error_code='(\d+)'", str(error))
        if code is None:
            raise
        number = int(code[1])
        raise OSError(number, os.strerror(number), str(path)) from None


@contextlib.contextmanager
def explain_write_errors() -> Iterator[None]:
    """Turn an OSError of the body for want of room or of a right into a TrainingError that names
    the file and the cure."""
    try:
        yield
    except OSError as error:
        if error.errno not in CURES:
            raise
        raise TrainingError(
            f"{describe_write_error(error)}, and the same command goes on from here"
        ) from error


def describe_write_error(error: OSError) -> str:
    """The file that cannot be written, what the system says of it, and what helps.

    Args:
        error: what was raised.
    """
    number = error.errno or 0
    cure = CURES.get(number, "see to it")
    # What an object store answered is in words of its own.
    reason = error.strerror if number == errno.EREMOTEIO else os.strerror(number)
    return f"{error.filename or 'a file'}: cannot be written ({reason}); {cure}"


def check_writable(directory: Path) -> None:
    """Check that a file can be written to a directory, which need not be there yet.

    Nothing stays behind; what a kill leaves of it `lock.remove_leftovers` removes.

    Args:
        directory: that is to be written to.

    Raises:
        UsageError: if none can.
    """
    remote = isinstance(directory, ObjectPath)  # where a folder need not be there to be written to
    places = (directory.absolute(), *directory.absolute().parents)
    there = directory if remote else next(place for place in places if place.exists())
    probe = there / f"room.{os.getpid()}@{socket.gethostname()}.probe"
    try:
        if isinstance(probe, ObjectPath):
            probe.write_bytes(bytes(4096))
        else:
            with probe.open("wb") as file:
                file.write(bytes(4096))
                file.flush()
                os.fsync(file.fileno())
    except OSError as error:
        error.filename = str(directory)
        raise UsageError(f"{describe_write_error(error)}, or give another --out") from error
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)


def require_regular_file(path: Path) -> Path:
    """The path itself; OSError if a folder, a pipe or a device is there, which may never end.

    Args:
        path: of what may be a file, or may not be there.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "is not a file", str(path))
    return path


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A name to write a file to, so that it is at `path` whole or not at all, whoever else writes.

    Nothing is left of what the body cannot finish.

    Args:
        path: of the file.

    Raises:
        OSError: of `path`, if it cannot be written.
    """
    if isinstance(path, ObjectPath):
        with tempfile.TemporaryDirectory(prefix="fairgrape-") as scratch:
            local = Path(scratch) / path.name
            yield local
            path.upload(local)  # an object is there whole or not at all
        return
    partial = unique_sibling(path, "partial")
    with name_path_in_errors(path):
        try:
            yield partial
            os.replace(partial, path)
        except OSError:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)  # where room is short, it takes some of it
            raise


def write_text(path: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all.

    Args:
        path: of the file.
        text: what it will hold, in UTF-8.
    """
    with atomic_write(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_arrays(path: Path, arrays: dict[str, np.ndarray], *, compressed: bool = True) -> None:
    """Write a .npz so that it is there whole or not at all.

    Args:
        path: of the file.
        arrays: by name.
        compressed: whether to deflate them.
    """
    with atomic_write(path) as partial, partial.open("wb") as file:
        # Given a path, NumPy would add .npz to it.
        (np.savez_compressed if compressed else np.savez)(file, allow_pickle=False, **arrays)


def remove_tree(directory: Path, *, ignore_errors: bool = False) -> None:
    """Remove a folder and all that is in it.

    Args:
        directory: local, or on an object store.
        ignore_errors: whether it may stay, or not be there.

    Raises:
        OSError: if something cannot be removed.
    """
    if not isinstance(directory, ObjectPath):
        shutil.rmtree(directory, ignore_errors=ignore_errors)
        return
    with contextlib.suppress(*([OSError] if ignore_errors else [])):
        directory.rmtree()


def unique_sibling(path: PathT, kind: str) -> PathT:
    """A name next to `path` that no other process uses.

    `lock.remove_leftovers` removes what a kill leaves of it.

    Args:
        path: of a file.
        kind: how the name ends.
    """
    return path.with_name(f"{path.name}.{os.getpid()}@{socket.gethostname()}.{kind}")


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a .npz; {} if it is not there, not whole, or altered (each has a CRC-32).

    Args:
        path: of the file.
    """
    try:
        with require_regular_file(path).open("rb") as file:
            with zipfile.ZipFile(file) as archive:
                if archive.testzip():
                    return {}
            file.seek(0)
            with np.load(file) as stored:
                return dict(stored)
    except (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error):
        return {}


def write_json(path: Path, value: Any) -> None:
    """Write JSON as `write_text` does.

    Args:
        path: of the file.
        value: plain values without NaN.
    """
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")
