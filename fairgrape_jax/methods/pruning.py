"""From scores to masks: the part that all methods share."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from fairgrape_jax.errors import TrainingError
from fairgrape_jax.masks import Tree, check_density, layer_names
from fairgrape_jax.methods.base import Method, Problem
from fairgrape_jax.selection import allocate, descending, select_first
from fairgrape_jax.selection.allocation import is_global
from fairgrape_jax.selection.counts import as_tree, check_trees, joined, members
from fairgrape_jax.selection.inputs import on_host, rankable


def prune(method: Method, problem: Problem, density: float) -> Tree:
    """The masks of the next round.

    Args:
        method: a row of the table.
        problem: the network at the start of the round.
        density: the part of ALL weights to keep, 0 to 1.

    Returns:
        A tree of NumPy masks, nested in `problem.masks`, with exact counts (see
        `selection.allocate`).

    Raises:
        TrainingError: a score is NaN or infinite.
        ValueError: a density outside 0..1, or more weights to keep than are alive.
    """
    check_density(density)
    fill = is_global(problem.allocation) and problem.minimum > 0
    scores: Tree = None
    if method.choose is None or fill:
        scores = check_finite(method.score(problem), problem.masks)
    if method.choose is None:
        rows = jax.tree.map(lambda leaf: leaf[None], scores)
        chosen = prune_layers(problem, rows, density, select_first)
    else:
        chosen = method.choose(problem, density)
    return with_minimum(problem.masks, chosen, scores, problem.minimum) if fill else chosen


def counts(problem: Problem, density: float) -> dict[str, int]:
    """How many weights are kept, by layer or in the network; see `allocate`.

    Args:
        problem: the network at the start of the round.
        density: the part of ALL weights to keep, 0 to 1.
    """
    return allocate(
        problem.masks,
        density,
        problem.allocation,
        minimum=problem.minimum,
        weights=problem.params,
        order=problem.layers,
    )


def choose_by_groups(
    problem: Problem, density: float, solve: Callable[..., tuple[Tree, Any]]
) -> Tree:
    """The choice that `solve` makes from all groups' importance.

    Args:
        problem: the network at the start of the round; its `details` get those of the choice.
        density: the part of ALL weights to keep.
        solve: as `solve_tree` or `maxmin_tree`.
    """
    chosen, details = solve(
        problem.importance("groups"),
        problem.masks,
        density,
        allocation=problem.allocation,
        minimum=problem.minimum,
        weights=problem.params,
        order=problem.layers,
        devices=problem.devices,
    )
    problem.details.update(details)
    return chosen


def check_finite(scores: Tree, masks: Tree) -> Tree:
    """The scores on the host. TrainingError names a layer whose scores are not finite.

    Args:
        scores: a tree of w.shape.
        masks: which name the layers.
    """
    arrays = jax.tree.map(on_host, scores)
    for name, leaf in zip(layer_names(masks), jax.tree.leaves(arrays), strict=True):
        if not np.isfinite(leaf).all():
            raise TrainingError(
                f"scores of layer {name} are not finite: the network has diverged, or its gradients"
                " overflow; a smaller learning rate is the usual cure"
            )
    return arrays


def prune_layers(
    problem: Problem,
    scores: Tree,
    density: float,
    select: Callable[[np.ndarray, np.ndarray, int], np.ndarray],
) -> Tree:
    """The masks that a selector of one layer gives for every layer.

    Layers are independent: they are chosen in threads, the largest first.

    Args:
        problem: its masks, and how many weights each layer keeps; for "global" the network is one
            layer.
        scores: a tree of (K, *w.shape), K of every weight: groups, or one.
        density: the part of ALL weights to keep.
        select: (scores (K, n), previous (n,), keep) to a mask (n,).

    Raises:
        ValueError: a density outside 0..1, trees that do not fit, and what `select` refuses.
    """
    masks = problem.masks
    layers = list(members(masks, problem.allocation).values())
    check_trees(scores, masks)
    leaves, rows = jax.tree.leaves(masks), jax.tree.leaves(scores)
    keep = list(counts(problem, density).values())
    previous = [joined(leaves, numbers) for numbers in layers]

    def choose(layer: int) -> np.ndarray:
        return select(joined(rows, layers[layer], lead=1), previous[layer], keep[layer])

    largest_first = sorted(range(len(layers)), key=lambda layer: -previous[layer].size)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        chosen = dict(zip(largest_first, pool.map(choose, largest_first), strict=True))
    return as_tree(masks, [chosen[layer] for layer in range(len(layers))])


def with_minimum(masks: Tree, chosen: Tree, scores: Tree, minimum: int) -> Tree:
    """`chosen` with at least `minimum` weights in every layer, and as many as before in all.

    A layer below it gets its highest scores among `masks`; for them the lowest scores of the
    network go, from layers that have more.

    Args:
        masks: the weights alive before.
        chosen: the choice, masks within these.
        scores: a tree of w.shape, larger is kept.
        minimum: the least number of weights of a layer.

    Example:
        >>> masks = {"a": {"kernel": np.ones(3, bool)}, "b": {"kernel": np.ones(2, bool)}}
        >>> chosen = {"a": {"kernel": np.ones(3, bool)}, "b": {"kernel": np.zeros(2, bool)}}
        >>> scores = {"a": {"kernel": np.array([3, 9, 8])}, "b": {"kernel": np.array([1, 2])}}
        >>> with_minimum(masks, chosen, scores, 1)
        {'a': {'kernel': array([False,  True,  True])}, 'b': {'kernel': array([False,  True])}}
    """
    flat = [np.array(leaf).reshape(-1) for leaf in jax.tree.leaves(chosen)]
    order = [rankable(leaf).reshape(-1) for leaf in jax.tree.leaves(scores)]
    spare = []
    added = 0
    for old, new, score in zip(jax.tree.leaves(masks), flat, order, strict=True):
        alive = np.asarray(old).reshape(-1)
        least = min(minimum, int(alive.sum()))
        missing = least - int(new.sum())
        if missing > 0:
            free = np.flatnonzero(alive & ~new)
            new[free[descending(score[free])[:missing]]] = True
            added += missing
        there = np.flatnonzero(new)
        # The best `least` of a layer are not for the taking.
        spare.append(there[np.argsort(score[there], kind="stable")[: max(there.size - least, 0)]])
    layer = np.repeat(np.arange(len(flat)), [len(places) for places in spare])
    index = np.concatenate(spare)
    lowest = np.concatenate([score[places] for score, places in zip(order, spare, strict=True)])
    for place in np.argsort(lowest, kind="stable")[:added]:
        flat[layer[place]][index[place]] = False
    return as_tree(masks, flat)
