"""The room that a run needs on the disk, and whether it is there."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import jax

from fairgrape_jax import config
from fairgrape_jax.config import Experiment, protocols
from fairgrape_jax.data.dataset import Dataset
from fairgrape_jax.errors import UsageError
from fairgrape_jax.progress import say
from fairgrape_jax.runner import layout


@dataclasses.dataclass(frozen=True)
class Room:
    """Bytes: one checkpoint, one round's other files, and what the run has yet to write.

    rounds: how many more of them, and checkpoints: how many more of those are kept.
    """

    checkpoint: int
    other: int
    rounds: int
    checkpoints: int

    @property
    def next(self) -> int:
        """What the next stage needs."""
        return self.checkpoint + self.other if self.rounds else 0

    @property
    def whole(self) -> int:
        """What all that is missing needs at most.

        With two saves in the middle of a stage, the newer one being written beside the older, and
        a checkpoint that is written before the one it takes the place of is removed.
        """
        if not self.rounds:
            return 0
        return (self.checkpoints + 1 + 4) * self.checkpoint + self.rounds * self.other


def needed(experiment: Experiment, directory: Path, tree: Any, dataset: Dataset) -> Room:
    """The room for what a run in `directory` has yet to do.

    tree: the state and masks of a checkpoint. The numbers are those of its arrays as they are:
    a checkpoint is compressed, and pruned weights are nearly nothing then.
    """
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(tree))
    longest = max(len(name) for name in dataset.groups)
    longest += sum(2 * max(len(c) for c in task.classes) + 2 for task in dataset.tasks)
    row = len(str(len(dataset.test))) + longest + 4
    stages = checkpoints = 0
    for seed in experiment.seeds:
        root = directory / f"seed_{seed}"
        if not layout.complete(root / "dense"):
            stages, checkpoints = stages + 1, checkpoints + 1
            checkpoints += len(protocols.points(experiment))
        for method in experiment.methods:
            rounds = len(config.densities(protocols.of_method(experiment, method)))
            each = [layout.round_directory(root / method, n) for n in range(1, rounds + 1)]
            missing = [stage for stage in each if not layout.complete(stage)]
            count, best = config.kept(experiment.checkpoints)
            kept = rounds if not count else min(rounds, count + best)
            there = sum((stage / "checkpoint").is_dir() for stage in each)
            stages += len(missing)
            checkpoints += min(max(kept - there, 0), len(missing))
    return Room(size, len(dataset.test) * row + size // 100 + 4096, stages, checkpoints)


def check(experiment: Experiment, directory: Path, tree: Any, dataset: Dataset) -> None:
    """UsageError if the disk has no room for the next round, a note if not for all of them."""
    room = needed(experiment, directory, tree, dataset)
    there = next(p for p in (directory.absolute(), *directory.absolute().parents) if p.exists())
    free = shutil.disk_usage(there).free
    size = f"{room.checkpoints} checkpoints of {in_words(room.checkpoint)}"
    if free < room.next:
        raise UsageError(
            f"{directory}: {in_words(free)} free, and the next round needs {in_words(room.next)} "
            f"(the run, {in_words(room.whole)} for {size}); free some room, or give another --out"
        )
    if free < room.whole:
        fewer = "" if experiment.checkpoints == "last" else "; --checkpoints last keeps fewer"
        say(
            f"note: {directory}: {in_words(free)} free, and what is missing of the run may need "
            f"{in_words(room.whole)} ({size} and what is saved in between){fewer}"
        )


def in_words(count: int) -> str:
    """A number of bytes as people read it.

    >>> in_words(98_300), in_words(1_234_567), in_words(256 * 10**9)
    ('98 kB', '1.2 MB', '256 GB')
    """
    unit, name = next(
        (u, n) for u, n in ((10**9, "GB"), (10**6, "MB"), (1000, "kB")) if count >= u or n == "kB"
    )
    return f"{count / unit:.{1 if count < 10 * unit else 0}f} {name}"
