"""GraSP: keep the weights whose removal would reduce the flow of gradient."""

from __future__ import annotations

from typing import Any

import jax

from fairgrape_jax import losses
from fairgrape_jax.masks import Tree, map_masked, select_prunable
from fairgrape_jax.methods.base import Problem
from fairgrape_jax.methods.snip import xavier
from fairgrape_jax.scoring.importance import at_least_float32
from fairgrape_jax.scoring.statistics import ScoredNetwork, Statistic

TEMPERATURE = 200.0  # logits are divided by it (the official code's T)


def score(problem: Problem) -> Tree:
    """w * Hg, H the Hessian and g the gradient of the mean loss of tempered logits.

    The weights of largest -w * Hg are removed. Samples are balanced over the classes. With
    `official`, of a copy whose dense layers are Xavier-initialised, as in the official code.
    Source: Wang, Zhang, Grosse, "Picking Winning Tickets Before Training by Preserving Gradient
    Flow" (ICLR 2020), Eq. 8, and its code.

    >>> import numpy as np
    >>> kernel, mask = {"kernel": np.array([[-2.0, 1.0]])}, {"kernel": np.ones((1, 2), bool)}
    >>> rows = {"kernel": np.array([[[0.5, 3.0]]])}
    >>> given = Problem(kernel, mask, None, average=lambda statistic, **options: rows)
    >>> score(given)
    {'kernel': array([[-1.,  3.]])}
    """
    params = xavier(problem, most=2) if problem.official else problem.params
    how = {"over": "classes", "params": params}
    first = jax.tree.map(lambda g: g[0], problem.average(TEMPERED, **how))
    product = problem.average(HESSIAN, given=first, **how)
    return map_masked(
        lambda m, w, h: None if m is None else at_least_float32(w) * h[0],
        problem.masks,
        params,
        product,
    )


def tempered(network: ScoredNetwork, params: Tree, batch: Any) -> jax.Array:
    """The mean loss of the valid samples, with logits divided by TEMPERATURE."""
    logits = network.logits(params, batch["images"]) / TEMPERATURE
    each = losses.cross_entropy(logits, batch["labels"], network.classes)
    return losses.masked_mean(each, batch["valid"])


def _gradient(network: ScoredNetwork, params: Tree, masks: Tree, batch: Any, given: Any) -> Tree:
    gradient = jax.grad(lambda p: tempered(network, p, batch))(params)
    return map_masked(lambda m, g: None if m is None else m.astype(g.dtype) * g, masks, gradient)


def _hessian(network: ScoredNetwork, params: Tree, masks: Tree, batch: Any, given: Tree) -> Tree:
    """H times `given`, which moves the weights alone: not biases, not what is pruned."""

    def gradient(weights: Tree) -> Tree:
        whole = map_masked(lambda m, p, w: p if m is None else w, masks, params, weights)
        return select_prunable(masks, jax.grad(lambda p: tempered(network, p, batch))(whole))

    return jax.jvp(gradient, (select_prunable(masks, params),), (given,))[1]


TEMPERED = Statistic("sample", of_network=_gradient)
HESSIAN = Statistic("sample", of_network=_hessian)
