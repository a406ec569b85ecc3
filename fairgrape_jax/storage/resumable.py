"""Passes over data (a scoring, an evaluation): kept where they are stopped, and gone on with.

What a pass has gathered goes to a file of each process, since every device of a process has its
own. It is an aid and no more: a file that cannot be written is only reported, one that is damaged
or of another pass is not read, and the pass then begins anew.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fairgrape_jax import parallel
from fairgrape_jax.errors import Preempted
from fairgrape_jax.masks import Tree
from fairgrape_jax.parallel import preemption
from fairgrape_jax.passes import Arrays, B, G, Key
from fairgrape_jax.progress import say
from fairgrape_jax.storage.checksums import (
    Record,
    read_checksummed,
    sha256,
    sha256_or_empty,
    write_checksummed,
)
from fairgrape_jax.storage.files import describe_write_error, write_arrays

SAVE_EVERY = 300.0  # seconds after which the place is saved, here and in training
LOOK_EVERY = 10  # steps between two looks at the clock


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """What is kept of a pass.

    Attributes:
        count: batches of which `arrays` were gathered.
        arrays: the leaves of what was gathered, or the result.
        finished: whether they are the result.
    """

    count: int
    arrays: list[np.ndarray]
    finished: bool = False


class Passes:
    """A `passes.Fold` whose passes stop at a notice of preemption and go on where they were.

    Between two batches all processes look for a notice, and raise Preempted after one. Then, and
    every SAVE_EVERY seconds, what the pass has gathered is written, and the result of every pass
    before it, until `clear` is called.
    """

    def __init__(self, directory: Path, devices: Sequence[jax.Device]) -> None:
        """Keep passes on `devices`, those of this process, in a directory of their own."""
        self._directory, self._devices = directory, list(devices)
        self._results: list[tuple[Path, Key, Snapshot]] = []  # those that are not written yet

    def __call__(
        self,
        step: Callable[[G, B], G],
        initial: G,
        batches: Callable[[int], Iterable[B]],
        *,
        key: Key,
        finish: Callable[[Any], Arrays] = list,
    ) -> Arrays:
        """As `passes.fold`; a pass that was finished before is read."""
        path = self._directory / _name(key)
        snapshot = read(path, key, self._devices)
        if snapshot and snapshot.finished:
            return snapshot.arrays
        gathered, done = initial, 0
        if snapshot:
            gathered, done = _placed_like(initial, snapshot.arrays), snapshot.count
        if done:
            say(f"{_words(key)}: going on after batch {done}")
        saved = time.perf_counter()
        for batch in batches(done):
            stop = preemption.stop_requested()
            if stop or (done and done % LOOK_EVERY == 0 and save_due(saved)):
                self._write_results()
                if done:
                    write(path, key, self._devices, Snapshot(done, jax.tree.leaves(gathered)))
                saved = time.perf_counter()
            if stop:
                raise Preempted(f"in {_words(key)}, kept after batch {done}")
            gathered, done = step(gathered, batch), done + 1
        try:
            result = finish(gathered)
        except Exception:
            remove_snapshots(path)  # never gone on from
            raise
        self._results.append((path, key, Snapshot(done, result, finished=True)))
        return result

    def _write_results(self) -> None:
        for path, key, snapshot in self._results:
            write(path, key, self._devices, snapshot)
        self._results.clear()

    def clear(self) -> None:
        """Remove everything that is kept: what comes of it is safe."""
        self._results.clear()
        remove_snapshots(self._directory / "*")
        with contextlib.suppress(OSError):  # other processes' files may be there still
            self._directory.rmdir()


def _name(key: Key) -> str:
    digest = hashlib.sha256(json.dumps(dict(key), sort_keys=True).encode()).hexdigest()
    return f"{key['pass']}_{digest[:12]}"


def _words(key: Key) -> str:
    return f"the {key['pass']}"


def _placed_like(initial: Tree, arrays: list[np.ndarray]) -> Tree:
    """The arrays in the structure of `initial` and on its devices; as they are if it is empty."""
    leaves, structure = jax.tree.flatten(initial)
    if not leaves:
        return arrays
    places = [getattr(leaf, "sharding", None) for leaf in leaves]
    pairs = zip(arrays, places, strict=True)
    placed = [array if place is None else jax.device_put(array, place) for array, place in pairs]
    return jax.tree.unflatten(structure, placed)


def read(path: Path, key: Key, devices: Sequence[jax.Device]) -> Snapshot | None:
    """What is kept of a pass; None for one that begins anew.

    All processes call it, and begin anew unless they all have kept as much.

    Args:
        path: where it is kept, without a suffix.
        key: what the pass computes; nothing is read that was kept of another.
        devices: those of this process.
    """
    snapshot = _read_of_this_process(path, key, devices)
    row = np.array([[snapshot.count, snapshot.finished] if snapshot else [0, 0]], np.int32)
    return snapshot if np.all(parallel.all_gather_rows(row) == row) else None


def _read_of_this_process(path: Path, key: Key, devices: Sequence[jax.Device]) -> Snapshot | None:
    record = read_checksummed(_record_path(path))
    if record is None or record.get("key") != json.loads(json.dumps(_full_key(key, devices))):
        return None
    file = path.with_name(record["file"])
    if sha256_or_empty(file) != record["sha256"]:
        say(f"{file}: damaged or gone; this pass begins anew")
        return None
    with file.open("rb") as content, np.load(content) as stored:
        arrays = [stored[str(i)] for i in range(len(stored.files))]
    return Snapshot(record["count"], arrays, record.get("finished", False))


def write(path: Path, key: Key, devices: Sequence[jax.Device], snapshot: Snapshot) -> None:
    """Keep what this process has gathered, in place of what was kept before; as for `read`.

    Args:
        path: where it is kept, without a suffix.
        key: what the pass computes.
        devices: those of this process.
        snapshot: how far the pass is.
    """
    record_path = _record_path(path)
    file = record_path.with_suffix(f".{snapshot.count}.npz")
    arrays = {str(i): np.asarray(array) for i, array in enumerate(snapshot.arrays)}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_arrays(file, arrays, compressed=False)
        record = {"key": _full_key(key, devices), "count": snapshot.count, "file": file.name}
        record |= {"finished": snapshot.finished, "sha256": sha256(file)}
        write_checksummed(record_path, record)
    except OSError as error:
        say(f"note: {describe_write_error(error)}: what this pass has gathered is not kept")
        _remove([file])
    else:
        others = file.parent.glob(f"{record_path.stem}.*.npz")
        _remove(other for other in others if other != file)


def remove_snapshots(path: Path) -> None:
    """Remove what this process has kept of a pass; the name in `path` may be a pattern.

    Args:
        path: without a suffix.
    """
    _remove(path.parent.glob(f"{path.name}.{parallel.process_index_and_count()[0]}.*"))


def save_due(saved: float) -> bool:
    """Whether it is time to save again; all processes ask together.

    Args:
        saved: when that was done last, by `time.perf_counter`; the clock of process 0 counts.
    """
    return bool(parallel.broadcast_from_process_0(time.perf_counter() - saved > SAVE_EVERY))


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _full_key(key: Key, devices: Sequence[jax.Device]) -> Record:
    index, count = parallel.process_index_and_count()
    return dict(key) | {"devices": len(devices), "process": index, "processes": count}


def _record_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.{parallel.process_index_and_count()[0]}.json")
