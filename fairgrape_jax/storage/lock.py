"""A lock file: one writer at a time. It names its holder, and falls with it.

Kept in place of a library: those at hand lock by flock, which does not hold over a network, or
leave a lock behind when their process is killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from fairgrape_jax.errors import UsageError
from fairgrape_jax.storage.addresses import is_object_path
from fairgrape_jax.storage.checksums import Record
from fairgrape_jax.storage.files import name_path_in_errors, require_regular_file, unique_sibling

HEARTBEAT = 20.0  # seconds between two signs of life
STALE_AFTER = 120.0  # seconds without one after which another host's lock is taken to be dead


@contextlib.contextmanager
def hold(path: Path) -> Iterator[None]:
    """Hold a lock file while the body runs.

    The file appears whole, by a hard link, or where there are none by O_EXCL: network file systems
    keep to both. On the same host a lock whose process is gone is taken over at once (a process
    number that was given anew is told by its start); another host's, STALE_AFTER seconds after its
    last sign of life.

    Args:
        path: of the lock.

    Raises:
        UsageError: if another process holds it, with its name.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "lock"
        >>> with hold(path):
        ...     path.exists()
        True
        >>> path.exists()
        False
    """
    holder_record = {
        "host": socket.gethostname(),
        "process": os.getpid(),
        "started": process_start_time(os.getpid()),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    while not _create(path, json.dumps(holder_record)):
        if (holder := read_holder(path)) and is_alive(holder, path):
            raise UsageError(
                f"{path.parent}: is being written by process {holder['process']} on "
                f"{holder['host']}; wait for it, or if it is gone remove {path}"
            )
        # Two may see the same dead lock, and the slower one must not remove the faster one's.
        grave = unique_sibling(path, "dead")
        with contextlib.suppress(FileNotFoundError):
            os.rename(path, grave)
            if read_holder(grave) not in (holder, None):
                with contextlib.suppress(OSError):
                    os.link(grave, path)
            os.unlink(grave)
    done = threading.Event()
    threading.Thread(target=_heartbeat, args=(path, done), daemon=True).start()
    try:
        yield
    finally:
        done.set()
        if read_holder(path) == holder_record:
            with contextlib.suppress(OSError):  # else it falls with this process
                path.unlink(missing_ok=True)


def read_holder(path: Path) -> Record | None:
    """Who holds the lock; None if nobody does, or the file is not a lock.

    Args:
        path: of the lock.
    """
    try:
        return holder_in(require_regular_file(path).read_bytes())
    except OSError:
        return None


def holder_in(content: bytes) -> Record | None:
    """Who holds a lock of this content; None if it is not that of a lock.

    Args:
        content: of the file.

    Example:
        >>> holder_in(b'{"host": "a", "process": 1, "started": ""}')["host"], holder_in(b"x")
        ('a', None)
    """
    try:
        record = json.loads(content.decode("utf-8"))
    except ValueError:
        return None
    named = isinstance(record, dict) and {"host", "process", "started"} <= set(record)
    return record if named else None


def is_alive(holder: Record, path: Path) -> bool:
    """Whether the process that made the lock is there, as far as can be seen from here.

    Args:
        holder: as `read_holder` gives it.
        path: of the lock.
    """
    if holder["host"] == socket.gethostname():
        now = process_start_time(holder["process"])
        return now is not None and now == holder["started"]
    return _recently_touched(path)


def process_start_time(process: int) -> str | None:
    """When a process of this host started, "" where that cannot be known; None if it is gone.

    Args:
        process: its number.
    """
    try:
        # The 22nd field of proc(5), the command, which may hold anything, being the second.
        return (
            Path(f"/proc/{process}/stat")
            .read_text(encoding="utf-8", errors="replace")
            .rpartition(")")[2]
            .split()[19]
        )
    except OSError:
        pass
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return None if Path("/proc/self/stat").exists() else ""


def remove_leftovers(directory: Path, depth: int = 4) -> None:
    """Remove the files that processes which are gone have left under names of `unique_sibling`.

    Args:
        directory: where to look.
        depth: how many levels of folders.
    """
    for level in range(depth):
        for path in directory.glob("*/" * level + "*@*"):
            made_by = re.search(r"\.(\d+)@(.+)\.(?:partial|new|dead|probe|beat)$", path.name)
            if made_by is None:
                continue
            # Of an object store's, a machine of the same name may be another one.
            here = made_by[2] == socket.gethostname() and not is_object_path(directory)
            if process_start_time(int(made_by[1])) is None if here else not _recently_touched(path):
                path.unlink(missing_ok=True)


def _recently_touched(path: Path) -> bool:
    """Whether there was a sign of life in the last STALE_AFTER seconds."""
    try:
        return time.time() - path.stat().st_mtime < STALE_AFTER
    except FileNotFoundError:
        return False


def _create(path: Path, text: str) -> bool:
    """Make the lock; False if there is one."""
    new = unique_sibling(path, "new")
    with name_path_in_errors(path):
        new.write_text(text, encoding="utf-8")
    try:
        os.link(new, path)
    except FileExistsError:
        return False
    except OSError:  # no hard links here
        try:
            with os.fdopen(
                os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY), "w", encoding="utf-8"
            ) as file:
                file.write(text)
        except FileExistsError:
            return False
    finally:
        new.unlink()
    return True


def _heartbeat(path: Path, done: threading.Event) -> None:
    while not done.wait(HEARTBEAT):
        with contextlib.suppress(OSError):
            os.utime(path)
