"""The dual's minimum by cutting planes, for any number of layers in step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

EXPLORE, REFINE = 20, 200  # evaluations at most, in each part of the search
TOLERANCE = 1e-6  # relative, of the dual's minimum

Evaluate = Callable[[np.ndarray], np.ndarray]  # lambda (L, G) to the retained parts (L, G)


class Bundle:
    """The cutting planes of a layer's D found so far, the best lambda, and where to look next.

    D is homogeneous, so a cut at lambda_i is the plane through the origin g_i . lambda <= D.
    active: (G,) bool, the groups with importance; lambda is 0 for the others, and there is nothing
    to search where none is. starts: (X, G), points whose cuts are nearly enough to know the
    minimum; without any the search first explores.
    """

    def __init__(self, active: np.ndarray, starts: np.ndarray | None = None) -> None:
        self.active = np.flatnonzero(active)
        self.starts = [] if starts is None else list(starts)
        self.points: list[np.ndarray] = []
        self.cuts: list[np.ndarray] = []
        self.best = active / max(1, len(self.active))
        self.value, self.achieved = np.inf, 0.0

    def propose(self) -> np.ndarray | None:
        """The next lambda to evaluate D at, or None when its minimum is known."""
        number, explore = len(self.cuts), 0 if self.starts else EXPLORE
        if len(self.active) == 0 or self.value * (1 - TOLERANCE) <= self.achieved:
            return None
        if number < len(self.starts):
            return self.starts[number]
        if number == 0:
            return self.best
        if number < explore:
            return self._subgradient_step()
        step = number - max(explore, len(self.starts))
        target, floor = self._lowest()
        if step >= REFINE or self.value - floor <= TOLERANCE * self.value:
            return None
        share = 1.0 if step % 3 == 0 else 0.5
        return share * target + (1 - share) * self.best

    def add(self, weights: np.ndarray, retained: np.ndarray) -> None:
        """Take in D's cut at a point, what the K weights chosen there retain of every group."""
        value = float(weights @ retained)
        self.points.append(weights)
        self.cuts.append(retained)
        self.achieved = max(self.achieved, float(retained[self.active].min()))
        if value < self.value:
            self.value, self.best = value, weights

    def support(self) -> np.ndarray:
        """The points whose planes meet at the lowest point, the best one first."""
        met = np.flatnonzero(self._program().ineqlin.marginals < -1e-9)
        return np.stack([self.best, *[self.points[i] for i in met]])

    def _subgradient_step(self) -> np.ndarray:
        """An exponentiated step from the last point: cuts all around the solution, to begin."""
        weights, retained = self.points[-1], self.cuts[-1]
        size = -4 / np.sqrt(len(self.cuts))
        weights = weights * np.exp(size * (retained / (weights @ retained) - 1))
        return weights / weights.sum()

    def _lowest(self) -> tuple[np.ndarray, float]:
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


def minimise(bundles: Sequence[Bundle], evaluate: Evaluate) -> None:
    """Search until every bundle knows its minimum; `evaluate` sees a lambda of each at once.

    A bundle that is done shows its best point again.

    >>> minimise([bundle := Bundle(np.array([True, True]))], lambda x: np.array([[0.5, 0.5]]))
    >>> bundle.value, len(bundle.cuts)
    (0.5, 1)
    """
    while True:
        points = [bundle.propose() for bundle in bundles]
        if all(point is None for point in points):
            return
        pairs = list(zip(bundles, points, strict=True))
        found = evaluate(np.stack([b.best if point is None else point for b, point in pairs]))
        for (bundle, point), retained in zip(pairs, found, strict=True):
            if point is not None:
                bundle.add(point, retained)
