"""The dual's minimum by cutting planes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

EXPLORE, REFINE = 20, 200  # evaluations at most, in each part of the search
TOLERANCE = 1e-6  # relative, of the dual's minimum


Evaluate = Callable[[np.ndarray], np.ndarray]  # lambda (G,) to the retained parts (G,)


def reached(value: float, floor: float) -> bool:
    """Whether a value is as good as a lower bound of the minimum.

    >>> reached(1.0, 0.9), reached(1.0, 1.0)
    (False, True)
    """
    return value - floor <= TOLERANCE * value


class Bundle:
    """The cutting planes of D found so far, and the best lambda.

    D is homogeneous, so a cut at lambda_i is the plane through the origin g_i . lambda <= D, where
    g_i is what any K weights retain of every group: cuts stay true whatever finds them.
    active: (G,) bool, the groups with importance; lambda is 0 for the others.
    """

    def __init__(self, active: np.ndarray) -> None:
        self.active = np.flatnonzero(active)
        self.cuts: list[np.ndarray] = []
        self.best = active / max(1, len(self.active))
        self.value, self.achieved = np.inf, 0.0

    def add(self, weights: np.ndarray, retained: np.ndarray) -> None:
        """Take in the cut at a point, what the K weights chosen there retain of every group."""
        value = float(weights @ retained)
        self.cuts.append(retained)
        self.achieved = max(self.achieved, float(retained[self.active].min()))
        if value < self.value:
            self.value, self.best = value, weights

    def explore(self, evaluate: Evaluate) -> None:
        """Exponentiated subgradient steps: cuts all around the solution, to begin with."""
        weights = self.best
        for step in range(EXPLORE):
            retained = evaluate(weights)
            self.add(weights, retained)
            if reached(self.value, self.achieved):
                return
            relative = retained / (weights @ retained)
            weights = weights * np.exp(-4 / np.sqrt(1 + step) * (relative - 1))
            weights /= weights.sum()

    def refine(self, evaluate: Evaluate) -> float:
        """Kelley's method, kept near the best point; the planes' minimum where it ends."""
        for step in range(REFINE):
            target, floor = self.lowest()
            if reached(self.value, floor):
                break
            share = 1.0 if step % 3 == 0 else 0.5
            weights = share * target + (1 - share) * self.best
            self.add(weights, evaluate(weights))
        return floor

    def restart(self, weights: np.ndarray, retained: np.ndarray) -> None:
        """Go on from a point with another evaluation of D, and the cuts that there are."""
        self.value, self.achieved = np.inf, 0.0
        self.add(weights, retained)

    def lowest(self) -> tuple[np.ndarray, float]:
        """The lowest point of the planes over the simplex: a matrix game, solved as a program."""
        found = self._program()
        weights = np.zeros(len(self.best))
        weights[self.active] = np.clip(found.x[:-1], 0, None)
        return weights / weights.sum(), float(found.x[-1])

    def _program(self) -> Any:
        from scipy.optimize import linprog

        cuts, groups = np.asarray(self.cuts)[:, self.active], len(self.active)
        return linprog(
            np.r_[np.zeros(groups), 1],
            A_ub=np.c_[cuts, -np.ones(len(cuts))],
            b_ub=np.zeros(len(cuts)),
            A_eq=np.r_[np.ones(groups), 0][None],
            b_eq=[1.0],
            bounds=[(0, None)] * groups + [(None, None)],
            method="highs",
        )
