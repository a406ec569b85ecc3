"""What thresholds by group would change after pruning; they use a person's group at test time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.faces.afterwards import Change
from fairgrape_jax.metrics.thresholds import LARGEST, answer
from fairgrape_jax.training.evaluate import Predictions

CHANGE = Change("Thresholds by group", "by_threshold", "thresholds")


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
