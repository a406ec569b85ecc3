"""The departures of the official FairGRAPE code from its paper, each a switch, on handwriting."""

from __future__ import annotations

import dataclasses

import numpy as np

from fairgrape_jax.config import Execution, Experiment, KeepLast, Scoring, Stage
from fairgrape_jax.data.builders.in_memory import from_arrays
from fairgrape_jax.data.sources.base import Source
from fairgrape_jax.data.sources.writers import Writers, read_sample

PAPER = "paper"
ABSOLUTE, ADVANCES, ACCUMULATED, DIVIDED = (
    "absolute deficit",
    "two advances",
    "accumulated gradients",
    "last group divided",
)
# What is changed in the scoring; the paper's own is the base of all.
VARIANTS: dict[str, dict[str, object]] = {
    PAPER: {},
    ABSOLUTE: {"deficit": "absolute"},
    ADVANCES: {"advances": 2},
    ACCUMULATED: {"gradients": "accumulated"},
    DIVIDED: {"divide": "last"},
    "absolute deficit, last group divided": {"deficit": "absolute", "divide": "last"},
    "all four": {
        "deficit": "absolute",
        "advances": 2,
        "gradients": "accumulated",
        "divide": "last",
    },
}
SEEDS = (0, 1, 2)
DENSITIES = (0.5, 0.2, 0.1, 0.05, 0.03)
MEASURED = DENSITIES[-3:]
GROUPINGS = ("writers", "digits")


def data_of(grouping: str) -> Source:
    """The handwriting with its writers as groups, or with its ten digits.

    Args:
        grouping: one of GROUPINGS.
    """
    if grouping == "writers":
        return Writers(minority="students", share=0.05)
    parts = read_sample()
    images, labels = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
    splits = np.repeat(["train", "validation", "test"], [len(part[1]) for part in parts])
    digits = [str(digit) for digit in range(10)]
    return from_arrays(
        images, {"digit": labels}, labels, splits=splits, classes=digits, group_names=digits,
        limit=6000,
    )  # fmt: skip


def experiment(grouping: str, variant: str) -> Experiment:
    """FairGRAPE on every seed, with the switches of a variant.

    Args:
        grouping: one of GROUPINGS.
        variant: one of VARIANTS.
    """
    scoring = Scoring(fraction=0.2, micro_batch=16, select="greedy")
    return Experiment(
        data=data_of(grouping),
        model="cnn",
        methods=("fairgrape",),
        densities=DENSITIES,
        dense=Stage((6,), (1e-3,)),
        retrain=Stage((1,), (1e-3,)),
        final=Stage(),
        scoring=dataclasses.replace(scoring, **VARIANTS[variant]),  # type: ignore[arg-type]
        batch=64,
        seeds=SEEDS,
        execution=Execution(checkpoints=KeepLast(), devices=1),
    )
