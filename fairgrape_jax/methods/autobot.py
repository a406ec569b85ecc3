"""AutoBot: the structures of largest gate, as `systems.bottlenecks` trains them.

For `--scoring.structures` alone. The published choice has one threshold for the whole network,
which is `--scoring.allocation global`; other allocations rank the structures of each group.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from fairgrape_jax.masks import Tree, map_masked
from fairgrape_jax.methods.base import Problem
from fairgrape_jax.methods.pruning import choose_highest
from fairgrape_jax.systems.bottlenecks import FIRST


def score(problem: Problem) -> Tree:
    """The bottleneck of each structure; as it starts where none was trained.

    Args:
        problem: the round, whose weights are structures.

    Example:
        >>> masks = {"conv1": np.ones(2, bool), "fc1": np.ones(1, bool)}
        >>> trained = {"kept": np.array([3.0, -1, 2], "f"), "firsts": {"conv1": 1, "fc1": 0}}
        >>> problem = Problem(masks, masks, carried={"approach": trained})
        >>> {name: logits.tolist() for name, logits in score(problem).items()}
        {'conv1': [-1.0, 2.0], 'fc1': [3.0]}
    """
    trained = (problem.carried or {}).get("approach")
    if trained is not None:
        kept, firsts = jax.device_get((trained["kept"], trained["firsts"]))
        masks = problem.masks.items()
        return {name: kept[firsts[name] : firsts[name] + mask.size] for name, mask in masks}

    def untrained(mask: Any, leaf: Any) -> Any:
        return None if mask is None else np.full(np.shape(leaf), FIRST, np.float32)

    return map_masked(untrained, problem.masks, problem.params)


def choose(problem: Problem, density: float) -> Tree:
    """The structures of largest bottleneck, and so of largest gate.

    Args:
        problem: the round, whose weights are structures.
        density: the part of ALL structures to keep, 0 to 1.
    """
    return choose_highest(problem, score(problem), density)
