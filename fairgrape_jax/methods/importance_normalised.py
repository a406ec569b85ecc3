"""Groups brought to one scale, but not balanced: between plain importance and FairGRAPE."""

from __future__ import annotations

import jax
import numpy as np

from fairgrape_jax.masks import Tree
from fairgrape_jax.methods.base import Problem
from fairgrape_jax.selection.counts import members
from fairgrape_jax.selection.inputs import as_float, rankable

TINY = 1e-36  # down to it, and up to its inverse, 1 / total is a normal float32


def score(problem: Problem) -> Tree:
    """The mean over groups of I[k, w] / T_k, T_k the group's importance in the layer.

    Every group weighs the same, as in FairGRAPE, but no share is balanced: the ablation between
    `importance` and `fairgrape`. With allocation "global", T_k is the group's in the network. A
    group without importance takes no part.

    Args:
        problem: the network at the start of the round.

    Example:
        >>> mask = {"kernel": np.ones((1, 2), bool)}
        >>> scores = {"kernel": np.array([[[6.0, 2.0]], [[0.0, 1.0]]])}
        >>> score(Problem(None, mask, importance=lambda over: scores))
        {'kernel': array([[0.375, 0.625]], dtype=float32)}
    """
    return jax.tree.map(lambda leaf: leaf.mean(axis=0), importance_parts(problem))


def importance_parts(problem: Problem) -> Tree:
    """I[k, w] / T_k: the part of a group's importance that a weight holds.

    Args:
        problem: the network at the start of the round.

    Returns:
        A tree of (G, *w.shape) float32.
    """
    leaves, structure = jax.tree.flatten(problem.importance("groups"))
    rows = [as_float(rankable(leaf, "importance")) for leaf in leaves]
    # In float64: a float32 total of a million weights is off by more than a weight.
    sums = [x.reshape(len(x), -1).sum(axis=1, dtype=np.float64) for x in rows]
    parts = list(rows)
    for numbers in members(problem.masks, problem.allocation).values():
        totals = np.sum([sums[i] for i in numbers], axis=0)
        some = totals[totals > 0]
        weight = np.where(totals > 0, 1 / np.where(totals > 0, totals, 1), 0)
        if ((some > TINY) & (some < 1 / TINY)).all():
            weight = weight.astype(np.float32)
        for i in numbers:
            parts[i] = rows[i] * weight.reshape(-1, *[1] * (rows[i].ndim - 1))
    return jax.tree.unflatten(structure, [x.astype(np.float32) for x in parts])
