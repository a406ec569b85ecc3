"""From scores to masks: the part that all methods share."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from fairgrape_jax.errors import TrainingError
from fairgrape_jax.masks import Tree, check_density, layer_names
from fairgrape_jax.methods import tiles
from fairgrape_jax.methods.base import Method, Problem
from fairgrape_jax.selection import allocate, descending, select_first
from fairgrape_jax.selection.allocation import is_global
from fairgrape_jax.selection.counts import as_tree, check_trees, joined, members
from fairgrape_jax.selection.inputs import on_host, rankable
from fairgrape_jax.selection.patterns import (
    NofM,
    Pattern,
    Tiles,
    blocks_of_layers,
    joined_blocks,
    limits,
)
from fairgrape_jax.selection.within import rank_in_block, select_first_within


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
    if problem.pattern is not None and method.counts is not None:
        raise ValueError(f"pattern: {problem.pattern} is none for whole filters; leave it out")
    if isinstance(problem.pattern, Tiles):
        return tiles.weights_of_tiles(problem, _prune_tiles(method, problem, density))
    fill = is_global(problem.allocation) and problem.minimum > 0
    scores: Tree = None
    if method.choose is None or fill:
        scores = check_finite(method.score(problem), problem.masks)
    if method.choose is None:
        chosen = choose_highest(problem, scores, density)
    else:
        chosen = method.choose(problem, density)
    if fill:
        chosen = with_minimum(problem.masks, chosen, scores, problem.minimum, problem.pattern)
    return chosen


def choose_highest(problem: Problem, scores: Tree, density: float) -> Tree:
    """The weights of highest score, ties to the lower index.

    Args:
        problem: the network at the start of the round.
        scores: a tree of w.shape.
        density: the part of ALL weights to keep.
    """
    rows = jax.tree.map(lambda leaf: leaf[None], scores)
    select = select_first if problem.pattern is None else select_first_within
    return prune_layers(problem, rows, density, select)


def _prune_tiles(method: Method, problem: Problem, density: float) -> Tree:
    """The tiles that stay: scores of weights are summed, other choices made among tiles."""
    method = with_unit_scores(method, problem, functools.partial(tiles.sum_in_tiles, problem))
    return prune(method, tiles.tile_problem(problem), density)


def with_unit_scores(method: Method, problem: Problem, sum_rows: Callable[[Tree], Tree]) -> Method:
    """A method with scores of units, the sums of its scores of weights.

    As it is where it has a choice of its own, which looks at sums of importance.

    Args:
        method: a row of the table.
        problem: the round, of weights.
        sum_rows: as for `with_units`.

    Raises:
        TrainingError: a score is NaN or infinite.
    """
    if method.choose is not None:
        return method
    scores = check_finite(method.score(problem), problem.masks)
    rows = sum_rows(jax.tree.map(lambda leaf: leaf[None], scores))
    of_units = jax.tree.map(lambda row: row[0], rows)
    return dataclasses.replace(method, score=lambda _: of_units)


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
        most=capacities(problem, density),
    )


def capacities(problem: Problem, density: float) -> list[int]:
    """How many weights each layer can keep within N:M; nothing without it, or at a density above.

    Args:
        problem: the network at the start of the round.
        density: the part of ALL weights to keep.

    Example:
        >>> masks = {"kernel": np.ones((8, 1), bool)}
        >>> capacities(Problem(None, masks, pattern=NofM(1, 4)), 0.25)
        [2]
    """
    pattern, leaves = problem.pattern, jax.tree.leaves(problem.masks)
    if not isinstance(pattern, NofM) or density > pattern.kept / pattern.of:
        return []
    numbers = blocks_of_layers(pattern, problem.masks)
    return [
        int(np.minimum(np.bincount(blocks[mask.reshape(-1)]), pattern.kept).sum())
        for blocks, mask in zip(numbers, leaves, strict=True)
    ]


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
    select: Callable[..., np.ndarray],
) -> Tree:
    """The masks that a selector of one layer gives for every layer.

    Layers are independent: they are chosen in threads, the largest first.

    Args:
        problem: its masks, and how many weights each layer keeps; for "global" the network is one
            layer.
        scores: a tree of (K, *w.shape), K of every weight: groups, or one.
        density: the part of ALL weights to keep.
        select: (scores (K, n), previous (n,), keep) to a mask (n,), and for a round with a pattern
            of N:M, whose `Limits` are a fourth argument.

    Raises:
        ValueError: a density outside 0..1, trees that do not fit, and what `select` refuses.
    """
    masks = problem.masks
    layers = list(members(masks, problem.allocation).values())
    check_trees(scores, masks)
    leaves, rows = jax.tree.leaves(masks), jax.tree.leaves(scores)
    keep = list(counts(problem, density).values())
    numbers = blocks_of_layers(problem.pattern, masks) if problem.pattern else []
    previous = [joined(leaves, numbers) for numbers in layers]

    def choose(layer: int) -> np.ndarray:
        known = joined(rows, layers[layer], lead=1), previous[layer], keep[layer]
        if not isinstance(problem.pattern, NofM):
            return select(*known)
        blocks = joined_blocks([numbers[leaf] for leaf in layers[layer]])
        return select(*known, limits(problem.pattern, blocks, *known[1:]))

    largest_first = sorted(range(len(layers)), key=lambda layer: -previous[layer].size)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        chosen = dict(zip(largest_first, pool.map(choose, largest_first), strict=True))
    return as_tree(masks, [chosen[layer] for layer in range(len(layers))])


def with_minimum(
    masks: Tree, chosen: Tree, scores: Tree, minimum: int, pattern: Pattern | None = None
) -> Tree:
    """`chosen` with at least `minimum` weights in every layer, and as many as before in all.

    A layer below it gets its highest scores among `masks` that its blocks have room for; for them
    the lowest scores of the network go, from layers that have more.

    Args:
        masks: the weights alive before.
        chosen: the choice, masks within these.
        scores: a tree of w.shape, larger is kept.
        minimum: the least number of weights of a layer.
        pattern: of the round.

    Example:
        >>> masks = {"a": {"kernel": np.ones(3, bool)}, "b": {"kernel": np.ones(2, bool)}}
        >>> chosen = {"a": {"kernel": np.ones(3, bool)}, "b": {"kernel": np.zeros(2, bool)}}
        >>> scores = {"a": {"kernel": np.array([3, 9, 8])}, "b": {"kernel": np.array([1, 2])}}
        >>> with_minimum(masks, chosen, scores, 1)
        {'a': {'kernel': array([False,  True,  True])}, 'b': {'kernel': array([False,  True])}}
    """
    flat = [np.array(leaf).reshape(-1) for leaf in jax.tree.leaves(chosen)]
    order = [rankable(leaf).reshape(-1) for leaf in jax.tree.leaves(scores)]
    none = [np.zeros(0, np.int64)] * len(flat)
    numbers = blocks_of_layers(pattern, masks) if isinstance(pattern, NofM) else none
    spare = []
    added = 0
    for old, new, score, blocks in zip(jax.tree.leaves(masks), flat, order, numbers, strict=True):
        alive = np.asarray(old).reshape(-1)
        least = min(minimum, int(alive.sum()))
        missing = least - int(new.sum())
        if missing > 0:
            free = np.flatnonzero(alive & ~new)
            free = free[descending(score[free])]
            if isinstance(pattern, NofM):
                taken = np.bincount(blocks[new], minlength=blocks.max() + 1)[blocks[free]]
                free = free[taken + rank_in_block(blocks[free]) < pattern.kept]
            new[free[:missing]] = True
            added += len(free[:missing])
        there = np.flatnonzero(new)
        # The best `least` of a layer are not for the taking.
        spare.append(there[np.argsort(score[there], kind="stable")[: max(there.size - least, 0)]])
    layer = np.repeat(np.arange(len(flat)), [len(places) for places in spare])
    index = np.concatenate(spare)
    lowest = np.concatenate([score[places] for score, places in zip(order, spare, strict=True)])
    for place in np.argsort(lowest, kind="stable")[:added]:
        flat[layer[place]][index[place]] = False
    return as_tree(masks, flat)
