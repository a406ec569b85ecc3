"""Fair-LAMP: LAMP's layer-adaptive score, of each group's importance in place of w^2."""

from __future__ import annotations

import jax
import numpy as np

from fairgrape_jax.masks import Tree
from fairgrape_jax.methods.base import Problem
from fairgrape_jax.selection.inputs import as_float, rankable


def score_largest(problem: Problem) -> Tree:
    """max_k a[k, w]: what a weight is to the group that it means most to; see `layer_adaptive`.

    With allocation "global" no layer and no group is ever wiped out: the weight that matters most
    to a group in a layer scores 1.

    Args:
        problem: the network at the start of the round.

    Example:
        >>> mask = {"kernel": np.ones((1, 3), bool)}
        >>> scores = {"kernel": np.array([[[3.0, 1.0, 0.0]], [[1.0, 1.0, 2.0]]])}
        >>> score_largest(Problem(None, mask, importance=lambda over: scores))
        {'kernel': array([[1.  , 0.25, 1.  ]])}
    """
    return jax.tree.map(lambda a: a.max(axis=0), _of_groups(problem))


def score_mean(problem: Problem) -> Tree:
    """The mean over groups of a[k, w]; see `layer_adaptive`.

    Args:
        problem: the network at the start of the round.

    Example:
        >>> mask = {"kernel": np.ones((1, 3), bool)}
        >>> scores = {"kernel": np.array([[[3.0, 1.0, 0.0]], [[1.0, 1.0, 2.0]]])}
        >>> score_mean(Problem(None, mask, importance=lambda over: scores))
        {'kernel': array([[0.625, 0.25 , 0.5  ]])}
    """
    return jax.tree.map(lambda a: a.mean(axis=0), _of_groups(problem))


def layer_adaptive(importance: np.ndarray) -> np.ndarray:
    """a[k, w] = I[k, w] / sum of I[k, u] over the weights u of the layer with I[k, u] >= I[k, w].

    Neither the scale of a group nor that of a layer changes it. Of one group, with w^2 as its
    importance, it is LAMP's score.

    Args:
        importance: (G, *w.shape) floats of one layer, none negative.

    Returns:
        (G, *w.shape) float64, from 0 to 1; zeros for a group without importance in the layer.

    Source:
        Lee et al., "Layer-adaptive Sparsity for the Magnitude-based Pruning" (ICLR 2021), Eq. 2,
        with the per-group importance of FairGRAPE in place of w^2, which is ours.

    Example:
        >>> layer_adaptive(np.array([[1.0, 4.0, 4.0]]))
        array([[0.11111111, 0.5       , 0.5       ]])
    """
    rows = as_float(rankable(importance, "importance"))
    adapted = np.zeros(rows.shape, np.float64)
    for row, a in zip(rows.reshape(len(rows), -1), adapted.reshape(len(rows), -1), strict=True):
        largest = row.max(initial=0)
        if largest > 0:
            # float64 and relative to the largest: neither tiny nor huge sums are lost.
            relative = row.astype(np.float64) / np.float64(largest)
            ascending = np.sort(relative)
            from_here = np.cumsum(ascending[::-1])[::-1]
            a[:] = relative / from_here[np.searchsorted(ascending, relative)]
    return adapted


def _of_groups(problem: Problem) -> Tree:
    return jax.tree.map(layer_adaptive, problem.importance("groups"))
