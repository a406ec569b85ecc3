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
from jaxtyping import Bool, Float, Float64, Int, PyTree, Shaped

from fairgrape_jax.masks import Array, Masks, Tree, map_masked

Formula = Literal["sum-of-squares", "square-of-mean"]
Execution = Literal["vmap", "unroll", "scan"]
Form = Literal["pure", "mixed"]
Loss = Callable[..., jax.Array]  # (params, images, labels, valid) -> mean loss of the valid


def group_gradients(
    loss: Loss,
    params: Tree,
    *,
    images: Array,
    labels: Array,
    members: Bool[Array, "G b"] | Int[Array, " b"],
    form: Form,
    num_groups: int | None = None,
    execution: Execution = "vmap",
) -> Tree:
    """The gradient of each group's mean loss.

    What the arrays are is named, and never guessed from their shapes.

    Args:
        loss: (params, images, labels, valid) to the mean loss of the valid samples.
        params: any pytree.
        images: of form "pure" (G, b, ...), a sub-batch for every group, which costs what the images
            cost; of form "mixed" (b, ...), one batch that all groups look at, which costs G
            gradient passes.
        labels: (G, b, ...) or (b, ...) likewise.
        members: which samples belong to each group and count, (G, b) bool; of form "mixed" also the
            group of each sample, (b,) integers, -1 for none.
        form: "pure" or "mixed".
        num_groups: G; needed where `members` are integers.
        execution: "vmap" defines the result; "unroll" and "scan" (a loop) give the same, a group at
            a time.

    Returns:
        A tree of (G, *w.shape).

    Raises:
        ValueError: arrays that are not of this form; integers outside -1..G-1.
    """
    belongs = membership(members, form, num_groups)
    check_form(form, images, labels, belongs)
    of_groups = (images, labels, belongs) if form == "pure" else (belongs,)

    def gradient(*batch: jax.Array) -> Tree:
        return jax.grad(loss)(params, *(batch if form == "pure" else (images, labels, *batch)))

    if not len(belongs):
        return jax.tree.map(lambda leaf: jnp.zeros((0, *leaf.shape), leaf.dtype), params)
    if execution == "vmap":
        return jax.vmap(gradient)(*of_groups)
    if execution == "scan":
        return jax.lax.map(lambda batch: gradient(*batch), of_groups)
    each = [gradient(*(x[k] for x in of_groups)) for k in range(len(belongs))]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)


def membership(
    members: Bool[Array, "G b"] | Int[Array, " b"], form: Form, num_groups: int | None = None
) -> Bool[Array, "G b"]:
    """Which samples belong to each group, from that or from the group of each sample.

    Args:
        members: as for `group_gradients`.
        form: likewise.
        num_groups: likewise.

    Raises:
        ValueError: as `group_gradients`.

    Example:
        >>> membership(np.array([1, 0, -1]), "mixed", 2).tolist()
        [[False, True, False], [True, False, False]]
    """
    if form not in ("pure", "mixed"):
        raise ValueError(f"form: {form!r} is neither 'pure' nor 'mixed'")
    dtype, shape = jnp.result_type(members), np.shape(members)
    if jnp.issubdtype(dtype, jnp.bool_) and len(shape) == 2:
        if num_groups not in (None, shape[0]):
            raise ValueError(f"members {shape}: {shape[0]} groups, but num_groups is {num_groups}")
        return members
    if not (form == "mixed" and jnp.issubdtype(dtype, jnp.integer) and len(shape) == 1):
        more = ", or the group of each sample, (b,) integers" if form == "mixed" else ""
        raise ValueError(
            f"members: {dtype} of shape {shape}; for form {form!r} they are (G, b) bool, who "
            f"belongs to each group{more}"
        )
    if num_groups is None:
        raise ValueError("num_groups: how many groups are there? Integers do not tell")
    if not isinstance(members, jax.core.Tracer):
        ids = np.asarray(jax.device_get(members))
        if ids.size and not (ids.min() >= -1 and ids.max() < num_groups):
            raise ValueError(
                f"members: groups {ids.min()} to {ids.max()}; 0 to {num_groups - 1} are expected, "
                "and -1 for none"
            )
    return members.astype(np.int32)[None] == np.arange(num_groups, dtype=np.int32)[:, None]


def check_form(form: Form, images: Array, labels: Array, members: Array) -> None:
    """ValueError unless the arrays of a batch are of this form; members: (G, b).

    Args:
        form: pure or mixed.
        images: a batch.
        labels: likewise.
        members: (G, b), who belongs to each group.
    """
    lead = members.shape if form == "pure" else members.shape[1:]
    for name, array in (("images", images), ("labels", labels)):
        if np.shape(array)[: len(lead)] != lead:
            expected = "(G, b, ...)" if form == "pure" else "(b, ...)"
            raise ValueError(
                f"{name} {np.shape(array)}: for form {form!r} and members {members.shape} they are "
                f"{expected}, beginning with {lead}"
            )


def group_importance(
    loss: Loss,
    params: Tree,
    masks: Masks,
    *,
    images: Array,
    labels: Array,
    members: Bool[Array, "G b"] | Int[Array, " b"],
    form: Form,
    num_groups: int | None = None,
    execution: Execution = "vmap",
) -> PyTree[Float[jax.Array, "_G ..."]]:
    """I[k, w] = (w * dL_k/dw)^2 of every prunable weight.

    Args:
        loss: (params, images, labels, valid) to the mean loss of the valid samples.
        params: any pytree.
        masks: bool leaves of the shapes of the parameters, None where not prunable.
        images: as all that follows, as for `group_gradients`.
        labels: likewise.
        members: likewise.
        form: likewise.
        num_groups: likewise.
        execution: likewise.

    Returns:
        A tree of (G, *w.shape), None where not prunable: float32, float64 of such parameters. A
        group without a valid sample has zeros.

    Raises:
        ValueError: as `group_gradients`.

    Source:
        FairGRAPE (arXiv 2207.10888), Eq. 6, after Molchanov et al. (2019).

    Example:
        >>> loss = lambda p, x, y, valid: jnp.where(valid, p["kernel"][0, 0] * x[:, 0], 0).sum()
        >>> params, masks = {"kernel": jnp.full((1, 1), 3.0)}, {"kernel": jnp.ones((1, 1), bool)}
        >>> x, y, groups = jnp.array([[1.0], [2.0]]), jnp.zeros(2, int), jnp.array([0, 1])
        >>> batch = {"images": x, "labels": y, "members": groups, "num_groups": 2}
        >>> group_importance(loss, params, masks, form="mixed", **batch)["kernel"].ravel().tolist()
        [9.0, 36.0]
    """
    gradients = group_gradients(
        loss,
        params,
        images=images,
        labels=labels,
        members=members,
        form=form,
        num_groups=num_groups,
        execution=execution,
    )
    return weigh(masks, params, gradients)


def weigh(masks: Masks, params: Tree, gradients: Tree) -> PyTree[Float[jax.Array, " ..."]]:
    """(w * g)^2 where alive, 0 where pruned, None where not prunable.

    In float32 at least: the square of a half float soon vanishes.

    Args:
        masks: bool leaves of w.shape, None where not prunable.
        params: (*w.shape).
        gradients: (*w.shape), or (G, *w.shape).
    """

    def square(mask: Array | None, weights: Array, gradient: Array) -> jax.Array | None:
        if mask is None:
            return None
        if gradient.ndim > weights.ndim:
            mask, weights = mask[None], weights[None]
        scores = jnp.square(at_least_float32(weights) * at_least_float32(gradient))
        return jnp.where(mask, scores, jnp.zeros_like(scores))

    return map_masked(square, masks, params, gradients)


def at_least_float32(array: Array) -> Array:
    """Floats of less than 32 bits as float32; others as they are.

    Args:
        array: of any float dtype.

    Example:
        >>> at_least_float32(jnp.ones(1, jnp.bfloat16)).dtype, at_least_float32(np.ones(1)).dtype
        (dtype('float32'), dtype('float64'))
    """
    return array.astype(jnp.float32) if array.dtype.itemsize < 4 else array


def mixed_gradients(
    loss: Loss,
    params: Tree,
    images: Shaped[Array, "b ..."],
    labels: Shaped[Array, "b ..."],
    members: Bool[Array, "G b"],
) -> tuple[Float[jax.Array, " G"], Callable[[Array], Tree]]:
    """The mean loss of each group in one mixed batch, and the way back to its gradient.

    There is one forward pass.

    Args:
        loss: takes members as `valid` and gives (G,): with batch statistics, which all samples
            share, this is not the same as a batch per group.
        params: any pytree.
        images: one batch.
        labels: likewise.
        members: who belongs to each group.

    Returns:
        The mean losses, and a function that takes a group's number and makes one backward pass.
    """
    means, pull = jax.vjp(lambda params: loss(params, images, labels, members), params)

    def gradient(group: Array) -> Tree:
        return pull(jax.nn.one_hot(group, len(members), dtype=means.dtype))[0]

    return means, gradient


def layer_totals(
    importance: Iterable[Float[Array, "G ..."]],
) -> list[Float64[np.ndarray, " G"]]:
    """The importance of each group in each layer, summed over its weights in float64.

    Args:
        importance: of each layer.

    Example:
        >>> layer_totals([np.array([[[1.0, 2], [3, 4]], [[0, 1], [0, 1]]])])
        [array([10.,  2.])]
    """
    return [
        np.asarray(layer, np.float64).reshape(len(layer), -1).sum(axis=1) for layer in importance
    ]
