"""Which stages of a run are complete and sound, and which part of a study a process does."""

from __future__ import annotations

import contextlib
import itertools
from pathlib import Path

from fairgrape_jax.config import Experiment
from fairgrape_jax.parallel import hosts
from fairgrape_jax.progress import say
from fairgrape_jax.runner import layout
from fairgrape_jax.storage import checkpoint, lease, lock
from fairgrape_jax.storage.object_store import ObjectPath


def last_intact_round(root: Path, rounds: int) -> int:
    """The number of the round of a method to go on from; 0 for none.

    Args:
        root: the directory of the method.
        rounds: how many there are in the end.
    """
    done = layout.complete_rounds(root, rounds)
    if done < rounds:
        is_intact(layout.round_directory(root, done + 1))  # says so if it was complete once
    while done and not is_intact(layout.round_directory(root, done)):
        done -= 1
    return done


def is_intact(directory: Path) -> bool:
    """Whether a stage can be gone on from: it is complete, and all its files as they were written.

    Damage is said by name; what comes after the last intact stage is done again, to the same bits.

    Args:
        directory: of a stage.
    """
    if not layout.is_complete(directory):
        if (directory / "metrics.json").exists():
            say(f"{directory / 'metrics.json'}: damaged; this stage is done again")
        return False
    bad = layout.changed_files(directory, *layout.FILES)
    bad = bad or [
        f"checkpoint/{name}" for name in checkpoint.damaged_files(directory / "checkpoint")
    ]
    if bad:
        say(f"{directory / bad[0]}: damaged or gone; going on from the stage before")
    return not bad


def hold_lock(path: Path) -> contextlib.AbstractContextManager[None]:
    """The lock on a part of the run, for the one process that writes; UsageError if it is held.

    Args:
        path: of the lock.
    """
    if not hosts.is_process_0():
        return contextlib.nullcontext()
    return lease.hold(path) if isinstance(path, ObjectPath) else lock.hold(path)


def shards(experiment: Experiment, count: int) -> list[list[tuple[int, str]]]:
    """The study's runs, (seed, method), in `count` parts; those of a seed stay together.

    Args:
        experiment: the study.
        count: of parts.

    Example:
        >>> from fairgrape_jax.data.sources.synthetic import Synthetic
        >>> study = Experiment(Synthetic(), "mlp", ("magnitude", "random"), seeds=(0, 1))
        >>> shards(study, 2)
        [[(0, 'magnitude'), (0, 'random')], [(1, 'magnitude'), (1, 'random')]]
    """
    units = [(seed, method) for seed in experiment.seeds for method in experiment.methods]
    cuts = [round(i * len(units) / count) for i in range(count + 1)]
    return [units[a:b] for a, b in itertools.pairwise(cuts)]
