"""Stripes of filters: all inputs at one place of a filter go together.

A filter of a dense layer or of a 1x1 convolution is one stripe. The head keeps its outputs whole,
as for `structured`. `systems.stripes` rewrites a convolution over the stripes that stay.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np

from fairgrape_jax.masks import Array, Tree, layer_names, select_prunable
from fairgrape_jax.methods import units
from fairgrape_jax.methods.base import Problem
from fairgrape_jax.selection import select_first, select_greedy
from fairgrape_jax.selection.counts import as_tree
from fairgrape_jax.systems.lasso import as_slices
from fairgrape_jax.systems.stripes import stripe_shares


def stripes(problem: Problem, density: float) -> dict[str, int]:
    """How many stripes each layer keeps: what fits into its allocation, all of the head.

    Args:
        problem: the network at the start of the round.
        density: the part of ALL weights to keep, 0 to 1.

    Raises:
        ValueError: allocation "global", which gives no layer a number.
    """
    shares = units.layer_counts(problem, density, "stripes")
    head = (problem.layers or tuple(layer_names(problem.masks)))[-1]
    masks = jax.tree.leaves(problem.masks)
    result = {}
    for (name, count), mask in zip(shares.items(), masks, strict=True):
        size = mask.shape[-2]
        least = min(problem.minimum, mask.size)
        whole = int(_whole(mask).sum())
        result[name] = whole if name == head else units.fitting(count, size, whole, least)
    return result


def counts(problem: Problem, density: float) -> dict[str, int]:
    """How many weights each layer keeps, of whole stripes.

    Args:
        problem: the network at the start of the round.
        density: the part of ALL weights to keep, 0 to 1.
    """
    sizes = [mask.shape[-2] for mask in jax.tree.leaves(problem.masks)]
    return units.in_weights(stripes(problem, density), sizes)


def statistics(problem: Problem) -> list[np.ndarray]:
    """What the weights of each layer's stripes say, (1, H, W, outputs); the mean magnitude where a
    filter is one stripe.

    Args:
        problem: the network at the start of the round.
    """
    kernels = jax.tree.leaves(select_prunable(problem.masks, problem.params))
    result = []
    for kernel in map(as_slices, map(np.asarray, kernels)):
        single = kernel.shape[:2] == (1, 1)
        values = np.abs(kernel).mean(axis=2, dtype=np.float64) if single else stripe_shares(kernel)
        result.append(values[None])
    return result


def skeletons(problem: Problem) -> list[np.ndarray]:
    """The magnitude of each layer's learned skeleton; `statistics` before there is one.

    Args:
        problem: the network at the start of the round.
    """
    trained = (problem.carried or {}).get("approach")
    if trained is None:
        return statistics(problem)
    leaves = jax.tree.leaves(select_prunable(problem.masks, trained["skeleton"]))
    return [np.abs(as_slices(leaf))[None, :, :, 0] for leaf in jax.device_get(leaves)]


def by_groups(problem: Problem) -> list[np.ndarray]:
    """The importance of each layer's stripes to every group, (G, H, W, outputs).

    Args:
        problem: the network at the start of the round.
    """
    leaves = jax.tree.leaves(problem.importance("groups"))
    return [
        np.stack([as_slices(np.asarray(row, np.float64)).sum(axis=2) for row in leaf])
        for leaf in leaves
    ]


def score(problem: Problem) -> Tree:
    """The statistic of each weight's stripe.

    Args:
        problem: the network at the start of the round.
    """
    rows = iter(statistics(problem))

    def of_layer(mask: np.ndarray) -> np.ndarray:
        shape = as_slices(mask).shape
        return np.broadcast_to(next(rows)[0][:, :, None], shape).reshape(mask.shape)

    return jax.tree.map(of_layer, problem.masks)


def choose(problem: Problem, density: float) -> Tree:
    """The stripes of largest part in their filter.

    Args:
        problem: the network at the start of the round.
        density: the part of ALL weights to keep, 0 to 1.
    """
    return _choose(problem, density, statistics(problem), select_first)


def choose_by_skeleton(problem: Problem, density: float) -> Tree:
    """The stripes of largest skeleton.

    Args:
        problem: the network at the start of the round.
        density: the part of ALL weights to keep, 0 to 1.
    """
    return _choose(problem, density, skeletons(problem), select_first)


def choose_fair(problem: Problem, density: float) -> Tree:
    """The stripes that keep each group's share of importance.

    Args:
        problem: the network at the start of the round.
        density: the part of ALL weights to keep, 0 to 1.
    """
    return _choose(problem, density, by_groups(problem), select_greedy)


def _choose(
    problem: Problem,
    density: float,
    rows: list[np.ndarray],
    select: Callable[..., np.ndarray],
) -> Tree:
    chosen = []
    keep = stripes(problem, density).values()
    for number, mask, values in zip(keep, jax.tree.leaves(problem.masks), rows, strict=True):
        whole = _whole(mask)
        stays = np.asarray(
            select((values * whole).reshape(len(values), -1), whole.reshape(-1), number)
        )
        kept = as_slices(np.asarray(mask)) & stays.reshape(whole.shape)[:, :, None]
        chosen.append(kept.reshape(-1))
    return as_tree(problem.masks, chosen)


def _whole(mask: Array) -> np.ndarray:
    """Which stripes of a layer have all their weights, (H, W, outputs)."""
    return as_slices(np.asarray(mask)).all(axis=2)
