"""One call that prunes any network: masks from scores, a loss, or the weights alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fairgrape_jax import masks as tree_masks
from fairgrape_jax.masks import Tree, check_masks, map_masked, select_prunable
from fairgrape_jax.methods import METHODS
from fairgrape_jax.methods.base import Method, Problem
from fairgrape_jax.methods.pruning import prune as choose
from fairgrape_jax.scoring.statistics import GRADIENT, Statistic
from fairgrape_jax.selection import Allocation
from fairgrape_jax.selection.counts import check_trees
from fairgrape_jax.selection.patterns import (
    NofM,
    Pattern,
    check_pattern,
    most_in_block,
    outputs_first,
    parse_pattern,
)

# What `prune` takes for each need of a row of METHODS.
ARGUMENTS = {
    "scores": "scores=average_importance(...)",
    "a loss": "loss_fn=, a function of the parameters",
    "a module": "module= and shape=, a Linen module with a field dtype, and an input's shape",
    "a key": "key=jax.random.key(...)",
    "a minority": "minority=, the numbers of the groups whose scores count",
    "a run": "a run: fairgrape_jax.run(experiment, directory)",
}


def prune(
    params: Tree,
    masks: Tree,
    density: float,
    *,
    method: str = "fairgrape",
    scores: Tree = None,
    loss_fn: Any = None,
    allocation: Allocation = "uniform",
    minimum: int = 0,
    pattern: Pattern | str | None = None,
    key: jax.Array | None = None,
    minority: Sequence[int] = (),
    module: Any = None,
    batch_stats: Tree = None,
    shape: Sequence[int] = (),
    order: Sequence[str] = (),
    devices: Sequence[jax.Device] = (),
) -> tuple[Tree, dict[str, Any]]:
    """The masks of the next round, with exact counts and ties to lower indices.

    They are nested in `masks`, but for methods by which weights come back (`Method.nested`).

    Args:
        params: any pytree, the network at the start of the round.
        masks: bool leaves, the weights alive; None where not prunable.
        density: the part of ALL prunable weights to keep.
        method: a row of METHODS; each needs some of the next arguments.
        scores: importance (G, *w.shape), as `average_importance` gives it. The method "importance",
            which knows no groups, takes the mean over them; scores of num_groups=1 are exact.
        loss_fn: (params) to a loss, or to a loss per sample, whose mean is taken.
        allocation: how many weights each layer keeps: "uniform", "uniform+", "erk", "lamp",
            "global", or a table of densities by the name of a layer (see `layer_names`).
        minimum: the least number of weights of a layer.
        pattern: what hardware is fast with: "2:4" or any N:M along the inputs of an output, at most
            N of every M; "1:4@128" with the M weights 128 apart (TPU lanes); "4x4", whole tiles.
            At a density above N/M the blocks keep as few more as it takes, all alike.
        key: for methods that draw.
        minority: groups of the minority methods.
        module: for methods that look into it: a Linen module, which has a field `dtype`.
        batch_stats: its running averages.
        shape: that of an input of it, without its batch.
        order: the names of the layers in the order of the network; that of the tree if empty.
        devices: over which FairGRAPE's choice is spread.

    Returns:
        Masks of NumPy arrays, and {"density", "layers": a row for each with its weights and how
        many are alive, "selection": how the choice was reached, by layer}, with a pattern of N:M
        also "most": the largest number of weights that one of its blocks keeps.

    Raises:
        ValueError: a method without what it needs, by name, or arguments that do not fit.

    Example:
        >>> params = {"kernel": np.array([[3.0, 1.0, 2.0, 4.0]], np.float32)}
        >>> masks, info = prune(params, {"kernel": np.ones((1, 4), bool)}, 0.5, method="magnitude")
        >>> masks["kernel"].tolist(), info["density"]
        ([[True, False, False, True]], 0.5)
    """
    if not METHODS.find(method):
        raise ValueError(f"method: {method!r} is none of {', '.join(METHODS)}")
    check_masks(masks, params)
    row = METHODS[method]
    there = {
        "scores": scores is not None,
        "a loss": loss_fn is not None,
        "a module": hasattr(module, "dtype") and bool(shape),
        "a key": key is not None,
        "a minority": len(minority) > 0,
        "a run": False,
    }
    check_needs(method, row, there)
    weights = jax.device_get(select_prunable(masks, params))
    alive = jax.tree.map(np.asarray, jax.device_get(masks))
    if row.counts is not None:
        _check_layout(method, masks)
    pattern = parse_pattern(pattern) if isinstance(pattern, str) else pattern
    if pattern is not None:
        check_pattern(pattern)
    open_to_all = alive if row.nested else jax.tree.map(np.ones_like, alive)
    problem = Problem(
        # What is no array stays; weights are looked at on the host.
        params=map_masked(lambda m, w, p: p if m is None else w, alive, weights, params),
        masks=open_to_all,
        alive=alive,
        importance=importance_of(scores, alive),
        average=_average(loss_fn, params, alive),
        module=module,
        batch_stats={} if batch_stats is None else batch_stats,
        shape=tuple(shape),
        key=key,
        layers=tuple(order),
        groups=0 if scores is None else len(jax.tree.leaves(scores)[0]),
        minority=tuple(minority),
        allocation=allocation,
        minimum=minimum,
        pattern=pattern,
        devices=tuple(devices),
    )
    chosen = choose(row, problem, density)
    tree_masks.check_nested(chosen, problem.masks)
    info = {
        "density": tree_masks.density(chosen),
        "layers": tree_masks.sparsity_table(chosen),
        "selection": problem.details,
    }
    if isinstance(pattern, NofM):
        info["most"] = most_in_block(pattern, chosen)
    return chosen, info


def check_needs(name: str, row: Method, there: dict[str, bool]) -> None:
    """ValueError for the first need of a method that is not met.

    Args:
        name: of the method.
        row: the method.
        there: whether each need is met.
    """
    for need in row.needs:
        if not there[need]:
            raise ValueError(f"method {name!r} needs {need}: give {ARGUMENTS[need]}")


def importance_of(scores: Tree, masks: Tree) -> Any:
    """What a problem answers where a method asks for importance, from arrays that are there.

    Args:
        scores: a tree of (G, *w.shape), or None.
        masks: which it has to fit.
    """
    if scores is None:
        return Problem.importance
    check_trees(scores, masks)

    def importance(over: Any) -> Tree:
        rows = jax.tree.map(np.asarray, jax.device_get(scores))
        if over == "groups":
            return rows
        of = slice(None) if over == "all" else list(over)
        return jax.tree.map(lambda leaf: leaf[of].mean(axis=0, keepdims=True), rows)

    return importance


def _average(loss_fn: Any, params: Tree, masks: Tree) -> Any:
    """The gradient of the loss in place of an average over samples."""

    def average(statistic: Statistic, over: Any = "all", params: Tree = params, **_: Any) -> Tree:
        if statistic is not GRADIENT:
            raise ValueError("method: looks at more than the gradient of a loss; it needs a run")
        return jax.tree.map(lambda g: g[None], loss_gradient(loss_fn, params, masks))

    return average


def loss_gradient(loss_fn: Callable[[Tree], Any], params: Tree, masks: Tree) -> Tree:
    """The gradient of the mean of `loss_fn(params)`, 0 where pruned; None where not prunable.

    Args:
        loss_fn: (params) to a loss, or to a loss per sample.
        params: any pytree.
        masks: bool leaves, None where not prunable.

    Example:
        >>> params, masks = {"w": np.ones((1, 2))}, {"w": np.array([[True, False]])}
        >>> loss_gradient(lambda params: (3 * params["w"]).sum(), params, masks)
        {'w': array([[3., 0.]], dtype=float32)}
    """
    whole = tree_masks.apply_masks(masks, params)
    weights = select_prunable(masks, whole)

    def loss(weights: Tree) -> jax.Array:
        merged = map_masked(lambda m, w, p: p if m is None else w, masks, weights, whole)
        return jnp.mean(loss_fn(merged))

    gradient = jax.device_get(jax.grad(loss)(weights))
    return map_masked(lambda m, g: None if m is None else np.where(m, g, 0), masks, gradient)


def _check_layout(method: str, masks: Tree) -> None:
    paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(masks)[0]]
    for path, is_first in zip(paths, outputs_first(masks), strict=True):
        if is_first:
            name = jax.tree_util.keystr(path)
            raise ValueError(
                f"method {method!r}: a filter is an output, the last axis of a kernel; of {name} "
                "(Equinox's order) it is the first. Transpose these weights, and name them kernel"
            )
