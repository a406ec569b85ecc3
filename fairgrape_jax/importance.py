"""Per-group importance of every weight: I[k, w] = (w * dL_k/dw)^2.

Two formulas are in use. "sum-of-squares" (the default) averages the square over micro-batches, as
the official code does: near a minimum the average gradient vanishes, its square is mostly noise,
while the mean of squares approaches w^2 times the group's Fisher information. "square-of-mean" is
the paper's wording (Sec. 5.4): the square of w times the gradient of the average loss.

The scale of one group's importance drops out of FairGRAPE's relative deficit, so a mean over the
group's micro-batches stands for the sum: groups with fewer micro-batches do not shrink.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from fairgrape_jax import parallel
from fairgrape_jax.data.pipeline import GroupBatches, rows_of
from fairgrape_jax.data.types import Split
from fairgrape_jax.masks import Tree, map_masked

Formula = Literal["sum-of-squares", "square-of-mean"]
Execution = Literal["vmap", "unroll"]
Loss = Callable[..., jax.Array]  # (params, images, labels, valid) -> mean loss of the valid


def group_gradients(
    loss: Loss,
    params: Tree,
    images: jax.Array,
    labels: jax.Array,
    valid: jax.Array,
    *,
    execution: Execution = "vmap",
) -> Tree:
    """The gradient of each group's mean loss; a tree of (G, *w.shape).

    valid: (G, b) bool, the samples that belong to group k. With images (G, b, H, W, C) and labels
    (G, b, T) every group has a sub-batch of its own, which costs what the images cost; with images
    (b, H, W, C) and labels (b, T) all groups look at one mixed batch through their masks, which
    costs G gradient passes. "vmap" defines the result; "unroll" computes the same without batching
    the convolutions over groups, which XLA:CPU does slowly.
    """
    pure = images.shape[:2] == valid.shape and labels.ndim == valid.ndim + 1
    gradient = jax.grad(loss)
    if execution == "unroll":
        batches = [
            (images[k], labels[k], valid[k]) if pure else (images, labels, valid[k])
            for k in range(len(valid))
        ]
        each = [gradient(params, *batch) for batch in batches]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
    axes = (None, 0, 0, 0) if pure else (None, None, None, 0)
    return jax.vmap(gradient, axes)(params, images, labels, valid)


def group_importance(
    loss: Loss,
    params: Tree,
    masks: Tree,
    images: jax.Array,
    labels: jax.Array,
    valid: jax.Array,
    *,
    execution: Execution = "vmap",
) -> Tree:
    """I[k, w] = (w * dL_k/dw)^2 of every prunable weight; a tree of (G, *w.shape), else None.

    loss(params, images, labels, valid) is the mean loss of the valid samples; arrays as for
    `group_gradients`. A group without a valid sample gets zeros.
    Source: FairGRAPE (arXiv 2207.10888), Eq. 6, after Molchanov et al. (2019).

    >>> loss = lambda p, x, y, valid: jnp.where(valid, p["kernel"][0, 0] * x[:, 0], 0).sum()
    >>> params = {"kernel": jnp.full((1, 1), 3.0)}
    >>> masks = {"kernel": jnp.ones((1, 1), bool)}
    >>> x, y = jnp.array([[1.0], [2.0]]), jnp.zeros((2, 1), int)
    >>> valid = jnp.array([[True, False], [False, True]])
    >>> group_importance(loss, params, masks, x, y, valid)["kernel"].ravel().tolist()
    [9.0, 36.0]
    """
    gradients = group_gradients(loss, params, images, labels, valid, execution=execution)
    return weigh(masks, params, gradients)


def weigh(masks: Tree, params: Tree, gradients: Tree) -> Tree:
    """(w * g)^2 where alive, 0 where pruned, None where not prunable."""
    return map_masked(
        lambda m, w, g: None if m is None else jnp.where(m, jnp.square(w * g), 0.0),
        masks,
        params,
        gradients,
    )


def empty_sums(masks: Tree, groups: int, devices: list[jax.Device]) -> Tree:
    """Zero accumulators, a row on each device: a tree of (devices, G, *w.shape) float32."""
    return jax.tree.map(lambda m: parallel.zeros((groups, *m.shape), devices), masks)


def make_accumulate(
    make_loss: Callable[[Tree], Loss], formula: Formula, execution: Execution
) -> Callable[..., Tree]:
    """The per-device step that adds some micro-batches to the accumulators.

    make_loss(batch_stats) gives the loss under fixed running statistics. The step takes
    (sums, params, batch_stats, masks, batch), batch a dict of S micro-batches: images (S, b, ...),
    labels (S, b, T), valid (S, b), group (S,), the group that each micro-batch belongs to.
    """

    def accumulate(sums: Tree, params: Tree, batch_stats: Tree, masks: Tree, batch: Any) -> Tree:
        loss = make_loss(batch_stats)
        images, labels, valid = batch["images"], batch["labels"], batch["valid"]
        gradients = group_gradients(loss, params, images, labels, valid, execution=execution)
        if formula == "sum-of-squares":
            terms = weigh(masks, params, gradients)
        else:  # the mean over samples, not over micro-batches: the last one may be partial
            count = valid.sum(axis=1)
            terms = jax.tree.map(
                lambda g: g * count.reshape(-1, *[1] * (g.ndim - 1)).astype(g.dtype), gradients
            )
        return map_masked(
            lambda s, t: None if s is None else s.at[batch["group"]].add(t), sums, terms
        )

    return accumulate


def make_reduce(formula: Formula) -> Callable[..., Tree]:
    """The per-device step that turns accumulators into importance, with one all-reduce.

    It takes (sums, params, masks, counts), counts (G,) float32: micro-batches of each group for
    "sum-of-squares", its samples for "square-of-mean".
    """

    def reduce(sums: Tree, params: Tree, masks: Tree, counts: jax.Array) -> Tree:
        means = jax.tree.map(
            lambda s: (
                jax.lax.psum(s, parallel.AXIS)
                / jnp.maximum(counts, 1).reshape(-1, *[1] * (s.ndim - 1))
            ),
            sums,
        )
        if formula == "sum-of-squares":
            return means
        return weigh(masks, params, means)

    return reduce


def micro_batches(
    split: Split, plan: GroupBatches, devices: int, slots: int, part: tuple[int, int] = (0, 1)
) -> Iterator[dict[str, np.ndarray]]:
    """The micro-batches of `plan`, (devices, slots, b, ...) at a time; the last ones are empty.

    part: give those of one process's devices alone, (which, of how many processes).
    """
    per_call = devices * slots
    total = len(plan.group)
    padded = np.arange(math.ceil(total / per_call) * per_call)
    for start in range(0, len(padded), per_call):
        rows = rows_of(padded[start : start + per_call], part)
        real = np.minimum(rows, total - 1)
        indices = plan.indices[real]
        batch = {
            "images": split.images[indices],
            "labels": split.labels[indices],
            "valid": plan.valid[real] & (rows < total)[:, None],
            "group": plan.group[real],
        }
        yield {key: x.reshape(-1, slots, *x.shape[1:]) for key, x in batch.items()}


def counts(plan: GroupBatches, groups: int, formula: Formula) -> np.ndarray:
    """What each group's sum is divided by; (G,) float32."""
    weight = plan.valid.any(axis=1) if formula == "sum-of-squares" else plan.valid.sum(axis=1)
    return np.bincount(plan.group, weight, minlength=groups).astype(np.float32)


def layer_totals(importance: Iterable[np.ndarray]) -> list[np.ndarray]:
    """The importance of each group in each layer, summed over its weights in float64; (G,) each."""
    return [
        np.asarray(layer, np.float64).reshape(len(layer), -1).sum(axis=1) for layer in importance
    ]
