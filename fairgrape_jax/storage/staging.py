"""Folders between a local disk and an object store: written here, put there, copied to read."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fairgrape_jax import parallel
from fairgrape_jax.parallel import hosts
from fairgrape_jax.storage.object_store import ObjectPath

LONGEST = 1024  # bytes of the name of a folder


def folder_of_process_0() -> Path:
    """A new local folder of process 0, under the same name on every process; all call it together.

    Orbax asks for one name everywhere, and only process 0 writes arrays of the host.
    """
    name = np.zeros(LONGEST, np.uint8)
    if hosts.is_process_0():
        made = tempfile.mkdtemp(prefix="fairgrape-checkpoint-").encode()
        name[: len(made)] = np.frombuffer(made, np.uint8)
    return Path(parallel.broadcast_from_process_0(name).tobytes().rstrip(b"\0").decode())


def publish(folder: Path, directory: ObjectPath, last: str) -> None:
    """Put the files of a folder below a name, in place of what was there.

    A process that is killed meanwhile leaves no object `last`, which says that all are there.

    Args:
        folder: a local one.
        directory: where to.
        last: the file that is removed first there, and put last.
    """
    (directory / last).unlink(missing_ok=True)
    directory.rmtree()
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for file in sorted(files, key=lambda path: path == folder / last):
        (directory / file.relative_to(folder).as_posix()).upload(file)


@contextlib.contextmanager
def readable(directory: Path) -> Iterator[Path]:
    """A folder on a local disk with the files of a directory: itself, or a copy for the while.

    Args:
        directory: local, or on an object store.
    """
    if not isinstance(directory, ObjectPath):
        yield directory
        return
    with tempfile.TemporaryDirectory(prefix="fairgrape-checkpoint-") as scratch:
        folder = Path(scratch) / directory.name
        folder.mkdir()
        for path in directory.rglob("*"):
            path.download(folder / path.relative_to(directory).as_posix())
        yield folder
