"""FairGRAPE's choice with each group's Fisher information in place of (w * g)^2."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from fairgrape_jax.masks import Tree, map_masked
from fairgrape_jax.methods import fairgrape
from fairgrape_jax.methods.base import Problem
from fairgrape_jax.methods.fairprune import FISHER
from fairgrape_jax.scoring.importance import at_least_float32


def choose(problem: Problem, density: float) -> Tree:
    """FairGRAPE's choice that keeps each group's share of w^2 F_k.

    Args:
        problem: the network at the start of the round.
        density: the part of ALL weights to keep, 0 to 1.

    Source:
        Ours: Algorithm 1 of FairGRAPE on the saliency of optimal brain damage (LeCun et al., 1990).
    """
    return fairgrape.choose(by_fisher(problem), density)


def score(problem: Problem) -> Tree:
    """The largest part of a group's w^2 F_k that the weight holds.

    Args:
        problem: the network at the start of the round.
    """
    return fairgrape.score(by_fisher(problem))


def by_fisher(problem: Problem) -> Problem:
    """The problem with w^2 F_k as the importance of group k.

    F_k is the diagonal of the Fisher information of the group's samples, estimated with labels
    drawn from the network's own output: w^2 F_k / 2 is what the loss grows by without the weight.

    Args:
        problem: the network at the start of the round.

    Example:
        >>> import numpy as np
        >>> kernel = {"kernel": np.array([[-2.0, 1.0]])}
        >>> mask = {"kernel": np.ones((1, 2), bool)}
        >>> fisher = {"kernel": np.array([[[0.5, 3.0]], [[1.0, 0.0]]])}
        >>> problem = Problem(
        ...     kernel, mask, average=lambda *options, **more: fisher, key=jax.random.key(0)
        ... )
        >>> by_fisher(problem).importance("groups")["kernel"].tolist()
        [[[2.0, 3.0]], [[4.0, 0.0]]]
    """
    key = jax.random.key_data(problem.key)

    def importance(over: Any) -> Tree:
        fisher = problem.average(FISHER, over=over, extra=key)
        return map_masked(
            lambda m, w, f: None if m is None else at_least_float32(w) ** 2 * f,
            problem.masks,
            problem.params,
            fisher,
        )

    return dataclasses.replace(problem, importance=importance)
