"""One layer as the dual sees it: importance, totals, and sums weighted by lambda, in float64."""

from __future__ import annotations

import dataclasses
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Float64, Int

SAMPLE = 100_000  # weights at least in a sample of a layer, which has twice as many
STEP = 12  # every which weight is in it, at most: a sample of many weights is itself sampled
NEAR = 32  # a pass over a layer brings this part of its weights to sight, on either side


@dataclasses.dataclass(frozen=True)
class Layer:
    """What is chosen from.

    Attributes:
        rows: importance.
        alive: the weights alive.
        keep: how many to keep.
    """

    rows: Float[np.ndarray, "G n"]
    alive: Bool[np.ndarray, " n"]
    keep: int

    @cached_property
    def totals(self) -> Float64[np.ndarray, " G"]:
        """Each group's importance alive."""
        return self.retained(self.alive)

    @cached_property
    def active(self) -> Bool[np.ndarray, " G"]:
        """The groups with importance, none where there is nothing to choose."""
        settled = self.keep in (0, np.count_nonzero(self.alive))
        return (self.totals > 0) & (not settled)

    def retained(self, mask: Bool[np.ndarray, " n"]) -> Float64[np.ndarray, " G"]:
        """Each group's importance within `mask`.

        Args:
            mask: of the weights to sum.
        """
        every = mask.all()
        return np.array([(r if every else r[mask]).sum(dtype=np.float64) for r in self.rows])

    def parts(self, members: Int[np.ndarray, " B"]) -> Float64[np.ndarray, "B G"]:
        """I[k, w] / T_k of some weights, 0 for a group without importance.

        Args:
            members: their indices.
        """
        totals = np.where(self.totals > 0, self.totals, 1)
        return np.ascontiguousarray((self.rows[:, members] / totals[:, None]).T)

    def scores(self, lambdas: Float64[np.ndarray, " G"]) -> Float64[np.ndarray, " n"]:
        """sum_k lambda_k I[k, w] / T_k of every weight, minus infinity for the dead.

        Args:
            lambdas: on the simplex, 0 for groups without importance.
        """
        scores = np.zeros(len(self.alive))
        for k in np.flatnonzero(lambdas):
            scores += self.rows[k] * (lambdas[k] / self.totals[k])
        scores[~self.alive] = -np.inf
        return scores

    @property
    def near(self) -> tuple[int, int]:
        """How many weights come before those near the edge, and how many come after it begins."""
        near, alive = len(self.alive) // NEAR, int(np.count_nonzero(self.alive))
        return max(self.keep - near, 0), min(self.keep + near, alive)

    @property
    def step(self) -> int:
        """Every which weight is in a sample; 1 for a layer that is small enough as it is."""
        return sampling_step(len(self.alive))

    def sample(self) -> Layer:
        """Every so many of the weights, and as large a part of them to keep."""
        alive = self.alive[:: self.step]
        share = self.keep / max(1, int(np.count_nonzero(self.alive)))
        count = int(np.count_nonzero(alive))
        keep = min(count, max(1, round(share * count)))
        return Layer(np.ascontiguousarray(self.rows[:, :: self.step]), alive, keep)


def sampling_step(n: int) -> int:
    """Every which weight of a layer of n is in its sample; 1 for one that is searched as it is.

    Args:
        n: how many weights there are.

    Example:
        >>> sampling_step(1000), sampling_step(300_000)
        (1, 3)
    """
    return min(n // SAMPLE, STEP) if n > 2 * SAMPLE else 1


def select_largest(scores: Float[np.ndarray, " n"], keep: int) -> Bool[np.ndarray, " n"]:
    """The `keep` largest scores, ties to the lower index.

    Args:
        scores: minus infinity for what cannot be chosen.
        keep: how many.

    Example:
        >>> select_largest(np.array([1.0, 3.0, 2.0, 2.0]), 2)
        array([False,  True,  True, False])
    """
    if keep == 0:
        return np.zeros(len(scores), bool)
    threshold = np.partition(scores, len(scores) - keep)[len(scores) - keep]
    mask = scores > threshold
    ties = np.flatnonzero(scores == threshold)
    mask[ties[: keep - int(mask.sum())]] = True
    return mask
