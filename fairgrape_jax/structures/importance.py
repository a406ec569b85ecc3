"""What a structure matters to each group: the sum over its weights, or the square of their sum."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import KeyPath

from fairgrape_jax.kernels import is_array
from fairgrape_jax.masks import Tree
from fairgrape_jax.structures.coupling import Structures


def by_path(tree: Tree) -> dict[str, Any]:
    """The leaves of a tree that are not None, by their paths.

    Args:
        tree: any pytree.
    """
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in flat}


def sum_importance(structures: Structures, scores: Tree) -> dict[str, np.ndarray]:
    """The sum of scores over all weights of each structure, those of coupled layers among them.

    A weight between two structures counts for both, and once where both are the same.

    Args:
        structures: of the network.
        scores: (G, *w.shape) of every weight that counts, for example as `average_importance` gives
            them: a tree of the structure of the parameters, None for leaves that do not count.

    Returns:
        (G, structures) float64 for each group of structures.

    Raises:
        ValueError: scores that are not of this network, or that are not finite.

    Source:
        Molchanov et al. (CVPR 2019), Eq. 8 summed over the weights of a filter; coupled layers
        after Fang et al. (2023).

    Example:
        >>> from fairgrape_jax.structures import find_structures
        >>> params = {"a": np.ones((2, 3)), "b": np.ones((3, 1))}
        >>> structures = find_structures(lambda p, x: x @ p["a"] @ p["b"], params, np.ones((1, 2)))
        >>> scores = {"a": np.arange(6.0).reshape(1, 2, 3), "b": np.array([[[10.0], [20], [30]]])}
        >>> sum_importance(structures, scores)
        {'a': array([[13., 25., 37.]])}
    """
    leaves = by_path(scores)
    shapes = [leaf.shape for leaf in jax.tree.leaves(structures.params) if is_array(leaf)]
    if unknown := [name for name in leaves if name not in structures.names]:
        raise ValueError(
            f"scores: {unknown[0]!r} is no array of the network, whose arrays are "
            f"{', '.join(structures.names[:6])}, ..."
        )
    if not leaves:
        raise ValueError("scores: are all None")
    total = sum(group.size for group in structures.groups)
    result: np.ndarray | None = None
    for name, shape, owners in zip(structures.names, shapes, structures.owners, strict=True):
        if name not in leaves:
            continue
        rows = np.asarray(jax.device_get(leaves[name]), np.float64)
        if rows.shape[1:] != shape or (result is not None and len(rows) != len(result)):
            raise ValueError(
                f"scores of {name}: {rows.shape} is not (G, *{shape}), groups first and equally "
                "many everywhere"
            )
        if not np.isfinite(rows).all():
            raise ValueError(f"scores of {name}: are not finite")
        if result is None:
            result = np.zeros((len(rows), total))
        _add(result, rows, owners)
    assert result is not None
    ends = np.cumsum([group.size for group in structures.groups])[:-1]
    parts = np.split(result, ends, axis=1)
    return {group.name: part for group, part in zip(structures.groups, parts, strict=True)}


def _add(result: np.ndarray, rows: np.ndarray, owners: tuple[np.ndarray, ...]) -> None:
    """Add the scores of one array to those of its structures."""
    axes = [axis for axis, owner in enumerate(owners) if (owner >= 0).any()]

    def over_others(*kept: int) -> np.ndarray:
        return rows.sum(axis=tuple(i + 1 for i in range(len(owners)) if i not in kept))

    for axis in axes:
        there = owners[axis] >= 0
        np.add.at(result.T, owners[axis][there], over_others(axis)[:, there].T)
    for a, b in itertools.combinations(axes, 2):
        i, j = np.nonzero((owners[a][:, None] == owners[b]) & (owners[a][:, None] >= 0))
        if len(i):
            np.subtract.at(result.T, owners[a][i], over_others(a, b)[:, i, j].T)


def alive_structures(structures: Structures, weights: Tree) -> dict[str, np.ndarray]:
    """Which structures have a weight that is alive.

    Args:
        structures: of the network.
        weights: masks of weights, None where not prunable.

    Returns:
        (structures,) bool for each group.

    Raises:
        ValueError: masks that are not of this network.

    Example:
        >>> from fairgrape_jax.structures import find_structures
        >>> params = {"a": np.ones((1, 3)), "b": np.ones((3, 1))}
        >>> structures = find_structures(lambda p, x: x @ p["a"] @ p["b"], params, np.ones((1, 1)))
        >>> weights = {"a": np.array([[True, False, False]]), "b": np.zeros((3, 1), bool)}
        >>> alive_structures(structures, weights)
        {'a': array([ True, False, False])}
    """
    ones = jax.tree.map(lambda mask: np.asarray(mask, np.float64)[None], weights)
    return {name: rows[0] > 0 for name, rows in sum_importance(structures, ones).items()}


def gates(structures: Structures) -> dict[str, np.ndarray]:
    """A factor of 1 for every structure, as `gated` takes them.

    Args:
        structures: of the network.

    Returns:
        (structures,) float32 ones for each group of structures.
    """
    return {group.name: np.ones(group.size, np.float32) for group in structures.groups}


def gated(structures: Structures, params: Tree, factors: Mapping[str, Any], masks: Tree) -> Tree:
    """The parameters, each weight times the factors of its structures.

    The derivative of a loss in a factor is the sum of w * g over the structure's weights, so the
    importance of a factor of 1 is the square of that sum.

    Args:
        structures: of the network.
        params: its parameters.
        factors: as `gates` makes them.
        masks: which weights count: a tree of the structure of `params`, None where one does not.

    Returns:
        A tree of the structure of `params`.
    """
    flat = jnp.concatenate(
        [*(jnp.asarray(factors[group.name]) for group in structures.groups), jnp.ones(1)]
    )
    counted = by_path(masks)
    owners = dict(zip(structures.names, structures.owners, strict=True))

    def scaled(path: KeyPath, leaf: Any) -> Any:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name not in counted or name not in owners:
            return leaf
        axes = [a for a, owner in enumerate(owners[name]) if (owner >= 0).any()]
        for count, axis in enumerate(axes):
            owner = owners[name][axis]
            factor = flat[owner].reshape(_lying(leaf.ndim, axis))
            for other in axes[:count]:  # a weight of one structure twice is scaled once
                before = owners[name][other].reshape(_lying(leaf.ndim, other))
                same = before == owner.reshape(_lying(leaf.ndim, axis))
                factor = jnp.where(same, 1, factor)
            leaf = leaf * factor.astype(leaf.dtype)
        return leaf

    return jax.tree_util.tree_map_with_path(scaled, params)


def gated_loss(
    structures: Structures, loss_fn: Callable[..., Any], params: Tree, masks: Tree
) -> Callable[..., Any]:
    """A loss as a function of the factors of structures, to be scored like one of weights.

    `average_importance(gated_loss(...), factors, full_masks(factors), batches, num_groups=G)` gives
    the square of the sum of w * g over each structure, per group.

    Args:
        structures: of the network.
        loss_fn: (params, batch) to the loss of each sample.
        params: the parameters, held fixed.
        masks: as for `gated`.

    Returns:
        (factors, batch) to the loss of each sample.

    Source:
        Molchanov et al. (CVPR 2019), Eq. 6, with gates.
    """

    def loss(factors: Any, batch: Any) -> Any:
        return loss_fn(gated(structures, params, factors, masks), batch)

    return loss


def _lying(ndim: int, axis: int) -> list[int]:
    return [-1 if i == axis else 1 for i in range(ndim)]
