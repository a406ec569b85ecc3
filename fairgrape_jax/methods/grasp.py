"""GraSP: keep the weights whose removal would reduce the flow of gradient."""

from __future__ import annotations

import jax

from fairgrape_jax import losses
from fairgrape_jax.masks import Tree, map_masked, select_prunable
from fairgrape_jax.methods.base import Problem
from fairgrape_jax.methods.snip import xavier_copy
from fairgrape_jax.scoring.importance import at_least_float32
from fairgrape_jax.scoring.statistics import MicroBatch, ScoredNetwork, Statistic

TEMPERATURE = 200.0  # logits are divided by it (the official code's T)


def score(problem: Problem) -> Tree:
    """w * Hg, H the Hessian and g the gradient of the mean loss of tempered logits.

    The weights of largest -w * Hg are removed. Samples are balanced over the classes. With
    `official`, of a copy whose dense layers are Xavier-initialised, as in the official code.

    Args:
        problem: the network at the start of the round.

    Source:
        Wang, Zhang, Grosse, "Picking Winning Tickets Before Training by Preserving Gradient Flow"
        (ICLR 2020), Eq. 8, and its code.

    Example:
        >>> import numpy as np
        >>> kernel = {"kernel": np.array([[-2.0, 1.0]])}
        >>> mask = {"kernel": np.ones((1, 2), bool)}
        >>> rows = {"kernel": np.array([[[0.5, 3.0]]])}
        >>> score(Problem(kernel, mask, None, average=lambda statistic, **options: rows))
        {'kernel': array([[-1.,  3.]])}
    """
    params = xavier_copy(problem, dimensions=2) if problem.official else problem.params
    gradient = problem.average(TEMPERED, over="classes", params=params)
    first = jax.tree.map(lambda g: g[0], gradient)
    product = problem.average(HESSIAN, over="classes", params=params, extra=first)
    return map_masked(
        lambda m, w, h: None if m is None else at_least_float32(w) * h[0],
        problem.masks,
        params,
        product,
    )


def tempered_loss(network: ScoredNetwork, params: Tree, batch: MicroBatch) -> jax.Array:
    """The mean loss of the valid samples, with logits divided by TEMPERATURE.

    Args:
        network: that is scored.
        params: its parameters.
        batch: a micro-batch.
    """
    logits = network.logits(params, batch["images"]) / TEMPERATURE
    each = losses.cross_entropy(logits, batch["labels"], network.classes)
    return losses.masked_mean(each, batch["valid"])


def _gradient(
    network: ScoredNetwork, params: Tree, masks: Tree, batch: MicroBatch, extra: Tree
) -> Tree:
    gradient = jax.grad(lambda p: tempered_loss(network, p, batch))(params)
    return map_masked(lambda m, g: None if m is None else m.astype(g.dtype) * g, masks, gradient)


def _hessian(
    network: ScoredNetwork, params: Tree, masks: Tree, batch: MicroBatch, extra: Tree
) -> Tree:
    """H times `extra`, which moves the weights alone: not biases, not what is pruned."""

    def gradient(weights: Tree) -> Tree:
        whole = map_masked(lambda m, p, w: p if m is None else w, masks, params, weights)
        return select_prunable(masks, jax.grad(lambda p: tempered_loss(network, p, batch))(whole))

    return jax.jvp(gradient, (select_prunable(masks, params),), (extra,))[1]


TEMPERED = Statistic("sample", of_network=_gradient)
HESSIAN = Statistic("sample", of_network=_hessian)
