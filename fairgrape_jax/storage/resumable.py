"""Passes over data (a scoring, an evaluation): kept where they are stopped, and gone on with.

What a pass has gathered (accumulators, predictions) goes to a file of each process, for every
device of a process has its own. It is an aid and no more: a file that cannot be written is only
said, one that is damaged or of another pass is not read, and the pass then begins anew.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from fairgrape_jax import parallel
from fairgrape_jax.errors import Preempted
from fairgrape_jax.masks import Tree
from fairgrape_jax.parallel import preemption
from fairgrape_jax.progress import say
from fairgrape_jax.storage.checksums import (
    read_checksummed,
    sha256,
    sha256_or_empty,
    write_checksummed,
)
from fairgrape_jax.storage.files import describe_write_error, write_arrays

SAVE_EVERY = 300.0  # seconds after which the place is saved, here and in training
LOOK_EVERY = 10  # steps between two looks at the clock


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a pass is kept, and of what it is a pass: nothing is read that was kept of another.

    path: without a suffix. key: plain values; two passes at the same path that are not the same
    must differ in it. over: what becomes of it when the pass is over. It is removed ("forget"); it
    stays as it was, until the result is safe ("leave"); or all that was gathered is kept ("keep").
    """

    path: Path
    key: dict[str, Any]
    devices: list[jax.Device]
    over: Literal["forget", "leave", "keep"] = "forget"


def read(place: Place | None) -> tuple[int, list[np.ndarray]]:
    """How many batches a pass has gathered, and its arrays; (0, []) for one that begins anew.

    All processes call it, and begin anew unless they all have kept the same number of batches.
    """
    if place is None:
        return 0, []
    count, arrays = _read(place)
    rows = np.full((len(place.devices), 1), count, np.int32)
    return (count, arrays) if np.all(parallel.all_gather_rows(rows) == count) else (0, [])


def _read(place: Place) -> tuple[int, list[np.ndarray]]:
    known = read_checksummed(_record(place))
    if known is None or known.get("key") != json.loads(json.dumps(_key(place))):
        return 0, []
    file = place.path.with_name(known["file"])
    if sha256_or_empty(file) != known["sha256"]:
        say(f"{file}: damaged or gone; this pass begins anew")
        return 0, []
    with np.load(file) as stored:
        return known["count"], [stored[str(i)] for i in range(len(stored.files))]


def write(place: Place, count: int, gathered: Any) -> None:
    """Keep what was gathered of the first `count` batches: a pytree of this process's arrays."""
    file = _record(place).with_suffix(f".{count}.npz")
    arrays = {str(i): np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(gathered))}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_arrays(file, arrays, compressed=False)
        told = {"key": _key(place), "count": count, "file": file.name}
        write_checksummed(_record(place), told | {"sha256": sha256(file)})
    except OSError as error:
        say(f"note: {describe_write_error(error)}: what this pass has gathered is not kept")
        _remove([file])
    else:
        others = file.parent.glob(f"{_record(place).stem}.*.npz")
        _remove(other for other in others if other != file)


def forget(path: Path) -> None:
    """Remove what this process has kept of a pass; the name in `path` may be a pattern."""
    _remove(path.parent.glob(f"{path.name}.{parallel.process_index_and_count()[0]}.*"))


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def fold(
    step: Callable[[Tree, Any], Tree],
    gathered: Tree,
    batches: Iterable[Any],
    *,
    place: Place | None,
    done: int,
    what: str,
) -> Tree:
    """gathered = step(gathered, batch) for each batch, of which number `done` is the first.

    Between two batches all processes look for a notice, and raise Preempted after one. Then, and
    every SAVE_EVERY seconds, what was gathered is kept in `place`, unless that is None. what: for
    the message.
    """
    saved = time.perf_counter()
    if done:
        say(f"{what}: going on after batch {done}")
    for batch in batches:
        stop = preemption.stop_requested()
        if place and done and (stop or (done % LOOK_EVERY == 0 and due(saved, place.devices))):
            write(place, done, gathered)
            saved = time.perf_counter()
        if stop:
            raise Preempted(f"in {what}" + (f", kept after batch {done}" if place else ""))
        gathered, done = step(gathered, batch), done + 1
    if place and place.over == "keep":
        write(place, done, gathered)
    elif place and place.over == "forget":
        forget(place.path)
    return gathered


def due(saved: float, devices: list[jax.Device]) -> bool:
    """Whether it is time to save again, by the clock of process 0; all processes ask together."""
    return bool(parallel.broadcast_from_process_0(time.perf_counter() - saved > SAVE_EVERY))


def _key(place: Place) -> dict[str, Any]:
    number, processes = parallel.process_index_and_count()
    return place.key | {"devices": len(place.devices), "process": number, "processes": processes}


def _record(place: Place) -> Path:
    return place.path.with_name(f"{place.path.name}.{parallel.process_index_and_count()[0]}.json")
