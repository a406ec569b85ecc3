"""Saves in the middle of training: two checkpoints that are written in turn.

A stop while one is written leaves the other. Orbax's CheckpointManager would rotate them as well;
it knows of no checksums, so it would go on from a file that was changed since.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Self, TypeVar

from fairgrape_jax import parallel
from fairgrape_jax.masks import Tree
from fairgrape_jax.parallel import hosts
from fairgrape_jax.progress import say
from fairgrape_jax.storage import checkpoint, resumable
from fairgrape_jax.storage.checksums import Record
from fairgrape_jax.storage.files import remove_tree

T = TypeVar("T")


class Slots:
    """The two saves of one training, in a directory. All processes call every method together.

    As a context manager it waits at the end for files that are still being written.
    """

    def __init__(self, directory: Path) -> None:
        """Nothing is written before the first `save`."""
        self._directory = directory
        self._slot: int | None = None  # the one that holds the newest save
        self._pending = contextlib.ExitStack()  # ends a save that is being written
        self._saved = time.perf_counter()

    def restore(self, like: T) -> tuple[T, Record] | None:
        """The newest sound save, a tree like `like` in NumPy arrays and its metadata; or None.

        Args:
            like: a pytree of the same structure, shapes and dtypes.
        """
        newest = parallel.broadcast_from_process_0(_newest(self._directory))
        self._slot = int(newest) if newest >= 0 else None
        if self._slot is None:
            return None
        return checkpoint.restore_with_metadata(self._directory / str(self._slot), like)

    def save(self, tree: Tree, metadata: Record) -> None:
        """Save in the older slot; the files are written while training goes on.

        Args:
            tree: a pytree of arrays.
            metadata: plain values; the "step" among them tells which save is the newer one.
        """
        self.wait()
        self._saved, self._slot = time.perf_counter(), int(self._slot == 0)
        end = checkpoint.begin_save(self._directory / str(self._slot), tree, metadata)
        self._pending.callback(end)

    def due(self) -> bool:
        """Whether it is time to save again."""
        return resumable.save_due(self._saved)

    def wait(self) -> None:
        """Return when the last save is complete."""
        self._pending.close()

    def remove(self) -> None:
        """Remove both saves; process 0 does."""
        if hosts.is_process_0():
            for slot in (0, 1):
                remove_tree(self._directory / str(slot), ignore_errors=True)
        self._slot = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.wait()


def _newest(directory: Path) -> int:
    """The number of the slot to go on from, -1 for none; one that is damaged is reported."""
    steps = {}
    for slot in (0, 1):
        place = directory / str(slot)
        if not place.exists():
            continue
        if bad := checkpoint.damaged_files(place):
            say(f"{place / bad[0]}: damaged or not finished; going on from before")
            continue
        steps[slot] = checkpoint.read_metadata(place)["step"]
    return max(steps, key=lambda slot: steps[slot], default=-1)
