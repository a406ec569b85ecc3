"""What is compared on faces: the confirmed recipes against their baselines, and structures."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

from experiments.faces.pictures import TASKS
from fairgrape_jax.config import Execution, Experiment, KeepLast, Scoring, Stage, Variant
from fairgrape_jax.remedies import Remedy

SEEDS = (0, 1, 2)
FOLDER = Path(__file__).parent / "cells"

# Decided before it was run: docs/results/faces.md.
CONFIRMED = ("fairgrape-balanced", "importance-balanced")
AGAINST = ("fairgrape-by-layer", "fairgrape", "importance", "magnitude")
RECIPES = Experiment(
    data=TASKS["gender by race"].source,
    model="mobilenet_v2",
    pretrained="imagenet",
    methods=(*AGAINST, *CONFIRMED),
    variants={
        "fairgrape-by-layer": Variant("fairgrape", allocation="uniform"),
        "fairgrape-balanced": Variant("fairgrape", remedy=Remedy(balanced=True)),
        "importance-balanced": Variant("importance", remedy=Remedy(balanced=True)),
    },
    densities=(0.5, 0.25, 0.1, 0.05, 0.02, 0.01, 0.005),
    dense=Stage((4, 2), (5e-4, 1e-4), best=True),
    retrain=Stage((2,), (2e-4,)),
    final=Stage(),
    scoring=Scoring(fraction=0.2, micro_batch=64, allocation="global"),
    min_keep_per_layer=1,
    augmentation="flip_shift",
    batch=128,
    execution=Execution(checkpoints=KeepLast(), devices=1),
)
# From nothing: there are no weights of ImageNet for it here.
SCRATCH = {"model": "resnet18", "pretrained": "", "dense": Stage((10, 4), (1e-3, 1e-4), best=True)}
STRUCTURES = dataclasses.replace(
    RECIPES,
    methods=("fairgrape", "importance", "magnitude"),
    variants=None,
    densities=(0.5, 0.25),  # of the operations
    retrain=Stage((3, 1), (5e-4, 1e-4)),
    scoring=dataclasses.replace(RECIPES.scoring, structures="flops"),
)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Rows of one run, on one task.

    Attributes:
        task: of TASKS.
        experiment: whose data and seeds are put in.
        measured: densities of the last rounds.
        pairs: a row, and what it is compared with.
        unit: what a density is a part of.
    """

    task: str
    experiment: Experiment
    measured: tuple[float, ...]
    pairs: tuple[tuple[str, str], ...]
    unit: str = "of the weights"


def recipes(task: str, **changes: object) -> Comparison:
    """The confirmation on one task.

    Args:
        task: of TASKS.
        changes: fields of the experiment.
    """
    experiment = dataclasses.replace(RECIPES, data=TASKS[task].source, **changes)  # type: ignore[arg-type]
    pairs = tuple(itertools.product(CONFIRMED, AGAINST))
    return Comparison(task, experiment, experiment.densities[-2:], pairs)


def structures(task: str, **changes: object) -> Comparison:
    """FairGRAPE per structure against its rivals at the same operations, on one task.

    Args:
        task: of TASKS.
        changes: fields of the experiment.
    """
    experiment = dataclasses.replace(STRUCTURES, data=TASKS[task].source, **changes)  # type: ignore[arg-type]
    pairs = (("fairgrape", "magnitude"), ("fairgrape", "importance"))
    return Comparison(task, experiment, experiment.densities, pairs, "of the operations")


COMPARISONS: dict[str, Comparison] = {
    "gender-by-race": recipes("gender by race"),
    "race-by-gender": recipes("race by gender"),
    "blond-hair": recipes(
        "blond hair",
        **SCRATCH,
        # All pictures: a fifth of the rare cell would be seven.
        scoring=dataclasses.replace(RECIPES.scoring, fraction=1.0, micro_batch=16),
    ),
    "structures-mobilenet": structures("gender by race"),
    "structures-resnet": structures("gender by race", **SCRATCH),
}
