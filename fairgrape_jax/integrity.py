"""Files that are there whole or not at all, and are known again when something has altered them."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import socket
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fairgrape_jax import storage


def regular(path: Path) -> Path:
    """The path itself. OSError if a folder, a pipe or a device is there, which may never end."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "is not a file", str(path))
    return path


def sha256(path: Path) -> str:
    """The SHA-256 of a file in hexadecimal. OSError if it cannot be read."""
    with regular(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(path: Path) -> str:
    """As `sha256`; "" if the file cannot be read."""
    try:
        return sha256(path)
    except OSError:
        return ""


def digests(directory: Path) -> dict[str, str]:
    """The digest of every file below a directory, by its path there."""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): digest(path) for path in files}


def altered(directory: Path, known: dict[str, str]) -> list[str]:
    """Of the files that are known, those that are gone or not what they were."""
    return [name for name, want in known.items() if digest(directory / name) != want]


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name to write a file to, so that it is at `path` whole or not at all, whoever else writes.

    Nothing is left of what the body cannot finish. OSError, of `path`, if it cannot be written.
    """
    partial = beside(path, "partial")
    with storage.naming(path):
        try:
            yield partial
            os.replace(partial, path)
        except OSError:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)  # where room is short, it takes some of it
            raise


def write_text(path: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_arrays(path: Path, arrays: dict[str, np.ndarray], *, compressed: bool = True) -> None:
    """Write a .npz so that it is there whole or not at all."""
    with replacing(path) as partial, partial.open("wb") as file:
        # Given a path, NumPy would add .npz to it.
        (np.savez_compressed if compressed else np.savez)(file, allow_pickle=False, **arrays)


def beside(path: Path, kind: str) -> Path:
    """A name next to `path` that no other process uses; `lock.sweep` removes what is left of it."""
    return path.with_name(f"{path.name}.{os.getpid()}@{socket.gethostname()}.{kind}")


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a .npz; {} if it is not there, not whole, or altered (each has a CRC-32)."""
    try:
        with zipfile.ZipFile(regular(path)) as archive:
            if archive.testzip():
                return {}
        with np.load(path) as stored:
            return dict(stored)
    except (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error):
        return {}


def write_json(path: Path, value: Any) -> None:
    """Write JSON as `write_text` does."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def seal(path: Path, record: dict[str, Any]) -> None:
    """Write a record as JSON with a checksum of itself; `unseal` reads it.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "record.json"
    >>> seal(path, {"round": 3})
    >>> unseal(path)
    {'round': 3}
    >>> _ = path.write_text(path.read_text().replace("3", "4", 1))
    >>> unseal(path) is None
    True
    """
    write_json(path, record | {"checksum": _checksum(record)})


def unseal(path: Path) -> dict[str, Any] | None:
    """The record that `seal` wrote; None if it is not there, not whole, or altered."""
    try:
        record = json.loads(regular(path).read_text(encoding="utf-8"))
        checksum = record.pop("checksum")
    except (OSError, ValueError, AttributeError, KeyError, TypeError, RecursionError):
        return None
    return record if checksum == _checksum(record) else None


def _checksum(record: dict[str, Any]) -> str:
    plain = json.loads(json.dumps(record))  # as it is read: tuples are lists, keys are strings
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
