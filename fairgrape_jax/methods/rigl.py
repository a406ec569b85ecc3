"""RigL: the weakest weights go, and those come back whose gradient is largest."""

from __future__ import annotations

import math

import jax
import numpy as np

from fairgrape_jax.masks import Tree, map_masked
from fairgrape_jax.methods import importance_normalised, magnitude
from fairgrape_jax.methods.base import Problem
from fairgrape_jax.methods.pruning import check_finite, prune_layers
from fairgrape_jax.scoring.statistics import GRADIENT
from fairgrape_jax.selection import descending
from fairgrape_jax.selection.patterns import Limits
from fairgrape_jax.selection.within import select_first_within

SHARE = 0.3  # of the weights that may be exchanged in the first round
UNTIL = 0.75  # the part of the rounds after which none is


def exchanged(progress: float) -> float:
    """The share of the weights that is exchanged, falling by a cosine.

    Args:
        progress: how far the rounds are, 0 for the first and 1 after the last.

    Source:
        Evci et al., "Rigging the Lottery: Making All Tickets Winners" (ICML 2020), f_decay.

    Example:
        >>> exchanged(0.0), round(exchanged(0.375), 3), exchanged(0.75), exchanged(1.0)
        (0.3, 0.15, 0.0, 0.0)
    """
    if progress >= UNTIL:
        return 0.0
    return SHARE / 2 * (1 + math.cos(math.pi * progress / UNTIL))


def exchange(
    alive: np.ndarray, strength: np.ndarray, growth: np.ndarray, keep: int, share: float
) -> np.ndarray:
    """The strongest of the weights alive, and in place of the others those of largest growth.

    Args:
        alive: (n,) bool.
        strength: (n,) what is kept of those alive; ties go to the lower index.
        growth: (n,) what comes back of all that are not kept, those that were just dropped too.
        keep: how many weights there are afterwards.
        share: of `keep`, how many come back; more where fewer are alive than that needs.

    Returns:
        (n,) bool of exactly `keep`.

    Example:
        >>> alive = np.array([True, True, True, False])
        >>> exchange(alive, np.array([3, 1, 2, 0]), np.array([0, 0, 1, 9]), 3, 1 / 3).tolist()
        [True, False, True, True]
    """
    chosen = np.zeros(alive.size, bool)
    chosen[order_of_exchange(alive, strength, growth, keep, share)[:keep]] = True
    return chosen


def order_of_exchange(
    alive: np.ndarray, strength: np.ndarray, growth: np.ndarray, keep: int, share: float
) -> np.ndarray:
    """All weights, those first that `exchange` keeps: the strongest alive, then by growth.

    Args:
        alive: as for `exchange`.
        strength: likewise.
        growth: likewise.
        keep: likewise.
        share: likewise.

    Returns:
        (n,) indices.

    Example:
        >>> alive = np.array([True, True, True, False])
        >>> order_of_exchange(alive, np.array([3, 1, 2, 0]), np.array([0, 0, 1, 9]), 3, 1 / 3)
        array([0, 2, 3, 1])
    """
    inside = np.flatnonzero(alive)
    strongest = inside[descending(strength[inside])[: keep - round(share * keep)]]
    others = np.ones(alive.size, bool)
    others[strongest] = False
    outside = np.flatnonzero(others)
    return np.concatenate([strongest, outside[descending(growth[outside])]])


def score(problem: Problem) -> Tree:
    """|w|.

    Args:
        problem: the network at the start of the round.
    """
    return magnitude.score(problem)


def choose(problem: Problem, density: float) -> Tree:
    """Kept by |w|, grown by |g| of the mean loss over all samples.

    Args:
        problem: the network at the start of the round, weights that are pruned at zero.
        density: the part of ALL weights to keep.
    """
    gradient = problem.average(GRADIENT)
    growth = jax.tree.map(lambda g: np.abs(np.asarray(g[0])), gradient)
    return _choose(problem, density, score(problem), growth)


def score_groups(problem: Problem) -> Tree:
    """The mean over groups of the part of the group's importance that a weight holds.

    Args:
        problem: the network at the start of the round.
    """
    return importance_normalised.score(problem)


def choose_by_groups(problem: Problem, density: float) -> Tree:
    """Kept by importance, every group counting alike; grown by each group's g^2 likewise.

    Ours: the groups' gradients of a weight over their sum, in place of |g|.

    Args:
        problem: the network at the start of the round.
        density: the part of ALL weights to keep.
    """
    gradient = problem.average(GRADIENT, over="groups")
    squares = jax.tree.map(lambda g: np.square(np.asarray(g, np.float64)), gradient)
    totals = sum(leaf.reshape(len(leaf), -1).sum(axis=1) for leaf in jax.tree.leaves(squares))
    weight = np.divide(1, totals, out=np.zeros_like(totals), where=totals > 0)
    growth = jax.tree.map(lambda leaf: np.tensordot(weight, leaf, axes=1), squares)
    return _choose(problem, density, score_groups(problem), growth)


def _choose(problem: Problem, density: float, strength: Tree, growth: Tree) -> Tree:
    alive = problem.masks if problem.alive is None else problem.alive
    share = exchanged(problem.progress)
    trees = (check_finite(tree, problem.masks) for tree in (strength, growth))
    rows = map_masked(
        lambda m, a, *each: (
            None if m is None else np.stack([np.asarray(x, np.float64) for x in (a, *each)])
        ),
        problem.masks,
        alive,
        *trees,
    )

    def select(
        scores: np.ndarray, previous: np.ndarray, keep: int, limits: Limits | None = None
    ) -> np.ndarray:
        known = scores[0] > 0, scores[1], scores[2], keep, share
        if limits is None:
            return exchange(*known)
        rank = np.empty(len(previous))
        rank[order_of_exchange(*known)] = np.arange(len(previous), 0, -1)
        return select_first_within(rank[None], previous, keep, limits)

    return prune_layers(problem, rows, density, select)
