"""The step of one retraining: the training step, with a remedy and ingredients in it."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np

from fairgrape_jax import parallel
from fairgrape_jax.data.dataset import Dataset
from fairgrape_jax.remedies import Active, Ingredient, Remedy, active
from fairgrape_jax.rounds.steps import Steps, variables
from fairgrape_jax.training.epoch import Step
from fairgrape_jax.training.state import State
from fairgrape_jax.training.step import Companions


def retraining_step(
    steps: Steps,
    remedy: Remedy,
    dense: State,
    dataset: Dataset | None = None,
    ingredients: tuple[Active, ...] | None = None,
    *,
    quantised: bool = True,
) -> Step:
    """The step of retraining, called as `Steps.train`: it, or one with more in it.

    Args:
        steps: those of the run.
        remedy: the terms of the loss.
        dense: the dense network.
        dataset: with the groups that ingredients look at; None where there are no ingredients.
        ingredients: what takes part in the step; those of the remedy if None.
        quantised: whether the network runs with the quantisers of the run, if it has any.
    """
    taking_part = active(remedy) if ingredients is None else ingredients
    taking_part = tuple(one for one in taking_part if in_step(one.row))
    quantised = quantised and steps.quantised is not steps.module
    if not (remedy.teaches or taking_part or quantised):
        return steps.train
    teaches = remedy.teaches or any(row.teaches(options) for _, row, options in taking_part)
    companions = Companions(
        variables(dense) if teaches else None,
        *group_tables(dataset, taking_part, steps.devices),
    )
    step = steps.retrain(taking_part, quantised)
    return lambda *args: step(*args, companions)


def in_step(row: Ingredient) -> bool:
    """Whether an ingredient takes part in every step.

    Args:
        row: of the table.
    """
    return any((row.forward, row.weigh, row.term, row.after_step, row.frozen))


def group_tables(
    dataset: Dataset | None, ingredients: Sequence[Active], devices: Sequence[jax.Device]
) -> tuple[jax.Array | None, jax.Array | None]:
    """The groups of the training and of the validation split on the devices, None where not needed.

    Args:
        dataset: with the groups that ingredients look at.
        ingredients: what takes part in the step.
        devices: those of this process.
    """
    if dataset is None or not ingredients:
        return None, None
    held = any(row.held_out(options) for _, row, options in ingredients)
    tables = (dataset.train.groups, dataset.validation.groups if held else None)
    return parallel.replicate(jax.tree.map(lambda x: np.asarray(x, np.int32), tables), devices)
