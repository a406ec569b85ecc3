"""The room that a run needs on the disk, and whether it is free."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import jax
from rich.filesize import decimal

from fairgrape_jax import config, storage
from fairgrape_jax.config import Experiment, protocols
from fairgrape_jax.data.dataset import Dataset
from fairgrape_jax.errors import UsageError
from fairgrape_jax.masks import Tree
from fairgrape_jax.progress import say
from fairgrape_jax.runner import layout, retention


@dataclasses.dataclass(frozen=True)
class Room:
    """What a run has yet to write.

    Attributes:
        checkpoint: bytes of one checkpoint.
        other: bytes of the other files of one round.
        rounds: how many more rounds there are.
        checkpoints: how many more checkpoints are kept.
    """

    checkpoint: int
    other: int
    rounds: int
    checkpoints: int

    @property
    def next(self) -> int:
        """Bytes that the next stage needs."""
        return self.checkpoint + self.other if self.rounds else 0

    @property
    def whole(self) -> int:
        """Bytes that all that is missing needs at most.

        With two saves in the middle of a stage, the newer one being written beside the older, and
        a checkpoint that is written before the one it takes the place of is removed.
        """
        if not self.rounds:
            return 0
        return (self.checkpoints + 1 + 4) * self.checkpoint + self.rounds * self.other


def estimate_room(experiment: Experiment, directory: Path, tree: Tree, dataset: Dataset) -> Room:
    """The room for what a run has yet to do.

    The numbers are those of the arrays as they are: a checkpoint is compressed, and pruned weights
    are nearly nothing then.

    Args:
        experiment: what the run does.
        directory: where it is.
        tree: the state and masks of a checkpoint.
        dataset: with which data.
    """
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(tree))
    longest = max(len(name) for name in dataset.groups)
    longest += sum(2 * max(len(c) for c in task.classes) + 2 for task in dataset.tasks)
    row = len(str(len(dataset.test))) + longest + 4
    stages = checkpoints = 0
    for seed in experiment.seeds:
        root = directory / f"seed_{seed}"
        if not layout.is_complete(root / "dense"):
            stages, checkpoints = stages + 1, checkpoints + 1
            checkpoints += len(protocols.starting_epochs(experiment))
        for method in experiment.methods:
            rounds = len(config.densities(protocols.apply_protocol(experiment, method)))
            each = [layout.round_directory(root / method, n) for n in range(1, rounds + 1)]
            missing = [stage for stage in each if not layout.is_complete(stage)]
            kept = retention.most_kept(rounds, experiment.execution.checkpoints)
            there = sum((stage / "checkpoint").is_dir() for stage in each)
            stages += len(missing)
            checkpoints += min(max(kept - there, 0), len(missing))
    return Room(size, len(dataset.test) * row + size // 100 + 4096, stages, checkpoints)


def check_room(experiment: Experiment, directory: Path, tree: Tree, dataset: Dataset) -> None:
    """Print a note if the disk has no room for all rounds; arguments as for `estimate_room`.

    Args:
        experiment: what the run does.
        directory: where it is.
        tree: the state and masks of a checkpoint.
        dataset: with which data.

    Raises:
        UsageError: if it has none for the next one.
    """
    if storage.is_object_path(directory):
        return  # an object store has room
    room = estimate_room(experiment, directory, tree, dataset)
    there = next(p for p in (directory.absolute(), *directory.absolute().parents) if p.exists())
    free = shutil.disk_usage(there).free
    size = f"{room.checkpoints} checkpoints of {decimal(room.checkpoint)}"
    if free < room.next:
        raise UsageError(
            f"{directory}: {decimal(free)} free, and the next round needs {decimal(room.next)} "
            f"(the run, {decimal(room.whole)} for {size}); free some room, or give another --out"
        )
    if free < room.whole:
        least = experiment.execution.checkpoints == config.KeepLast()
        fewer = "" if least else "; --execution.checkpoints last keeps fewer"
        say(
            f"note: {directory}: {decimal(free)} free, and what is missing of the run may need "
            f"{decimal(room.whole)} ({size} and what is saved in between){fewer}"
        )
