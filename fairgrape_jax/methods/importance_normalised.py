"""Groups brought to one scale, but not balanced: between plain importance and FairGRAPE."""

from __future__ import annotations

import jax
import numpy as np

from fairgrape_jax.masks import Tree
from fairgrape_jax.methods.base import Problem
from fairgrape_jax.selection.counts import members


def score(problem: Problem) -> Tree:
    """The mean over groups of I[k, w] / T_k, T_k the group's importance in the layer.

    Every group weighs the same, as in FairGRAPE, but no share is balanced: the ablation between
    `importance` and `fairgrape`. With scope "global", T_k is the group's in the network. A group
    without importance takes no part.

    >>> mask = {"kernel": np.ones((1, 2), bool)}
    >>> scores = {"kernel": np.array([[[6.0, 2.0]], [[0.0, 1.0]]])}
    >>> score(Problem(None, mask, importance=lambda over: scores))
    {'kernel': array([[0.375, 0.625]], dtype=float32)}
    """
    return jax.tree.map(lambda leaf: leaf.mean(axis=0), parts(problem))


def parts(problem: Problem) -> Tree:
    """I[k, w] / T_k, (G, *w.shape): the part of a group's importance that a weight holds."""
    leaves, structure = jax.tree.flatten(problem.importance("groups"))
    # In float64 on the host: a float32 total of a million weights is off by more than a weight.
    each = [np.asarray(x).reshape(len(x), -1).sum(axis=1, dtype=np.float64) for x in leaves]
    found = list(leaves)
    for own in members(problem.masks, problem.scope).values():
        totals = np.sum([each[i] for i in own], axis=0)
        weight = np.where(totals > 0, 1 / np.where(totals > 0, totals, 1), 0).astype(np.float32)
        for i in own:
            found[i] = np.asarray(leaves[i] * weight.reshape(-1, *[1] * (leaves[i].ndim - 1)))
    return jax.tree.unflatten(structure, [x.astype(np.float32) for x in found])
