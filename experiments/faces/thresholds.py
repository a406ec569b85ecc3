"""What thresholds by group would change after pruning; they use a person's group at test time."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments import comparison
from experiments.study import Cell, Study
from fairgrape_jax.metrics.thresholds import LARGEST, answer
from fairgrape_jax.training.evaluate import Predictions

SUFFIX = ", thresholds"
OUTCOMES = comparison.MEASURES[:2]


def right_by_threshold(predicted: Predictions, record: Mapping[str, Any]) -> np.ndarray | None:
    """Which samples are right with the thresholds of their groups that the stage's record has.

    Args:
        predicted: of the test split, N samples.
        record: of the stage, whose thresholds are of the validation split.

    Returns:
        (N,) bool; None where there are no thresholds, or where a group says the label itself.
    """
    limits = record.get("thresholds_by_group", {}).get("thresholds", {})
    if not limits or predicted.scores is None or np.abs([*limits.values()]).max() > LARGEST:
        return None
    thresholds = np.array([limits[name] for name, _ in record["tasks"]])
    answers = answer(predicted.scores, predicted.groups, thresholds)
    return (answers == predicted.labels).all(axis=1)


def tables(study: Study, done: Mapping[Cell, dict[str, Any]], groups: np.ndarray) -> str:
    """Each row with thresholds minus the same without, in Markdown; "" where no cell has them.

    Args:
        study: of the cells.
        done: the cells; a seed counts where every row has it, with thresholds and without.
        groups: (N,) of the samples.
    """
    both: dict[Cell, dict[str, Any]] = {}
    rows = {**study.rows, **{row + SUFFIX: "after" for row in study.rows}}
    wider = dataclasses.replace(study, rows=rows)
    for cell, content in done.items():
        after = {
            density: value | {"right": value["by_threshold"]}
            for density, value in content["pruned"].items()
            if "by_threshold" in value
        }
        if after:
            both[dataclasses.replace(cell, study=wider)] = content
            name = cell.row + SUFFIX
            both[dataclasses.replace(cell, study=wider, row=name)] = content | {"pruned": after}
    if not both:
        return ""
    return "Thresholds by group:\n\n" + comparison.differences(
        wider,
        both,
        1.0,
        groups,
        pairs=[(row + SUFFIX, row) for row in study.rows],
        densities=[f"{value:g}" for value in study.measured],
        outcomes=OUTCOMES,
    )
