"""AutoPrune: the weights of largest auxiliary parameter, as `systems.auxiliary` trains them."""

from __future__ import annotations

import jax
import numpy as np

from fairgrape_jax.masks import Tree, map_masked
from fairgrape_jax.methods.base import Problem
from fairgrape_jax.systems.auxiliary import first_auxiliary


def score(problem: Problem) -> Tree:
    """The auxiliary parameter of each weight; as it starts where none was trained.

    Args:
        problem: the network at the start of the round.

    Example:
        >>> mask = {"kernel": np.ones((1, 2), bool)}
        >>> score(Problem({"kernel": np.array([[2.0, -1.0]])}, mask))["kernel"].round(2).tolist()
        [[0.10000000149011612, 0.05000000074505806]]
    """
    trained = (problem.carried or {}).get("approach")
    if trained is not None:
        auxiliary = jax.device_get(trained["auxiliary"])
        return map_masked(
            lambda mask, leaf: None if mask is None else np.asarray(leaf),
            problem.masks,
            auxiliary,
        )
    return map_masked(
        lambda mask, leaf: None if mask is None else first_auxiliary(leaf),
        problem.masks,
        problem.params,
    )
