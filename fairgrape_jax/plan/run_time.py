"""What a whole run takes: seconds of an epoch and a round, hours, bytes on the disk."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fairgrape_jax import config
from fairgrape_jax.config import Experiment, Stage, protocols
from fairgrape_jax.data.batches import steps_per_epoch
from fairgrape_jax.plan.compiled import Facts
from fairgrape_jax.plan.described import Description, described_dataset
from fairgrape_jax.plan.floors import floor_of
from fairgrape_jax.plan.programs import retraining_program
from fairgrape_jax.plan.targets import Target
from fairgrape_jax.runner import disk_space


@dataclasses.dataclass(frozen=True)
class RunTime:
    """A run at a part of the data sheet's speed. What no program does is not in it: reading
    pictures, the host's part of a choice, checkpoints, compiling.

    Attributes:
        utilisation: that part.
        steps: in an epoch.
        epoch_seconds: an epoch of the dense training.
        retraining_epoch_seconds: an epoch of retraining.
        scoring_seconds: the passes over the scoring sample of a round, and their reduction.
        round_seconds: scoring, choice, retraining and evaluations of a round.
        rounds: of all methods and seeds.
        hours: of all of it.
        unknown: programs whose time is not in it.
    """

    utilisation: float
    steps: int
    epoch_seconds: float
    retraining_epoch_seconds: float
    scoring_seconds: float
    round_seconds: float
    rounds: int
    hours: float
    unknown: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Disk:
    """Bytes that a run writes at most, before compression.

    Attributes:
        checkpoint: of one checkpoint.
        checkpoints: how many are kept.
        run: of the run, with what is saved in between.
    """

    checkpoint: int
    checkpoints: int
    run: int


def epochs_of(stage: Stage) -> int:
    """How many epochs a stage has.

    Args:
        stage: of the training.

    Returns:
        Their number.

    Example:
        >>> epochs_of(Stage((13, 3), (1e-4, 1e-5)))
        16
    """
    return sum(stage.epochs)


def run_time(
    experiment: Experiment,
    description: Description,
    target: Target,
    facts: Mapping[str, Facts],
    utilisation: float,
) -> RunTime | None:
    """The time of a run.

    Args:
        experiment: what is planned.
        description: the numbers that a dataset's programs depend on.
        target: the devices that are planned for.
        facts: of each program by name.
        utilisation: the part of a chip's peak that is reached.

    Returns:
        The time; None where the devices have no data sheet.
    """
    if experiment.precision not in target.chip.peak:
        return None
    unknown = [name for name, each in facts.items() if not each.flops]

    def seconds(name: str) -> float:
        each = facts.get(name)
        floor = floor_of(each, target, experiment.precision) if each else None
        return floor.seconds / utilisation if floor else 0.0

    images = experiment.execution.evaluation_batch * target.chips

    def evaluated(samples: int) -> float:
        return math.ceil(samples / images) * seconds("evaluation")

    steps = steps_per_epoch(description.train, experiment.batch)
    validated, tested = evaluated(description.validation), evaluated(description.test)
    epoch = steps * seconds("training")

    def trained(stage: Stage, each: float) -> float:
        return epochs_of(stage) * (each + (validated if stage.best else 0.0))

    passes = [name for name in facts if name.startswith("scoring")]
    scoring = sum(seconds(name) * facts[name].calls for name in passes) + seconds("reduction")
    choice = seconds("selection") + seconds("max-min")
    total, count, each_round, longest = 0.0, 0, 0.0, 0.0
    for method in experiment.methods:
        of_method = protocols.apply_protocol(experiment, method)
        rounds = len(config.densities(of_method))
        retrain = steps * seconds(retraining_program(experiment, method))
        longest = max(longest, retrain)
        retrained = trained(config.retraining(of_method), retrain)
        before = config.row_of(experiment, method).prepares
        twice = rounds - (not before.first) if before else 0  # trainings before a choice
        # The passes of all methods count for each: which are whose is a matter of names.
        each = scoring + choice + retrained + validated + tested
        total += rounds * each + trained(of_method.final, retrain)
        total += twice * retrained
        count += rounds
        each_round = max(each_round, each)
    total += trained(experiment.dense, epoch) + validated + tested
    return RunTime(
        utilisation=utilisation,
        steps=steps,
        epoch_seconds=epoch,
        retraining_epoch_seconds=longest,
        scoring_seconds=scoring,
        round_seconds=each_round,
        rounds=count * len(experiment.seeds),
        hours=total * len(experiment.seeds) / 3600,
        unknown=tuple(unknown),
    )


def disk(experiment: Experiment, description: Description, checkpoint: int) -> Disk:
    """What a run writes, as `fairgrape run` estimates it before it begins.

    Args:
        experiment: what is planned.
        description: the numbers that a dataset's programs depend on.
        checkpoint: bytes of one.

    Returns:
        Bytes.
    """
    tree = np.broadcast_to(np.uint8(0), (checkpoint,))
    nowhere = Path(__file__).parent / "no run lies here"
    room = disk_space.estimate_room(experiment, nowhere, tree, described_dataset(description))
    return Disk(checkpoint, room.checkpoints, room.whole)
