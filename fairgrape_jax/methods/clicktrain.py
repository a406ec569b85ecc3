"""ClickTrain: whole kernels go, and of the 3x3 kernels that stay four places do.

The choice is made first; then a part of the round's training draws what will be cut to zero
(`systems.lasso`), and the masks are hard for the rest. The paper marks a part of each layer's
kernels by hand; here a layer's number of weights says how many stay: at more than 4 of 9 all
kernels stay, and those that lose most by a pattern stay whole.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool

from fairgrape_jax.masks import Tree
from fairgrape_jax.methods import units
from fairgrape_jax.methods.base import Problem
from fairgrape_jax.selection import select_first, select_greedy
from fairgrape_jax.selection.counts import as_tree
from fairgrape_jax.systems.lasso import as_slices
from fairgrape_jax.systems.patterns import (
    choose_fair_patterns,
    choose_patterns,
    kernel_importance,
    pattern_masks,
)

CELLS, PLACES = 9, 4  # of a 3x3 kernel, and of a pattern


class Kernels(NamedTuple):
    """How many kernels of a layer stay, and how many of them whole.

    Attributes:
        stay: with a pattern, where the layer has any, or whole.
        whole: of these.
        places: that the others keep.
        size: of a whole one.
    """

    stay: int
    whole: int
    places: int
    size: int

    @property
    def weights(self) -> int:
        """That the layer keeps."""
        return self.stay * self.places + self.whole * (self.size - self.places)


def divide(shape: tuple[int, ...], count: int, minimum: int = 0) -> Kernels:
    """The kernels that a layer's number of weights is enough for.

    Args:
        shape: of the layer, (H, W, inputs, outputs).
        count: weights that the layer may keep.
        minimum: that it keeps at least.

    Example:
        >>> divide((3, 3, 2, 2), 17), divide((3, 3, 2, 2), 27).weights
        (Kernels(stay=4, whole=0, places=4, size=9), 26)
    """
    size, number = shape[0] * shape[1], shape[2] * shape[3]
    places = PLACES if shape[:2] == (3, 3) else size
    least = math.ceil(min(minimum, size * number) / places)
    stay = min(max(count // places, least), number)
    more = max(count - stay * places, 0) // (size - places) if size > places else 0
    return Kernels(stay, min(more, stay) if stay == number else 0, places, size)


def kernels(problem: Problem, density: float) -> dict[str, Kernels]:
    """How many kernels each layer keeps.

    Args:
        problem: the network at the start of the round.
        density: the part of ALL weights to keep, 0 to 1.

    Raises:
        ValueError: allocation "global", which gives no layer a number.
    """
    shares = units.layer_counts(problem, density, "kernels")
    result = {}
    for (name, count), mask in zip(shares.items(), jax.tree.leaves(problem.masks), strict=True):
        alive = as_slices(np.asarray(mask))
        cells = alive.sum(axis=(0, 1))
        number = divide(alive.shape, count, problem.minimum)
        stay, whole = int((cells > 0).sum()), int((cells == number.size).sum())
        result[name] = number._replace(stay=min(number.stay, stay), whole=min(number.whole, whole))
    return result


def counts(problem: Problem, density: float) -> dict[str, int]:
    """How many weights each layer keeps, of kernels and patterns.

    Args:
        problem: the network at the start of the round.
        density: the part of ALL weights to keep, 0 to 1.
    """
    return {name: each.weights for name, each in kernels(problem, density).items()}


def score(problem: Problem) -> Tree:
    """The importance of each weight's kernel.

    Args:
        problem: the network at the start of the round.
    """

    def of_layer(leaf: Any) -> np.ndarray:
        slices = as_slices(np.asarray(leaf)[0])
        return np.broadcast_to(kernel_importance(slices), slices.shape).reshape(leaf.shape[1:])

    return jax.tree.map(of_layer, problem.importance("all"))


def choose(problem: Problem, density: float) -> Tree:
    """Kernels, and their patterns, of most (w g)^2.

    Args:
        problem: the network at the start of the round.
        density: the part of ALL weights to keep, 0 to 1.
    """

    def patterns(importance: np.ndarray) -> np.ndarray:
        return choose_patterns(importance[0], problem.kernel_patterns)

    return _choose(problem, density, problem.importance("all"), select_first, patterns)


def choose_fair(problem: Problem, density: float) -> Tree:
    """Kernels by FairGRAPE's choice among them, each with the pattern that is best for the group
    for which it keeps least.

    Args:
        problem: the network at the start of the round.
        density: the part of ALL weights to keep, 0 to 1.
    """
    importance = problem.importance("groups")
    patterns = functools.partial(choose_fair_patterns, count=problem.kernel_patterns)
    return _choose(problem, density, importance, select_greedy, patterns)


def _choose(
    problem: Problem,
    density: float,
    importance: Tree,
    select: Callable[..., np.ndarray],
    patterns: Callable[[np.ndarray], np.ndarray],
) -> Tree:
    layers = zip(
        kernels(problem, density).items(),
        jax.tree.leaves(problem.masks),
        jax.tree.leaves(importance),
        strict=True,
    )
    chosen = []
    for (name, number), mask, leaf in layers:
        alive = as_slices(np.asarray(mask))
        rows = np.stack([as_slices(np.asarray(row, np.float64)) for row in leaf]) * alive
        mask = _choose_layer(name, number, alive, rows, select=select, patterns=patterns)
        chosen.append(mask.reshape(-1))
    return as_tree(problem.masks, chosen)


def _choose_layer(
    name: str,
    number: Kernels,
    alive: Bool[np.ndarray, "h w i o"],
    rows: np.ndarray,
    *,
    select: Callable[..., np.ndarray],
    patterns: Callable[[np.ndarray], np.ndarray],
) -> Bool[np.ndarray, "h w i o"]:
    """The masks of a layer, from the (R, H, W, inputs, outputs) importance of what is alive."""
    cells = alive.sum(axis=(0, 1))
    if not np.isin(cells, (0, number.places, number.size)).all():
        raise ValueError(
            f"clicktrain: layer {name} has kernels that are neither whole nor of a pattern; begin "
            "with masks that keep everything"
        )

    def pick(values: np.ndarray, there: np.ndarray, keep: int) -> np.ndarray:
        flat = values.reshape(len(values), -1)
        return np.asarray(select(flat, there.reshape(-1), keep)).reshape(there.shape)

    stays = pick(kernel_importance(rows), cells > 0, number.stay)
    if number.places == number.size:
        return alive & stays
    pattern = np.where(cells == number.size, pattern_masks(patterns(rows)), alive)
    lost = kernel_importance(rows * ~pattern)
    whole = pick(lost, stays & (cells == number.size), number.whole)
    return alive & stays & (pattern | whole)
