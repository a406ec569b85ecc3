"""What is compared: related systems and their fair variants at equal epochs and sane allocations.

Rows that choose single weights have one count for the network, those that count kernels or stripes
in every layer the Erdos-Renyi-kernel allocation; each kind has its own baselines. Structured rows
keep the same part of every layer's filters or inputs, down to a part of the operations.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

import jax
import numpy as np

from experiments.study import Study
from fairgrape_jax.config import Execution, Experiment, Scoring, Stage
from fairgrape_jax.data.sources.writers import Writers
from fairgrape_jax.masks import Tree
from fairgrape_jax.selection import AllocationName

SEEDS = (0, 1, 2, 3, 4)
EPOCHS = 4  # of a round; a system that trains towards its choice takes half of them for that
WEIGHTS = (0.05, 0.02, 0.01)
OPERATIONS = (0.5, 0.25)


@dataclasses.dataclass(frozen=True)
class Row:
    """A method as it is compared.

    Attributes:
        kind: what it chooses.
        method: a row of the table of methods.
        allocation: how many weights each layer keeps.
        epochs: of a round.
        densities: after each round; the last ones are measured.
        structures: "flops" where the densities are parts of the operations.
    """

    kind: str
    method: str
    allocation: AllocationName = "global"
    epochs: int = EPOCHS
    densities: tuple[float, ...] = (0.2, *WEIGHTS)
    structures: Literal["none", "flops"] = "none"


def by_layer(method: str, kind: str, epochs: int = EPOCHS) -> Row:
    """A row with the Erdos-Renyi-kernel allocation.

    Args:
        method: of the row.
        kind: what it chooses.
        epochs: of a round.
    """
    return Row(kind, method, "erk", epochs)


def structured(method: str, densities: tuple[float, ...] = ()) -> Row:
    """A row that keeps a part of the operations.

    Args:
        method: of the row.
        densities: of weights, for a method that counts its own filters or inputs.
    """
    if densities:
        return Row("structures", method, "uniform", densities=densities)
    return Row("structures", method, "uniform", densities=OPERATIONS, structures="flops")


ROWS: dict[str, Row] = {
    "magnitude": Row("weights", "magnitude"),
    "importance": Row("weights", "importance"),
    "fairgrape": Row("weights", "fairgrape"),
    "slr": Row("weights", "slr"),
    "slr-fairgrape": Row("weights", "slr-fairgrape"),
    "admm": Row("weights", "admm"),
    "autoprune": Row("weights", "autoprune"),
    "autoprune-fair": Row("weights", "autoprune-fair"),
    "magnitude, by layer": by_layer("magnitude", "weights, by layer"),
    "fairgrape, by layer": by_layer("fairgrape", "weights, by layer"),
    "clicktrain": by_layer("clicktrain", "kernels and patterns"),
    "clicktrain-fair": by_layer("clicktrain-fair", "kernels and patterns"),
    "stripes": by_layer("stripes", "stripes"),
    "stripes-fair": by_layer("stripes-fair", "stripes"),
    "swp": by_layer("swp", "stripes"),
    # Is time saved? The same with half of the epochs.
    "magnitude, half": Row("half the epochs", "magnitude", epochs=EPOCHS // 2),
    "slr, half": Row("half the epochs", "slr", epochs=EPOCHS // 2),
    "magnitude, by layer, half": by_layer("magnitude", "half the epochs", EPOCHS // 2),
    "clicktrain, half": by_layer("clicktrain", "half the epochs", EPOCHS // 2),
}
# Rows that count their own filters or inputs have the largest rate within a part of the operations.
STRUCTURED: dict[str, Row] = {
    "magnitude": structured("magnitude"),
    "importance": structured("importance"),
    "fairgrape": structured("fairgrape"),
    "slr-filters": structured("slr-filters", (0.7, 0.49)),
    "layerwise": structured("layerwise", (0.56, 0.31)),
    "layerwise-once": structured("layerwise-once", (0.56, 0.31)),
    "layerwise-fair": structured("layerwise-fair", (0.56, 0.31)),
    "stripes": structured("stripes"),
    "stripes-fair": structured("stripes-fair"),
    "swp": structured("swp"),
}


def experiment(row: Row, share: float, seed: int) -> Experiment:
    """One cell: a row, a share of students and a seed.

    Args:
        row: what is compared.
        share: of students among the training pictures.
        seed: of the run.
    """
    return Experiment(
        data=Writers(minority="students", share=share),
        model="cnn",
        methods=(row.method,),
        densities=row.densities,
        dense=Stage((8,), (1e-3,)),
        retrain=Stage((row.epochs,), (1e-3,)),
        final=Stage(),
        scoring=Scoring(
            fraction=0.2, micro_batch=16, allocation=row.allocation, structures=row.structures
        ),
        min_keep_per_layer=1,
        batch=64,
        seeds=(seed,),
        execution=Execution(checkpoints="all", devices=1),
    )


def operations(masks: Tree) -> float:
    """The part of the small CNN's multiplications that is left, of channels or of stripes.

    Where channels go, one counts if it is both written and read: what the bias of a channel that is
    not written adds is a constant, which the next layer's bias can take. Where stripes go, a weight
    counts once for every place of its layer's output. The lesser of both is left.

    Args:
        masks: of its weights.

    Example:
        >>> shapes = {"conv1": (3, 3, 1, 16), "conv2": (3, 3, 16, 32), "fc1": (1568, 128)}
        >>> shapes["fc2"] = (128, 10)
        >>> full = {name: {"kernel": np.ones(shape, bool)} for name, shape in shapes.items()}
        >>> full["fc1"]["kernel"][:, 64:] = False  # half of the hidden units
        >>> operations({name: full[name] for name in full})
        0.917...
    """
    kernels = jax.device_get(masks)
    conv1, conv2, fc1, fc2 = (
        np.asarray(kernels[name]["kernel"]) for name in ("conv1", "conv2", "fc1", "fc2")
    )
    positions = fc1.reshape(-1, conv2.shape[-1], fc1.shape[-1])
    first = conv1.any((0, 1, 2)) & conv2.any((0, 1, 3))
    second = conv2[:, :, first].any((0, 1, 2)) & positions.any((0, 2))
    hidden = fc1.any(axis=0) & fc2.any(axis=1)
    features = int(positions[:, second].any(axis=2).sum())

    def count(first: int, second: int, features: int, hidden: int) -> int:
        conv = 784 * 9 * first + 196 * 9 * first * second
        return conv + features * hidden + hidden * fc2.shape[1]

    whole = count(conv1.shape[-1], conv2.shape[-1], *fc1.shape)
    of_channels = count(int(first.sum()), int(second.sum()), features, int(hidden.sum()))
    of_stripes = 784 * conv1.sum() + 196 * conv2.sum() + fc1.sum() + fc2.sum()
    return min(of_channels, int(of_stripes)) / whole


# What the study is to tell: a row, and what it is compared with.
PAIRS = (
    ("slr", "magnitude"),
    ("admm", "magnitude"),
    ("slr", "admm"),
    ("autoprune", "magnitude"),
    ("clicktrain", "magnitude, by layer"),
    ("stripes", "magnitude, by layer"),
    ("swp", "stripes"),
    # What the groups add.
    ("slr-fairgrape", "slr"),
    ("slr-fairgrape", "fairgrape"),
    ("autoprune-fair", "autoprune"),
    ("clicktrain-fair", "clicktrain"),
    ("stripes-fair", "stripes"),
    # Whether time is saved.
    ("slr, half", "magnitude, half"),
    ("slr, half", "magnitude"),
    ("clicktrain, half", "magnitude, by layer"),
)
STRUCTURED_PAIRS = (
    ("fairgrape", "importance"),
    ("fairgrape", "magnitude"),
    ("slr-filters", "magnitude"),
    ("layerwise", "layerwise-once"),
    ("layerwise", "magnitude"),
    ("layerwise-fair", "layerwise"),
    ("stripes", "magnitude"),
    ("stripes-fair", "stripes"),
    ("swp", "stripes"),
)
FOLDER = Path(__file__).parent / "cells"
STUDY = Study(
    folder=FOLDER / "weights",
    rows={name: row.kind for name, row in ROWS.items()},
    experiment=lambda name, share, seed: experiment(ROWS[name], share, seed),
    measured=WEIGHTS,
    base="fairgrape",
    seeds=SEEDS,
)
STRUCTURES = Study(
    folder=FOLDER / "operations",
    rows={name: row.kind for name, row in STRUCTURED.items()},
    experiment=lambda name, share, seed: experiment(STRUCTURED[name], share, seed),
    measured=OPERATIONS,
    base="fairgrape",
    seeds=SEEDS,
    unit="of the operations",
    cost=operations,
)
