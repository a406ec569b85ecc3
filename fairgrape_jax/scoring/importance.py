"""Per-group importance of every weight: I[k, w] = (w * dL_k/dw)^2.

Two formulas are in use. "sum-of-squares" (the default) averages the square over micro-batches, as
the official code does: near a minimum the average gradient vanishes, its square is mostly noise,
while the mean of squares approaches w^2 times the group's Fisher information. "square-of-mean" is
the paper's wording (Sec. 5.4): the square of w times the gradient of the average loss.

The scale of one group's importance drops out of FairGRAPE's relative deficit, so a mean over the
group's micro-batches stands for the sum: groups with fewer micro-batches do not shrink.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from fairgrape_jax.masks import Tree, map_masked

Formula = Literal["sum-of-squares", "square-of-mean"]
Execution = Literal["vmap", "unroll", "scan"]
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
    costs G gradient passes. "vmap" defines the result; "unroll" and "scan" (a loop) give the
    same, a group at a time.
    """
    pure = images.shape[:2] == valid.shape and labels.ndim == valid.ndim + 1
    of_groups = (images, labels, valid) if pure else (valid,)

    def gradient(*own: jax.Array) -> Tree:
        return jax.grad(loss)(params, *(own if pure else (images, labels, *own)))

    if execution == "vmap":
        return jax.vmap(gradient)(*of_groups)
    if execution == "scan":
        return jax.lax.map(lambda own: gradient(*own), of_groups)
    each = [gradient(*(x[k] for x in of_groups)) for k in range(len(valid))]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)


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


def mixed_gradients(
    loss: Loss,
    params: Tree,
    images: jax.Array,
    labels: jax.Array,
    members: jax.Array,
) -> tuple[jax.Array, Callable[[jax.Array], Tree]]:
    """The mean loss of each group in one mixed batch, (G,), and the way back to its gradient.

    images (b, H, W, C), labels (b, T), members (G, b) bool. There is one forward pass; the
    function that is returned takes a group's number and makes one backward pass. `loss` takes
    members as `valid` and gives (G,): with batch statistics, which all samples share, this is not
    the same as a batch per group.
    """
    means, pull = jax.vjp(lambda params: loss(params, images, labels, members), params)

    def gradient(group: jax.Array) -> Tree:
        return pull(jax.nn.one_hot(group, len(members), dtype=means.dtype))[0]

    return means, gradient


def layer_totals(importance: Iterable[np.ndarray]) -> list[np.ndarray]:
    """The importance of each group in each layer, summed over its weights in float64; (G,) each."""
    return [
        np.asarray(layer, np.float64).reshape(len(layer), -1).sum(axis=1) for layer in importance
    ]
