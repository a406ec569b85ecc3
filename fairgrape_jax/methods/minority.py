"""The signal of chosen groups alone, for any method (FairGRAPE, Table 6: the non-White images)."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

from fairgrape_jax.masks import Tree
from fairgrape_jax.methods.base import Method, Need, Problem
from fairgrape_jax.scoring.statistics import Statistic


def keep_minority(problem: Problem) -> Problem:
    """The problem as the minority groups see it: every sample is one of theirs.

    Args:
        problem: the network at the start of the round.

    Example:
        >>> rows = {"kernel": np.array([[[1.0]], [[2.0]], [[3.0]]])}
        >>> problem = Problem(None, None, importance=lambda over: rows, minority=(0, 2))
        >>> keep_minority(problem).importance("groups")["kernel"].ravel().tolist()
        [1.0, 3.0]
    """
    chosen = problem.minority

    def importance(over: Any) -> Tree:
        if over != "groups":
            return problem.importance(chosen)
        rows = np.array(chosen)
        return jax.tree.map(lambda leaf: leaf[rows], problem.importance("groups"))

    def average(statistic: Statistic, over: Any = "all", **options: Any) -> Tree:
        return problem.average(statistic, over=chosen, **options)

    return dataclasses.replace(problem, importance=importance, average=average)


def restrict_to_minority(method: Method, needs: tuple[Need, ...]) -> Method:
    """A method that looks at the minority groups alone, and what it needs for that.

    Args:
        method: a row of the table.
        needs: what it looks at then.
    """
    choose = method.choose
    return dataclasses.replace(
        method,
        needs=needs,
        summary=f"{method.summary}; of the minority groups alone",
        score=lambda problem: method.score(keep_minority(problem)),
        choose=choose and (lambda problem, density: choose(keep_minority(problem), density)),
    )
