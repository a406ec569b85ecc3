"""FairPrune: prune what matters least to the unprivileged and most to the privileged group."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from fairgrape_jax import losses
from fairgrape_jax.errors import UsageError
from fairgrape_jax.masks import Array, Tree, map_masked, select_prunable
from fairgrape_jax.methods.base import Problem
from fairgrape_jax.scoring.importance import at_least_float32
from fairgrape_jax.scoring.statistics import MicroBatch, ScoredNetwork, Statistic

BETA = 0.33  # how much the privileged group counts, between 0 and 1


def score(problem: Problem) -> Tree:
    """w^2 / 2 * (h_0 - BETA * h_1), h_k the second derivative of the loss of the group's samples.

    0 is the unprivileged group (here `problem.minority`), 1 all the others; the smallest are
    pruned. h is estimated by the Fisher information, see FISHER.

    Args:
        problem: the network at the start of the round.

    Raises:
        UsageError: without groups of both kinds.

    Source:
        Wu et al., "FairPrune" (MICCAI 2022, arXiv 2203.02110). Checked: the abstract, and that two
        public reimplementations agree on this formula and its sign; they take h from the diagonal
        of the Hessian or of the Gauss-Newton matrix, which for cross-entropy is the Fisher
        information. Not checked: the paper's own text, and its BETA.

    Example:
        >>> import numpy as np
        >>> kernel = {"kernel": np.array([[-2.0, 1.0]])}
        >>> mask = {"kernel": np.ones((1, 2), bool)}
        >>> rows = {(0,): np.array([[[1.0, 3.0]]]), (1,): np.ones((1, 1, 2))}
        >>> problem = Problem(
        ...     kernel, mask, None, lambda statistic, over, extra: {"kernel": rows[over]},
        ...     key=jax.random.key(0), minority=(0,), groups=2
        ... )
        >>> score(problem)["kernel"].round(3)
        array([[1.34 , 1.335]])
    """
    unprivileged = problem.minority
    privileged = tuple(k for k in range(problem.groups) if k not in unprivileged)
    if not unprivileged or not privileged:
        raise UsageError("fairprune: name some of the groups as scoring.minority, not all or none")
    key = jax.random.key_data(problem.key)

    def saliency(mask: Array | None, weights: Array, *rows: Array) -> Array | None:
        if mask is None:
            return None
        h0, h1 = (row[0] for row in rows)
        return at_least_float32(weights) ** 2 / 2 * (h0 - BETA * h1)

    return map_masked(
        saliency,
        problem.masks,
        problem.params,
        problem.average(FISHER, over=unprivileged, extra=key),
        problem.average(FISHER, over=privileged, extra=key),
    )


def _fisher(
    network: ScoredNetwork, params: Tree, masks: Tree, batch: MicroBatch, extra: jax.Array
) -> Tree:
    """n (dL/dw)^2, L the mean loss of n samples with labels drawn from the network's own output.

    Its mean is the diagonal of the Fisher information: the gradients of such labels have mean 0,
    and those of different samples are independent. extra: the data of a random key.
    """
    key = jax.random.fold_in(jax.random.wrap_key_data(extra), batch["number"])
    logits = network.logits(params, batch["images"])
    heads = losses.split_heads(logits, network.classes)
    keys = jax.random.split(key, len(heads))
    drawn = [jax.random.categorical(k, head) for k, head in zip(keys, heads, strict=True)]
    labels = jnp.stack(drawn, axis=1)
    gradient = jax.grad(network.loss)(params, batch["images"], labels, batch["valid"])
    # The loss is a mean over tasks, and so is the second derivative, but not the square.
    count = batch["valid"].sum() * len(heads)

    def square(g: jax.Array) -> Any:
        wide = at_least_float32(g)
        return count.astype(wide.dtype) * wide**2

    return jax.tree.map(square, select_prunable(masks, gradient))


FISHER = Statistic("sample", of_network=_fisher)
