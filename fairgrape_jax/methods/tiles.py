"""Whole tiles of weights as the units of any method's choice."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Shaped

from fairgrape_jax.masks import Array, Tree, select_prunable
from fairgrape_jax.methods.base import Problem, with_units
from fairgrape_jax.selection.patterns import (
    NumpyBlocks,
    Tiles,
    as_matrix,
    blocks_of_layers,
    outputs_first,
)


def tile_problem(problem: Problem) -> Problem:
    """The same round with tiles in place of weights: what is a weight there is a tile here.

    A tile's importance is the sum of that of its weights, its weight their norm. It is alive if any
    weight is. Densities and allocations count tiles; a layer is the grid of its tiles.

    Args:
        problem: whose pattern are tiles.

    Example:
        >>> masks = {"kernel": np.ones((4, 2), bool)}
        >>> scores = {"kernel": np.arange(8.0).reshape(1, 4, 2)}
        >>> params = {"kernel": np.ones((4, 2))}
        >>> problem = Problem(params, masks, importance=lambda over: scores, pattern=Tiles(2, 2))
        >>> tiles = tile_problem(problem)
        >>> tiles.importance("all")
        {'kernel': array([[[ 6.],
                [22.]]])}
    """
    squares = jax.tree.map(
        lambda w: np.square(np.asarray(w, np.float64))[None],
        select_prunable(problem.masks, problem.params),
    )
    pattern = pattern_of(problem)
    return with_units(
        problem,
        functools.partial(sum_in_tiles, problem),
        pattern=None,
        masks=tile_masks(problem, problem.masks),
        alive=None if problem.alive is None else tile_masks(problem, problem.alive),
        params=jax.tree.map(lambda row: np.sqrt(row[0]), sum_in_tiles(problem, squares)),
        minimum=math.ceil(problem.minimum / (pattern.inputs * pattern.outputs)),
    )


def sum_in_tiles(problem: Problem, rows: Tree) -> Tree:
    """The sums over the weights of every tile, (K, rows, columns) for (K, *w.shape).

    Args:
        problem: whose pattern are tiles.
        rows: floats.
    """

    def of_layer(grid: TileNumbers, leaf: Shaped[Array, "K ..."]) -> np.ndarray:
        flat = np.asarray(leaf, np.float64).reshape(len(leaf), -1)
        sums = [np.bincount(grid.numbers, weights=row) for row in flat]
        return np.stack(sums).reshape(len(leaf), *grid.shape)

    return map_layers(of_layer, problem, rows)


def tile_masks(problem: Problem, masks: Tree) -> Tree:
    """Which tiles have a weight alive, (rows, columns) bool for every layer.

    Args:
        problem: whose pattern are tiles.
        masks: of its weights.
    """

    def of_layer(grid: TileNumbers, mask: Array) -> np.ndarray:
        alive = np.bincount(grid.numbers, weights=np.asarray(mask).reshape(-1)) > 0
        return alive.reshape(grid.shape)

    return map_layers(of_layer, problem, masks)


def weights_of_tiles(problem: Problem, chosen: Tree) -> Tree:
    """The masks of the weights that are alive in the tiles that were chosen.

    Args:
        problem: whose pattern are tiles.
        chosen: (rows, columns) bool of every layer.
    """

    def of_layer(grid: TileNumbers, stays: np.ndarray, mask: Array) -> np.ndarray:
        return stays.reshape(-1)[grid.numbers].reshape(mask.shape) & np.asarray(mask)

    return map_layers(of_layer, problem, chosen, problem.masks)


class TileNumbers(NamedTuple):
    """The tiles of a layer.

    Attributes:
        numbers: of each weight's tile.
        shape: (rows, columns) of tiles.
    """

    numbers: NumpyBlocks
    shape: tuple[int, int]


def map_layers(of_layer: Callable[..., np.ndarray], problem: Problem, *trees: Tree) -> Tree:
    """A function of a layer's tiles and its leaves, for every layer.

    Args:
        of_layer: (tiles, leaf of each tree) to an array.
        problem: whose pattern are tiles.
        trees: of one leaf for every layer.
    """
    pattern = pattern_of(problem)
    leaves, structure = jax.tree.flatten(problem.masks)
    results = []
    numbers = blocks_of_layers(pattern, problem.masks)
    layers = zip(
        leaves, outputs_first(problem.masks), numbers, *map(jax.tree.leaves, trees), strict=True
    )
    for mask, first, of_mask, *parts in layers:
        inputs, outputs = as_matrix(mask, first).shape
        shape = -(-inputs // pattern.inputs), -(-outputs // pattern.outputs)
        results.append(of_layer(TileNumbers(of_mask, shape), *parts))
    return jax.tree.unflatten(structure, results)


def pattern_of(problem: Problem) -> Tiles:
    """The tiles of a problem that has some.

    Args:
        problem: the network at the start of a round.
    """
    assert isinstance(problem.pattern, Tiles)
    return problem.pattern
