"""Which rounds keep their checkpoints: one that is removed is never the only good one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fairgrape_jax.config import Checkpoints
from fairgrape_jax.parallel import hosts
from fairgrape_jax.progress import say
from fairgrape_jax.runner import layout, resume
from fairgrape_jax.storage import remove_tree


def most_kept(rounds: int, checkpoints: Checkpoints) -> int:
    """The most checkpoints that are kept of so many rounds.

    Args:
        rounds: how many there are.
        checkpoints: which are kept.

    Example:
        >>> from fairgrape_jax.config import KeepLast
        >>> most_kept(5, "all"), most_kept(5, KeepLast(3)), most_kept(5, "best")
        (5, 3, 2)
    """
    if checkpoints == "all":
        return rounds
    return min(rounds, 2 if checkpoints == "best" else checkpoints.count)


def rounds_to_keep(accuracy: Mapping[int, float], checkpoints: Checkpoints) -> set[int]:
    """Of the complete rounds of a method those whose checkpoints are to be kept.

    The last round is always kept, for the run goes on from it.

    Args:
        accuracy: each round's accuracy on the validation split; of equal ones the later is the
            better, since it has fewer weights.
        checkpoints: what the experiment keeps.

    Example:
        >>> from fairgrape_jax.config import KeepLast
        >>> accuracy = {1: 91.0, 2: 93.5, 3: 90.0, 4: 88.0}
        >>> sorted(rounds_to_keep(accuracy, KeepLast(2))), sorted(rounds_to_keep(accuracy, "best"))
        ([3, 4], [2, 4])
    """
    rounds = sorted(accuracy)
    if checkpoints == "all":
        return set(rounds)
    if checkpoints == "best":
        return {rounds[-1], max(rounds, key=lambda n: (accuracy[n], n))}
    return set(rounds[-checkpoints.count :])


def remove_checkpoints(root: Path, number: int, checkpoints: Checkpoints) -> None:
    """Remove the checkpoints of a method's rounds up to `number` that need not be kept; process 0.

    Nothing is removed unless the last round has been read back sound, and the best is sought among
    the sound ones. A removal that a kill has interrupted is finished.

    Args:
        root: the directory of the method's rounds.
        number: of the last round that is complete.
        checkpoints: which are kept.
    """
    if checkpoints == "all" or not hosts.is_process_0():
        return
    stages = {n: layout.round_directory(root, n) for n in range(1, number + 1)}
    there = {n for n, stage in stages.items() if (stage / "checkpoint").is_dir()}
    if len(there) < 2:
        return
    begun = {n for n in there - {number} if not (stages[n] / "checkpoint/digests.json").exists()}
    sound = {n for n in there - begun if resume.is_intact(stages[n])}
    records = {n: layout.read_record(stages[n]) or {} for n in sound}
    if number not in sound:
        return
    keep = rounds_to_keep({n: r["validation_accuracy"] for n, r in records.items()}, checkpoints)
    for n in sorted((sound | begun) - keep):
        place = stages[n] / "checkpoint"
        try:
            # Its digests first: what is half removed is then no checkpoint to anybody.
            (place / "digests.json").unlink(missing_ok=True)
            remove_tree(place)
        except OSError as error:
            say(f"note: {place} is not wanted any more and cannot be removed ({error})")
