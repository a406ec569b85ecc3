"""How many whole units (filters, channels, stripes, kernels) a layer keeps of its allocation."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping

import jax
import numpy as np

from fairgrape_jax.methods import pruning
from fairgrape_jax.methods.base import Problem
from fairgrape_jax.selection.allocation import is_global


def layer_counts(problem: Problem, density: float, unit: str) -> dict[str, int]:
    """How many weights each layer may keep, as shares of the whole layers.

    What is alive has been rounded down to whole units in each round before, so that it is no
    measure.

    Args:
        problem: the network at the start of the round.
        density: the part of ALL weights to keep, 0 to 1.
        unit: what is counted, for the message.

    Raises:
        ValueError: allocation "global", which gives no layer a number.

    Example:
        >>> masks = {"a": {"kernel": np.zeros((5, 8), bool)}}
        >>> layer_counts(Problem(None, masks), 0.5, "filters")
        {'a': 20}
    """
    if is_global(problem.allocation):
        raise ValueError(
            f"allocation: {unit} are counted in every layer; 'global' gives no layer a number"
        )
    full = jax.tree.map(lambda mask: np.ones(mask.shape, bool), problem.masks)
    return pruning.counts(dataclasses.replace(problem, masks=full, minimum=0), density)


def in_weights(kept: Mapping[str, int], sizes: Iterable[int]) -> dict[str, int]:
    """How many weights so many units are.

    Args:
        kept: units, by layer.
        sizes: weights of a unit of each layer, in the same order.

    Example:
        >>> in_weights({"a": 3, "b": 1}, [5, 7])
        {'a': 15, 'b': 7}
    """
    return {name: n * size for (name, n), size in zip(kept.items(), sizes, strict=True)}


def fitting(count: int, size: int, whole: int, least: int) -> int:
    """How many units of a size fit into a count, at least those that hold `least` weights.

    Args:
        count: of weights.
        size: weights of a unit.
        whole: units that are there.
        least: weights that the layer keeps.

    Example:
        >>> fitting(17, 5, 8, 0), fitting(17, 5, 8, 19), fitting(17, 5, 2, 19)
        (3, 4, 2)
    """
    return min(max(count // size, math.ceil(least / size)), whole)
