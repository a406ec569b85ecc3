"""Checksums that detect later changes of files, and JSON records that carry their own.

Kept here: Orbax writes none, and hashlib does all the work.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from fairgrape_jax.storage.files import require_regular_file, write_json

Record = dict[str, Any]  # JSON values by name


def sha256(path: Path) -> str:
    """The SHA-256 of a file in hexadecimal. OSError if it cannot be read.

    Args:
        path: of the file.
    """
    with require_regular_file(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_or_empty(path: Path) -> str:
    """As `sha256`; "" if the file cannot be read.

    Args:
        path: of the file.
    """
    try:
        return sha256(path)
    except OSError:
        return ""


def directory_digests(directory: Path) -> dict[str, str]:
    """The digest of every file below a directory, by its path there.

    Args:
        directory: where the files are.
    """
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): sha256_or_empty(path) for path in files}


def changed_files(directory: Path, digests: dict[str, str]) -> list[str]:
    """The names of files that are gone or not what they were.

    Args:
        directory: where they are.
        digests: the digest of each file by its path there, as of `directory_digests`.
    """
    return [name for name, want in digests.items() if sha256_or_empty(directory / name) != want]


def write_checksummed(path: Path, record: Record) -> None:
    """Write a record as JSON with a checksum of itself; `read_checksummed` reads it.

    Args:
        path: of the file.
        record: JSON values by name.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "record.json"
        >>> write_checksummed(path, {"round": 3})
        >>> read_checksummed(path)
        {'round': 3}
        >>> _ = path.write_text(path.read_text().replace("3", "4", 1))
        >>> read_checksummed(path) is None
        True
    """
    write_json(path, record | {"checksum": _checksum(record)})


def read_checksummed(path: Path) -> Record | None:
    """The record that `write_checksummed` wrote; None if it is gone, not whole, or was changed.

    Args:
        path: of the file.
    """
    try:
        record = json.loads(require_regular_file(path).read_text(encoding="utf-8"))
        checksum = record.pop("checksum")
    except (OSError, ValueError, AttributeError, KeyError, TypeError, RecursionError):
        return None
    return record if checksum == _checksum(record) else None


def _checksum(record: Record) -> str:
    plain = json.loads(json.dumps(record))  # as it is read: tuples are lists, keys are strings
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
