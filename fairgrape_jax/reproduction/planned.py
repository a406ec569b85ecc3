"""What the cells of a table will cost before they are begun: pictures, and hours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fairgrape_jax import config
from fairgrape_jax.config import Experiment, protocols
from fairgrape_jax.methods import METHODS
from fairgrape_jax.reports.document import text_table
from fairgrape_jax.reproduction.cells import Scale, experiment_of, missing
from fairgrape_jax.reproduction.values import Cell
from fairgrape_jax.runner import layout

# Pictures per processor second of a training step, measured (docs/performance.md; MobileNet-V2 at
# 64 pixels beside the official code), and how many processors the estimate is for.
PACE = {
    ("mobilenet_v2", 64): 59.0,
    ("mobilenet_v2", 224): 12.9,
    ("resnet18", 64): 90.5,
    ("resnet18", 224): 8.0,
}
PROCESSORS = 2


class Cost(NamedTuple):
    """What an experiment passes through its network.

    Attributes:
        stages: how many there are: the dense training, and every round of every method.
        trained: pictures that are trained on, every epoch's counted anew.
        scored: pictures whose gradient is taken for a choice, about.
    """

    stages: int
    trained: int
    scored: int


def cost_of(experiment: Experiment, training: int) -> Cost:
    """What an experiment passes through its network, over all seeds and methods.

    Args:
        experiment: what is planned.
        training: pictures of the training split, where the data's limit does not leave fewer.
    """
    pictures = min(training, experiment.data.limit or training)
    stages, epochs, scored = 1, sum(experiment.dense.epochs), 0.0
    for name in experiment.methods:
        one = protocols.apply_protocol(experiment, name)
        rounds = len(config.densities(one))
        stages += rounds
        epochs += rounds * sum(one.retrain.epochs) + sum(one.final.epochs)
        # A sample of so many pictures (of each class) is small beside all of them.
        if {"scores", "a loss"} & set(METHODS[name].needs) and not one.scoring.samples:
            scored += rounds * one.scoring.fraction
    seeds = len(experiment.seeds)
    return Cost(seeds * stages, seeds * epochs * pictures, round(seeds * scored * pictures))


def plan_text(cells: Sequence[Cell], folder: Path, scale: Scale, seeds: int, place: Path) -> str:
    """A row a cell: what it passes through its network, what is done, and the hours that are left.

    Args:
        cells: of a table.
        folder: of the data.
        scale: of the experiments.
        seeds: how many.
        place: where the runs lie.
    """
    header = ["cell", "stages", "done", "pictures trained", "scored", "hours left"]
    rows, counted = [], set()
    for cell in cells:
        run = place / (cell.run or cell.name)
        if run in counted:
            rows.append([cell.name, "-", "-", "-", "-", f"as {run.name}"])
            continue
        counted.add(run)
        if missing(cell, folder):
            rows.append([cell.name, "-", "-", "-", "-", "not here, see below"])
            continue
        experiment = experiment_of(cell, folder, scale, seeds)
        cost, done = cost_of(experiment, cell.training), finished(run)
        pace = PACE.get((experiment.model, experiment.data.size))
        rows.append(
            [
                cell.name,
                f"{cost.stages}",
                f"{len(done)}",
                f"{cost.trained:,}",
                f"{cost.scored:,}",
                hours_left(cost, done, pace),
            ]
        )
    return text_table(header, rows, numbers="left")


def finished(run: Path) -> list[float]:
    """The seconds that each finished stage of a run took.

    Args:
        run: its directory, which may not be there.
    """
    if not (run / "config.json").exists():
        return []
    return [sum(record["seconds"].values()) for _, record in layout.read_records(run)]


def hours_left(cost: Cost, done: Sequence[float], pace: float | None = None) -> str:
    """How long the other stages take, each as long as those that are done on average.

    Args:
        cost: of the whole.
        done: seconds of every finished stage.
        pace: pictures per processor second, for an estimate before any stage is done.

    Example:
        >>> hours_left(Cost(8, 10, 10), [1800.0, 5400.0]), hours_left(Cost(8, 10, 10), [])
        ('6.0', 'not known before a stage is done')
        >>> hours_left(Cost(8, 720_000, 0), [], pace=50.0)
        'about 2.0 on 2 processors'
    """
    if done:
        return f"{(cost.stages - len(done)) * float(np.mean(done)) / 3600:.1f}"
    if pace is None:
        return "not known before a stage is done"
    hours = (cost.trained + cost.scored) / pace / PROCESSORS / 3600
    return f"about {hours:.1f} on {PROCESSORS} processors"
