"""How long a run will still take, by the time that its epochs have taken so far."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping

from fairgrape_jax import progress
from fairgrape_jax.config import Experiment

# A stage of a run: seed, method ("dense" for the dense training), round.
Place = tuple[int, str, int]


@dataclasses.dataclass
class Pace:
    """What is left of a run, as its stages are finished.

    Attributes:
        left: the epochs of each stage that is not finished.
        started: when the run was begun or gone on with, in seconds.
        done: the epochs that were trained since.
    """

    left: dict[Place, int]
    started: float = dataclasses.field(default_factory=time.monotonic)
    done: int = 0

    def __post_init__(self) -> None:
        progress.show_time_left(0)  # that of a run before in this process

    def finished(self, place: Place) -> None:
        """Count a stage as finished, and show what is left behind the titles of bars.

        Args:
            place: of the stage; one that was finished before is not counted.
        """
        epochs = self.left.pop(place, 0)
        self.done += epochs
        if epochs:
            seconds = seconds_left(time.monotonic() - self.started, self.done, self.left)
            progress.show_time_left(seconds)


def epochs_of(experiment: Experiment, number: int, count: int) -> int:
    """The epochs of a stage.

    Args:
        experiment: that of the method.
        number: of the round; 0 for the dense training.
        count: how many rounds the method has.
    """
    stages = [experiment.dense] if not number else [experiment.retrain]
    stages += [experiment.final] * (number > 0 and number == count)
    return sum(sum(stage.epochs) for stage in stages)


def seconds_left(seconds: float, done: int, left: Mapping[Place, int]) -> float:
    """The time of the epochs that are left, if they take as long as those that are done.

    Args:
        seconds: that the epochs have taken, with all that stands between them.
        done: how many there were, at least one.
        left: the epochs of each stage that is left.

    Example:
        >>> seconds_left(60.0, 4, {(0, "fairgrape", 2): 1, (0, "fairgrape", 3): 3})
        60.0
    """
    return seconds / done * sum(left.values())
