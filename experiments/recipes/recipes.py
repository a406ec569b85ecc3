"""The recipes that are screened: what is compared, and one ingredient at a time on top of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from experiments.study import Study
from fairgrape_jax.config import Execution, Experiment, Scoring, Stage
from fairgrape_jax.config.scoring import Clusters
from fairgrape_jax.data.sources.writers import Writers
from fairgrape_jax.losses.distillation import Performance
from fairgrape_jax.remedies import REMEDIES, Duals, Remedy

# What is looked at, of the rounds of every run; on the way there the density halves or so.
MEASURED = (0.01, 0.005, 0.002)
DENSITIES = (0.5, 0.25, 0.1, 0.05, 0.02, *MEASURED)

# The confirmation, decided before it was run: on the test split, with seeds that no screen saw.
CONFIRMED = ("balanced", "importance balanced")
AGAINST = ("fairgrape, paper", "fairgrape", "importance", "magnitude")
# The last five were added after the first five had been looked at, and are told apart in the page.
FRESH_SEEDS = (3, 4, 5, 6, 7, 8, 9, 10, 11, 12)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One way of pruning and retraining.

    Attributes:
        part: what kind of ingredient is tried: "baseline", "allocation", "mask", "returning mask",
            "retraining", or "together".
        method: a row of the table of methods.
        remedy: the loss of retraining, and what takes part in it.
        allocation: how many weights each layer keeps.
        clusters: in place of groups, for scores and retraining; 0 for the groups.
        epochs: of retraining in each round; half of them where all weights train before a choice.
    """

    part: str
    method: str = "fairgrape"
    remedy: Remedy = dataclasses.field(default_factory=Remedy)
    allocation: Any = "global"
    clusters: int = 0
    epochs: int = 2


def retrain(**options: Any) -> Recipe:
    """FairGRAPE with one count for the network, retrained with a remedy.

    Args:
        options: fields of the remedy.
    """
    return Recipe("retraining", remedy=Remedy(**options))


RECIPES: dict[str, Recipe] = {
    "fairgrape, paper": Recipe("baseline", allocation="uniform"),
    "fairgrape": Recipe("baseline"),
    "importance": Recipe("baseline", "importance"),
    "magnitude": Recipe("baseline", "magnitude"),
    "fairgrape, uniform+": Recipe("allocation", allocation="uniform+"),
    "fairgrape, erk": Recipe("allocation", allocation="erk"),
    "fairgrape, lamp": Recipe("allocation", allocation="lamp"),
    "importance, uniform": Recipe("allocation", "importance", allocation="uniform"),
    "importance, erk": Recipe("allocation", "importance", allocation="erk"),
    "importance, lamp": Recipe("allocation", "importance", allocation="lamp"),
    "magnitude, uniform": Recipe("allocation", "magnitude", allocation="uniform"),
    "magnitude, erk": Recipe("allocation", "magnitude", allocation="erk"),
    "magnitude, lamp": Recipe("allocation", "magnitude", allocation="lamp"),
    "fairgrape-fisher": Recipe("mask", "fairgrape-fisher"),
    "fairgrape-min": Recipe("mask", "fairgrape-min"),
    "fairgrape-maxmin": Recipe("mask", "fairgrape-maxmin"),
    "fair-lamp": Recipe("mask", "fair-lamp"),
    "fair-lamp-mean": Recipe("mask", "fair-lamp-mean"),
    "undecayed": Recipe("mask", "undecayed"),
    "gmp": Recipe("returning mask", "gmp"),
    "gmp-fairgrape": Recipe("returning mask", "gmp-fairgrape"),
    "acdc": Recipe("returning mask", "acdc", epochs=1),
    "acdc-fairgrape": Recipe("returning mask", "acdc-fairgrape", epochs=1),
    "rigl": Recipe("returning mask", "rigl"),
    "rigl-groups": Recipe("returning mask", "rigl-groups"),
    "kd": Recipe("retraining", remedy=REMEDIES["kd"]),
    "balanced": retrain(balanced=True),
    "dro": retrain(dro=0.1),
    "duals": retrain(duals=Duals(rate=0.1)),
    "duals held out": retrain(duals=Duals(rate=0.1, held_out=True, every=4)),
    "equal loss": retrain(duals=Duals(rate=0.1, buffer=40, constraint="equal-loss")),
    "transplant": retrain(transplant=1.0, features=("fc1",)),
    "performance-weighted": retrain(pw=Performance(weights=True, labels=True)),
    "balanced clusters": Recipe("retraining", remedy=Remedy(balanced=True), clusters=4),
    "dro clusters": Recipe("retraining", remedy=Remedy(dro=0.1), clusters=4),
    "importance balanced": Recipe("together", "importance", Remedy(balanced=True)),
    "magnitude balanced": Recipe("together", "magnitude", Remedy(balanced=True)),
    "balanced duals": Recipe(
        "together", remedy=Remedy(balanced=True, duals=Duals(rate=0.1, held_out=True, every=4))
    ),
    "acdc balanced": Recipe("together", "acdc-fairgrape", Remedy(balanced=True), epochs=1),
    "kd balanced": Recipe("together", remedy=Remedy(ce=0.1, kd=0.9, balanced=True)),
}


def experiment(name: str, share: float, seed: int) -> Experiment:
    """One cell of the study: a recipe, a share of students and a seed, through all densities.

    Args:
        name: of a recipe.
        share: of students among the training pictures.
        seed: of the run.
    """
    recipe = RECIPES[name]
    return Experiment(
        data=Writers(minority="students", share=share),
        model="cnn",
        methods=(recipe.method,),
        densities=DENSITIES,
        dense=Stage((8,), (1e-3,)),
        retrain=Stage((recipe.epochs,), (1e-3,)),
        final=Stage(),
        scoring=Scoring(
            fraction=0.2,
            micro_batch=16,
            allocation=recipe.allocation,
            groups=Clusters(recipe.clusters) if recipe.clusters else None,
        ),
        min_keep_per_layer=1,
        remedy=recipe.remedy,
        batch=64,
        seeds=(seed,),
        execution=Execution(checkpoints="all", devices=1),
    )


STUDY = Study(
    folder=Path(__file__).parent / "cells",
    rows={name: recipe.part for name, recipe in RECIPES.items()},
    experiment=experiment,
    measured=MEASURED,
    base="fairgrape",
    seeds=(0, 1, 2),
    shares=(0.05, 0.01),
)
