"""A lock on an object store: one writer at a time, without links, renames or removal by condition.

The lock is an object that is created only where there is none, and is never written again by its
holder, who shows that it lives by writing another object beside it. A dead lock is taken over by
the one process that has created, in the same way, an object that is named after that very lock.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

from fairgrape_jax.errors import UsageError
from fairgrape_jax.storage import lock
from fairgrape_jax.storage.checksums import Record
from fairgrape_jax.storage.files import unique_sibling
from fairgrape_jax.storage.object_store import ObjectPath


@contextlib.contextmanager
def hold(path: ObjectPath) -> Iterator[None]:
    """Hold a lock while the body runs.

    On the same machine a lock whose process is gone is taken over at once; another machine's,
    `lock.STALE_AFTER` seconds after its last sign of life, by the clock of the store.

    Args:
        path: of the lock.

    Raises:
        UsageError: if another process holds it, with its name and how to break the lock.

    Example:
        >>> from fairgrape_jax.storage import as_path
        >>> path = as_path("memory://bucket/run/lock")
        >>> with hold(path):
        ...     path.exists()
        True
        >>> path.exists()
        False
    """
    holder = {
        "host": socket.gethostname(),
        "machine": machine(),
        "process": os.getpid(),
        "started": lock.process_start_time(os.getpid()),
        "token": uuid.uuid4().hex,
    }
    _acquire(path, holder)
    done = threading.Event()
    beats = threading.Thread(target=_heartbeat, args=(_beat(path, holder), done), daemon=True)
    beats.start()
    try:
        yield
    finally:
        done.set()
        with contextlib.suppress(OSError):  # else it is dead with this process
            beats.join(lock.HEARTBEAT)
            if lock.read_holder(path) == holder:
                path.unlink(missing_ok=True)
            _beat(path, holder).unlink(missing_ok=True)


def machine() -> str:
    """What tells this machine, and its numbering of processes, from others of the same name."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    with contextlib.suppress(OSError):
        numbering = os.readlink("/proc/self/ns/pid")
        return f"{boot.read_text(encoding='utf-8').strip()} {numbering}"
    return f"{uuid.getnode():x}"


def _acquire(path: ObjectPath, holder: Record) -> None:
    """Create the lock, in place of a dead one; UsageError if it is held."""
    content = json.dumps(holder).encode()
    while not path.create(content):
        try:
            other = lock.holder_in(path.read_bytes())
        except FileNotFoundError:
            continue  # it has just been given back
        if other is None or "token" not in other:
            raise UsageError(f"{path}: is no lock that this version can read; remove it")
        silent = _seconds_of_silence(path, other)
        if silent is not None:
            if lock.read_holder(path) != other:
                continue  # given back while its signs of life were looked at
            raise UsageError(
                f"{path.parent}: is being written by process {other['process']} on "
                f"{other['host']} (last sign of life {silent:.0f} s ago; it counts as gone after "
                f"{lock.STALE_AFTER:.0f} s); wait for it, or if it is gone remove {path}"
            )
        # One process alone may write over a dead lock, and only if nobody has done so before.
        grave = path.with_name(f"{path.name}.{other['token']}.dead")
        _acquire(grave, holder | {"token": uuid.uuid4().hex})
        try:
            if lock.read_holder(path) == other:
                path.write_bytes(content)
                _beat(path, other).unlink(missing_ok=True)
                return
        finally:
            grave.unlink(missing_ok=True)


def _seconds_of_silence(path: ObjectPath, holder: Record) -> float | None:
    """How long ago the holder gave its last sign of life; None where it is gone."""
    silent = _now(path) - max(_written(path), _written(_beat(path, holder)))
    if (holder["host"], holder.get("machine")) == (socket.gethostname(), machine()):
        started = lock.process_start_time(holder["process"])
        return silent if started is not None and started == holder["started"] else None
    return silent if silent < lock.STALE_AFTER else None


def _written(path: ObjectPath) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _now(path: ObjectPath) -> float:
    """The time by the clock of the store."""
    # Threads of this process may ask at once, and each removes its own.
    probe = unique_sibling(path.with_name(f"{path.name}.{uuid.uuid4().hex}"), "probe")
    probe.write_bytes(b"now")
    try:
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


def _beat(path: ObjectPath, holder: Record) -> ObjectPath:
    """The object that the holder of a lock writes as a sign of life."""
    return path.with_name(f"{path.name}.{holder['process']}@{holder['host']}.beat")


def _heartbeat(path: ObjectPath, done: threading.Event) -> None:
    while not done.wait(lock.HEARTBEAT):
        with contextlib.suppress(OSError):
            path.write_bytes(b"alive")
