"""Channels by the activations that come in, layer after layer, each of the network pruned so far.

What goes are inputs of a layer, with the weights that read them; the first layer keeps its
pictures whole. A layer that starts looks at activations that the layers before it, already pruned,
send on: what a channel matters changes with them. A pass over the scoring sample for each layer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import KeyPath

from fairgrape_jax.masks import Array, Tree, apply_masks, layer_names
from fairgrape_jax.methods import units
from fairgrape_jax.methods.base import Problem
from fairgrape_jax.scoring.statistics import MicroBatch, ScoredNetwork, Statistic
from fairgrape_jax.selection import select_first, select_greedy
from fairgrape_jax.selection.counts import as_tree
from fairgrape_jax.systems.channels import activity


def _activity(
    network: ScoredNetwork, params: Tree, masks: Tree, batch: MicroBatch, extra: Tree
) -> Tree:
    """The mean |x| of each input of a layer over the valid samples, at every weight that reads it.

    1 for a layer whose inputs lie in groups, or that no module of that name has.
    """
    inputs: dict[tuple[str, ...], jax.Array] = {}

    def note(
        call: Callable[..., Tree],
        args: tuple[Tree, ...],
        kwargs: dict[str, Tree],
        context: nn.module.InterceptorContext,
    ) -> Tree:
        if context.method_name == "__call__" and args:
            inputs[context.module.path] = args[0]
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        network.logits(params, batch["images"])
    valid = jnp.asarray(batch["valid"], jnp.float32)

    def of_layer(path: KeyPath, mask: jax.Array) -> jax.Array:
        x = inputs.get(tuple(key.key for key in path[:-1]))
        if x is None or x.shape[-1] != mask.shape[-2]:
            return jnp.ones(mask.shape, jnp.float32)
        each = jax.vmap(activity)(x.astype(jnp.float32))
        mean = valid @ each / jnp.maximum(valid.sum(), 1)
        return jnp.broadcast_to(mean[:, None], mask.shape)

    return jax.tree_util.tree_map_with_path(of_layer, masks)


ACTIVITY = Statistic("sample", of_network=_activity)


def channels(problem: Problem, density: float) -> dict[str, int]:
    """How many inputs each layer keeps: what fits into its allocation, all of the first layer.

    Args:
        problem: the network at the start of the round.
        density: the part of ALL weights to keep, 0 to 1.

    Raises:
        ValueError: allocation "global", which gives no layer a number.
    """
    shares = units.layer_counts(problem, density, "channels")
    first = (problem.layers or tuple(layer_names(problem.masks)))[0]
    masks = jax.tree.leaves(problem.masks)
    result = {}
    for (name, count), mask in zip(shares.items(), masks, strict=True):
        inputs = mask.shape[-2]
        size = mask.size // inputs
        least = min(problem.minimum, mask.size)
        whole = int(_whole(mask).sum())
        single = name == first or inputs == 1
        result[name] = inputs if single else units.fitting(count, size, whole, least)
    return result


def counts(problem: Problem, density: float) -> dict[str, int]:
    """How many weights each layer keeps, of whole inputs.

    Args:
        problem: the network at the start of the round.
        density: the part of ALL weights to keep, 0 to 1.
    """
    sizes = [mask.size // mask.shape[-2] for mask in jax.tree.leaves(problem.masks)]
    return units.in_weights(channels(problem, density), sizes)


def score(problem: Problem) -> Tree:
    """The mean |x| of the input that each weight reads, in the network as it is.

    Args:
        problem: the network at the start of the round.
    """
    return jax.tree.map(lambda leaf: leaf[0], problem.average(ACTIVITY))


def choose(problem: Problem, density: float) -> Tree:
    """The inputs of largest activation, layer after layer.

    Args:
        problem: the network at the start of the round.
        density: the part of ALL weights to keep, 0 to 1.

    Source:
        Zhang, Colbert, Das (Applied Sciences 2022). There a running mean over training batches,
        here the mean over the scoring sample; there at least one channel goes, here the count is
        exact.
    """
    return _choose(problem, density, "all", select_first)


def choose_fair(problem: Problem, density: float) -> Tree:
    """The inputs that keep each group's share of the activation, layer after layer.

    Args:
        problem: the network at the start of the round.
        density: the part of ALL weights to keep, 0 to 1.
    """
    return _choose(problem, density, "groups", select_greedy)


def choose_at_once(problem: Problem, density: float) -> Tree:
    """The inputs of largest activation of all layers, of the network before the round.

    What layerwise choice is compared with: one-shot, and stepwise over the rounds of a schedule.

    Args:
        problem: the network at the start of the round.
        density: the part of ALL weights to keep, 0 to 1.
    """
    mean = problem.average(ACTIVITY)
    before = dataclasses.replace(problem, average=lambda *args, **options: mean)
    return _choose(before, density, "all", select_first)


def _choose(problem: Problem, density: float, over: str, select: Callable[..., np.ndarray]) -> Tree:
    names, keep = layer_names(problem.masks), channels(problem, density)
    chosen = [np.asarray(mask) for mask in jax.tree.leaves(problem.masks)]
    for name in problem.layers or names:
        number = names.index(name)
        mask = chosen[number]
        whole = _whole(mask)
        if keep[name] == whole.sum():
            continue
        now = as_tree(problem.masks, [layer.reshape(-1) for layer in chosen])
        params = jax.device_get(apply_masks(now, problem.params))
        mean = problem.average(ACTIVITY, over=over, params=params)
        leaf = np.asarray(jax.tree.leaves(mean)[number], np.float64)
        rows = leaf.reshape(len(leaf), -1, *mask.shape[-2:])[:, 0, :, 0]
        stays = np.asarray(select(rows * whole, whole, keep[name]))
        chosen[number] = mask & stays[:, None]
    return as_tree(problem.masks, [layer.reshape(-1) for layer in chosen])


def _whole(mask: Array) -> np.ndarray:
    """Which inputs of a layer have all their weights."""
    array = np.asarray(mask)
    return np.asarray(np.moveaxis(array, -2, 0).reshape(array.shape[-2], -1).all(axis=1))
