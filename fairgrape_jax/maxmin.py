"""The optimum that FairGRAPE's greedy choice approximates: max-min retention, with a certificate.

Under the relative deficit greedy always serves the group with the smallest retained part
r_k = S_k / T_k (importance kept over importance alive), so it is a heuristic for

    choose K weights that maximise min_k r_k.

Relaxed to fractional weights, the problem has a dual in G variables: for lambda on the simplex,

    D(lambda) = sum of the K largest of sum_k lambda_k I[k, w] / T_k  >=  the optimum,

convex and piecewise linear, with the retained parts of the K chosen weights as a subgradient.
Where greedy looks at a maximum over groups, this looks at a weighted sum.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from fairgrape_jax.selection import check_layer, select_greedy

SAMPLE = 100_000  # weights of a layer in the coarse solution
EXPLORE, REFINE = 20, 200  # passes at most, in each part of the solver
TOLERANCE = 1e-6  # relative, of the dual's minimum
SWAPS, BAND = 1000, 20_000  # of the rounding: swaps at most, and weights that tie at the edge


@dataclasses.dataclass(frozen=True)
class Certificate:
    """How good a choice is: the worst group's retained part, and what no choice can exceed."""

    achieved: float
    bound: float
    passes: int

    @property
    def gap(self) -> float:
        """Bound minus achieved."""
        return self.bound - self.achieved


def select_maxmin(importance: np.ndarray, previous: np.ndarray, keep: int) -> np.ndarray:
    """The `keep` weights of a layer that retain most importance for the worst group.

    importance: (n, G), non-negative; previous: (n,) bool, the weights alive. Returns (n,) bool of
    the exact count, nested in `previous`. Never below `select_greedy` on the worst group's retained
    part. Groups without importance take no part. Raises ValueError as `select_greedy` does.

    >>> importance = np.array([[5.0, 0.0], [0.0, 5.0], [4.0, 4.0], [1.0, 1.0]])
    >>> select_maxmin(importance, np.ones(4, bool), 1)
    array([False, False,  True, False])
    """
    return certified_maxmin(importance, previous, keep)[0]


def certified_maxmin(
    importance: np.ndarray, previous: np.ndarray, keep: int
) -> tuple[np.ndarray, Certificate]:
    """As `select_maxmin`, with the certificate of its choice."""
    check_layer(importance, previous, keep)
    greedy = select_greedy(importance, previous, keep)
    alive = np.flatnonzero(previous)
    totals = importance[alive].sum(axis=0, dtype=np.float64)
    active = np.flatnonzero(totals > 0)
    if len(active) == 0 or keep in (0, len(alive)):
        whole = float(keep == len(alive))
        return greedy, Certificate(whole, whole, 0)
    parts = importance[np.ix_(alive, active)] / totals[active]
    weights, bound, passes = solve_dual(parts, keep)
    candidates = [greedy[alive], round_primal(parts, weights, keep)]
    retained = [float(parts[chosen].sum(axis=0).min()) for chosen in candidates]
    best = int(np.argmax(retained))  # greedy on ties: it comes first
    mask = np.zeros(len(previous), bool)
    mask[alive[candidates[best]]] = True
    return mask, Certificate(retained[best], max(bound, retained[best]), passes)


def dual(parts: np.ndarray, weights: np.ndarray, keep: int) -> tuple[float, np.ndarray]:
    """D(lambda) and a subgradient, what the K chosen weights retain of every group.

    parts: (n, G) float64, I[k, w] / T_k; weights: (G,), lambda.
    """
    retained = parts[largest(parts @ weights, keep)].sum(axis=0)
    return float(retained @ weights), retained


def largest(scores: np.ndarray, keep: int) -> np.ndarray:
    """(n,) bool of the `keep` largest scores, ties to the lower index."""
    threshold = np.partition(scores, len(scores) - keep)[len(scores) - keep]
    mask = scores > threshold
    ties = np.flatnonzero(scores == threshold)
    mask[ties[: keep - int(mask.sum())]] = True
    return mask


def solve_dual(parts: np.ndarray, keep: int) -> tuple[np.ndarray, float, int]:
    """Minimise D over the simplex: lambda, the bound D(lambda), and the passes over `parts`.

    Large layers start from the solution on a sample of their weights, so that most passes are
    made over a small part of them.
    """
    n, groups = parts.shape
    starts, passes = np.full((1, groups), 1 / groups), 0
    if n > 2 * SAMPLE:
        step = n // SAMPLE
        coarse = Bundle(parts[::step], max(1, round(keep / step)))
        coarse.explore(starts[0])
        coarse.refine()
        starts, passes = coarse.support(), math.ceil(coarse.passes / step)
    bundle = Bundle(parts, keep)
    if len(starts) == 1:
        bundle.explore(starts[0])
    else:
        for weights in starts:
            bundle.add(weights)
    bundle.refine()
    return bundle.best, bundle.value, passes + bundle.passes


class Bundle:
    """The cutting planes of D found so far, and the best lambda.

    D is homogeneous, so a cut at lambda_i is the plane through the origin g_i . lambda <= D.
    """

    def __init__(self, parts: np.ndarray, keep: int) -> None:
        self.parts, self.keep, self.value = parts, keep, np.inf
        self.points: list[np.ndarray] = []
        self.cuts: list[np.ndarray] = []
        self.best = np.full(parts.shape[1], 1 / parts.shape[1])

    @property
    def passes(self) -> int:
        """Evaluations of D so far."""
        return len(self.cuts)

    def add(self, weights: np.ndarray) -> tuple[float, np.ndarray]:
        """Evaluate D at a point of the simplex, and keep the cut."""
        value, retained = dual(self.parts, weights, self.keep)
        self.points.append(weights)
        self.cuts.append(retained)
        if value < self.value:
            self.value, self.best = value, weights
        return value, retained

    def explore(self, weights: np.ndarray) -> None:
        """Exponentiated subgradient steps: cuts all around the solution, to begin with."""
        for step in range(EXPLORE):
            value, retained = self.add(weights)
            if value <= 0:
                return
            weights = weights * np.exp(-4 / np.sqrt(1 + step) * (retained / value - 1))
            weights /= weights.sum()

    def refine(self) -> None:
        """Kelley's method, kept near the best point, until the planes' minimum is the bound."""
        for step in range(REFINE):
            target, floor = self.lowest()
            if self.value - floor <= TOLERANCE * self.value:
                return
            share = 1.0 if step % 3 == 0 else 0.5
            self.add(share * target + (1 - share) * self.best)

    def lowest(self) -> tuple[np.ndarray, float]:
        """The lowest point of the planes over the simplex: a matrix game, solved as a program."""
        found = self._program()
        weights = np.clip(found.x[:-1], 0, None)
        return weights / weights.sum(), float(found.x[-1])

    def support(self) -> np.ndarray:
        """The points whose planes meet at the lowest point, the best one first."""
        active = np.flatnonzero(self._program().ineqlin.marginals < -1e-9)
        return np.stack([self.best, *[self.points[i] for i in active]])

    def _program(self) -> Any:
        from scipy.optimize import linprog

        cuts, groups = np.asarray(self.cuts), self.parts.shape[1]
        return linprog(
            np.r_[np.zeros(groups), 1],
            A_ub=np.c_[cuts, -np.ones(len(cuts))],
            b_ub=np.zeros(len(cuts)),
            A_eq=np.r_[np.ones(groups), 0][None],
            b_eq=[1.0],
            bounds=[(0, None)] * groups + [(None, None)],
            method="highs",
        )


def round_primal(parts: np.ndarray, weights: np.ndarray, keep: int) -> np.ndarray:
    """K whole weights from lambda: the largest sums, then swaps across the boundary.

    An optimal fractional solution has at most G fractional weights, all at the boundary; swaps
    among the weights nearest to it, and among all that tie with it, are made while one lifts the
    worst group.
    """
    scores = parts @ weights
    chosen = largest(scores, keep)
    edge = scores[chosen].min()
    retained = parts[chosen].sum(axis=0)
    band = boundary(scores, chosen, edge, 8 * parts.shape[1])
    for _ in range(SWAPS):
        inside = extremes(-parts, band[chosen[band]])
        outside = extremes(parts, band[~chosen[band]])
        if not (len(inside) and len(outside)):
            break
        difference = parts[outside][None] - parts[inside][:, None]
        lifted = (retained + difference).min(axis=-1)
        i, j = np.unravel_index(np.argmax(lifted), lifted.shape)
        if lifted[i, j] <= retained.min() * (1 + 1e-12):
            break
        retained = retained + difference[i, j]
        chosen[inside[i]], chosen[outside[j]] = False, True
    return chosen


def boundary(scores: np.ndarray, chosen: np.ndarray, edge: float, near: int) -> np.ndarray:
    """Indices of the `near` weights on either side nearest to the edge, and of up to BAND ties."""
    distance = np.abs(scores - edge)
    found = [np.flatnonzero(distance <= 1e-9 * edge)[:BAND]]
    for side in (chosen, ~chosen):
        members = np.flatnonzero(side)
        count = min(near, len(members))
        if count:
            found.append(members[np.argpartition(distance[members], count - 1)[:count]])
    return np.unique(np.concatenate(found))


def extremes(parts: np.ndarray, members: np.ndarray) -> np.ndarray:
    """The members with the largest parts of each group: eight a group, all if they are few."""
    groups = parts.shape[1]
    if len(members) <= 8 * groups:
        return members
    own = parts[members]
    best = [np.argpartition(-own[:, k], 7)[:8] for k in range(groups)]
    return members[np.unique(np.concatenate(best))]
