"""SynFlow: prune without data, by how much of a linearised network's output flows through."""

from __future__ import annotations

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.tree_util import KeyPath

from fairgrape_jax.errors import UsageError
from fairgrape_jax.masks import Tree, apply_masks, map_masked
from fairgrape_jax.methods.base import Problem

# Inputs so small that of an activation only its slope at 0+ is left: 1 for ReLU, ReLU6 and tanh.
# The gains of a hundred layers have room in float64 on either side.
SMALL = 1e-100


def score(problem: Problem) -> Tree:
    """|w| * dR/d|w|, R the sum of the outputs of the linearised network for an input of ones.

    Linearised: absolute weights, no biases, activations by their slope at 0+; batch norm keeps its
    scale |gamma| / sigma and loses its shift. In float64 on the host, because R multiplies the
    gains of all layers; scores are scaled to a largest one of 1.

    Args:
        problem: the network at the start of the round.

    Raises:
        UsageError: without a host device.

    Source:
        Tanaka et al., "Pruning neural networks without any data by iteratively conserving synaptic
        flow" (NeurIPS 2020), Eqs. 1 and 3.

    Example:
        >>> params = {"kernel": jnp.array([[-2.0], [1.0]]), "bias": jnp.ones(1)}
        >>> mask = {"kernel": jnp.ones((2, 1), bool), "bias": None}
        >>> problem = Problem(params, mask, None, module=nn.Dense(1), batch_stats={}, shape=(2,))
        >>> score(problem)["kernel"]
        array([[1. ],
               [0.5]])
    """
    try:
        host = jax.local_devices(backend="cpu")[0]
    except RuntimeError as error:
        raise UsageError("synflow: works on the host; let JAX_PLATFORMS name cpu too") from error
    assert problem.module is not None
    trees = jax.device_get((problem.params, problem.batch_stats, problem.masks))
    with jax.enable_x64(True), jax.default_device(host):
        module = problem.module.clone(dtype=jnp.float64)
        return jax.device_get(_flow(module, problem.shape, *jax.device_put(trees, host)))


@partial(jax.jit, static_argnums=(0, 1))
def _flow(
    module: nn.Module, shape: tuple[int, ...], params: Tree, batch_stats: Tree, masks: Tree
) -> Tree:
    names = jax.tree_util.tree_map_with_path
    linear = names(lambda path, p: _no_shift(path, p.astype(jnp.float64)), params)
    stats = names(lambda path, s: _no_shift(path, s.astype(jnp.float64)), batch_stats)
    linear = apply_masks(masks, linear)

    def flow(linear: Tree) -> jax.Array:
        ones = jnp.full((1, *shape), SMALL)
        outputs: Any = module.apply({"params": linear, "batch_stats": stats}, ones)
        return outputs.sum()

    gradient = jax.grad(flow)(linear)
    scores = map_masked(lambda m, w, g: None if m is None else w * g, masks, linear, gradient)
    largest = jnp.stack([leaf.max() for leaf in jax.tree.leaves(scores)]).max()
    return jax.tree.map(lambda leaf: leaf / jnp.where(largest > 0, largest, 1), scores)


def _no_shift(path: KeyPath, leaf: jax.Array) -> jax.Array:
    return jnp.zeros_like(leaf) if path[-1].key in ("bias", "mean") else jnp.abs(leaf)
