"""The dual's minimum by cutting planes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float64

EXPLORE, REFINE = 20, 200  # evaluations at most, in each part of the search
TOLERANCE = 1e-6  # relative, of the dual's minimum


Evaluate = Callable[[np.ndarray], np.ndarray]  # lambda (G,) to the retained parts (G,)
Vector = Float64[np.ndarray, " G"]


def reached(value: float, floor: float) -> bool:
    """Whether a value is as good as a lower bound of the minimum.

    Args:
        value: a sum that a choice has.
        floor: what none can be below.

    Example:
        >>> reached(1.0, 0.9), reached(1.0, 1.0)
        (False, True)
    """
    return value - floor <= TOLERANCE * value


class Bundle:
    """The cutting planes of D so far, and the best lambda.

    D is homogeneous, so a cut at lambda_i is the plane through the origin g_i . lambda <= D, where
    g_i is what any K weights retain of every group: cuts stay true whatever finds them.

    Attributes:
        active: the numbers of the groups with importance; lambda is 0 for the others.
        cuts: g_i, (G,) each.
        best: the lambda of the least value so far.
        value: that value, an upper bound of the minimum.
        achieved: the largest part that a choice retained of its worst group.
    """

    def __init__(self, active: Bool[np.ndarray, " G"]) -> None:
        """Begin with no cut, for the groups with importance."""
        self.active = np.flatnonzero(active)
        self.cuts: list[np.ndarray] = []
        self.best = active / max(1, len(self.active))
        self.value, self.achieved = np.inf, 0.0

    def add(self, lambdas: Vector, retained: Vector) -> None:
        """Take in the cut at a point, what the K weights chosen there retain of every group.

        Args:
            lambdas: the point.
            retained: what any K weights chosen there retain of every group.
        """
        value = float(lambdas @ retained)
        self.cuts.append(retained)
        self.achieved = max(self.achieved, float(retained[self.active].min()))
        if value < self.value:
            self.value, self.best = value, lambdas

    def explore(self, evaluate: Evaluate) -> None:
        """Exponentiated subgradient steps: cuts all around the solution, to begin with.

        Args:
            evaluate: lambda to what the K largest sums retain of every group.
        """
        lambdas = self.best
        for step in range(EXPLORE):
            retained = evaluate(lambdas)
            self.add(lambdas, retained)
            if reached(self.value, self.achieved):
                return
            relative = retained / (lambdas @ retained)
            lambdas = lambdas * np.exp(-4 / np.sqrt(1 + step) * (relative - 1))
            lambdas /= lambdas.sum()

    def refine(self, evaluate: Evaluate) -> float:
        """Kelley's method, kept near the best point; the planes' minimum where it ends.

        Args:
            evaluate: lambda to what the K largest sums retain of every group.
        """
        for step in range(REFINE):
            target, floor = self.lowest()
            if reached(self.value, floor):
                break
            share = 1.0 if step % 3 == 0 else 0.5
            lambdas = share * target + (1 - share) * self.best
            self.add(lambdas, evaluate(lambdas))
        return floor

    def restart(self, lambdas: Vector, retained: Vector) -> None:
        """Go on from a point with another evaluation of D, and the cuts that there are.

        Args:
            lambdas: the point.
            retained: what any K weights chosen there retain of every group.
        """
        self.value, self.achieved = np.inf, 0.0
        self.add(lambdas, retained)

    def lowest(self) -> tuple[Vector, float]:
        """The lowest point of the planes over the simplex: a matrix game, solved as a program."""
        solution = self._program()
        lambdas = np.zeros(len(self.best))
        lambdas[self.active] = np.clip(solution[:-1], 0, None)
        return lambdas / lambdas.sum(), float(solution[-1])

    def _program(self) -> Float64[np.ndarray, " variables"]:
        """Lambda of the active groups, and the height of the planes there."""
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
        ).x
