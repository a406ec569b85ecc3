"""Lottery tickets: prune the trained network by magnitude, then go back to an earlier point."""

from __future__ import annotations

from fairgrape_jax.masks import Tree
from fairgrape_jax.methods import magnitude
from fairgrape_jax.methods.base import Problem


def score(problem: Problem) -> Tree:
    """|w| of the trained weights; the round then rewinds (the table's `rewinds`).

    Where to is the experiment's `rewind`: the initialisation, an epoch of the dense training
    (Frankle et al., "Linear Mode Connectivity and the Lottery Ticket Hypothesis", ICML 2020), or
    its end, as the official FairGRAPE code does under this name.

    Args:
        problem: the network at the start of the round.

    Source:
        Frankle and Carbin, "The Lottery Ticket Hypothesis" (ICLR 2019), iterative pruning.

    Example:
        >>> import numpy as np
        >>> kernel = {"kernel": np.array([[-2.0, 1.0]])}
        >>> mask = {"kernel": np.ones((1, 2), bool)}
        >>> score(Problem(kernel, mask, importance=None))
        {'kernel': array([[2., 1.]])}
    """
    return magnitude.score(problem)
