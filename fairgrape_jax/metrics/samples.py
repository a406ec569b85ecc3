"""The samples that models are compared on: labels, groups, and how many there are of each."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Integer

from fairgrape_jax.metrics.counts import Codes, TaskCodes, tally


@dataclasses.dataclass(frozen=True)
class Samples:
    """The samples that models are compared on.

    Attributes:
        labels: (N, T) int, a column per task.
        groups: (N,) int; -1 for a sample of no group, which counts overall only.
        classes: the number of classes of each task.
        num_groups: how many groups there are.
    """

    labels: TaskCodes
    groups: Codes
    classes: Sequence[int]
    num_groups: int

    @property
    def strata(self) -> tuple[Codes, int]:
        """(N,) the group of each sample, those of none being one more at the end; and how many."""
        ungrouped = self.groups < 0
        groups = np.where(ungrouped, self.num_groups, self.groups)
        return groups, self.num_groups + int(ungrouped.any())

    def tally(self, predictions: Integer[np.ndarray, "model sample task"]) -> list[np.ndarray]:
        """Counts of several models.

        Args:
            predictions: (S, N, T) int, of S models.

        Returns:
            Of each task (S, G, C, 3); (S, G + 1, C, 3) where some samples are in no group.

        Raises:
            ValueError: a label, prediction or group that there is not.
        """
        groups, strata = self.strata
        tables = [tally(self.labels, m, groups, strata, self.classes) for m in predictions]
        return [np.stack(task) for task in zip(*tables, strict=True)]
