"""Per-group importance of any network's weights, from a function that gives a loss per sample.

The definition: I[k, w] is the mean over micro-batches of (w * dL_k/dw)^2, L_k the mean loss of the
samples of group k in the micro-batch. `group_importance` computes it as it stands, for all groups
at once (`vmap` over the groups' members), which costs a gradient pass per group.
`average_importance` gives the same to rounding: batches on the host are cut into parts of one group
each, and every sample is passed once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array as JaxArray
from jaxtyping import Bool, Float, PyTree

from fairgrape_jax.masks import Array, Masks, Tree, layer_names
from fairgrape_jax.scoring.adder import Adder, Summand, Terms, add_all, combine, mean_of_sums, zeros
from fairgrape_jax.scoring.importance import Formula
from fairgrape_jax.scoring.parts import (
    Batch,
    Form,
    checked_batches,
    membership,
    parts,
    sample_count,
)
from fairgrape_jax.scoring.sample_loss import (
    Arrays,
    SampleLoss,
    SampleNetwork,
    is_traced,
    on_device,
    split_network,
    square,
)


def group_importance(
    loss_fn: SampleLoss,
    params: Tree,
    masks: Masks,
    batch: Batch,
    groups: ArrayLike,
    *,
    num_groups: int,
    axis_name: str | None = None,
) -> PyTree[Float[jax.Array, "_G ..."]]:
    """The importance of every weight for every group in one micro-batch.

    Works inside jit, vmap, pmap and shard_map; outside it is compiled once for each `loss_fn`, so
    give the same function again, not a new lambda.

    Args:
        loss_fn: (params, batch) to the loss of each sample, (B,).
        params: any pytree; what masks do not name is held fixed, arrays or not.
        masks: bool leaves, None where not prunable; as `full_masks` gives them.
        batch: any pytree of arrays with B samples along their first axis.
        groups: (B,) int, a negative number for a sample of no group; or (G, B) bool, the members of
            every group, which may overlap.
        num_groups: G.
        axis_name: of the mapped axis over whose devices the micro-batch is spread, if it is.

    Returns:
        (w * dL_k/dw)^2, a tree of (G, *w.shape) in float32 (float64 for weights of float64); 0
        where pruned and for groups without a sample, None where not prunable.

    Raises:
        ValueError: shapes that do not fit, or a group that is not below G.

    Source:
        FairGRAPE (arXiv 2207.10888), Eq. 6, after Molchanov et al. (CVPR 2019).

    Example:
        >>> loss_fn = lambda params, x: params["w"][0, 0] * x
        >>> params = {"w": jnp.full((1, 1), 3.0)}
        >>> masks, x = {"w": np.ones((1, 1), bool)}, jnp.array([1.0, 2.0, 4.0])
        >>> scores = group_importance(loss_fn, params, masks, x, np.array([0, 1, 1]), num_groups=2)
        >>> scores["w"].ravel().tolist()
        [9.0, 81.0]
    """
    members = membership(groups, num_groups, sample_count(batch))
    arrays, network = split_network(loss_fn, params, masks)
    if is_traced((params, masks, batch, groups)):
        rows = _importance(network, arrays, batch, members, axis_name)
    else:
        rows = _jit_importance(network, *on_device((arrays, batch, members)), axis_name)
    return jax.tree.unflatten(jax.tree.structure(masks), rows)


def average_importance(
    loss_fn: SampleLoss,
    params: Tree,
    masks: Masks,
    batches: Iterable[tuple[Batch, ArrayLike]],
    *,
    num_groups: int,
    micro_batch: int | None = None,
    formula: Formula = "sum-of-squares",
    form: Form = "pure",
    devices: Sequence[jax.Device] = (),
) -> PyTree[Float[jax.Array, "_G ..."]]:
    """The importance of every weight for every group, averaged over batches.

    Inside jit the batches must be a list, and are passed in the form "vmap".

    Args:
        loss_fn: (params, batch) to the loss of each sample, (B,); give the same function in every
            round, for it is compiled once.
        params: any pytree; what masks do not name is held fixed.
        masks: bool leaves, None where not prunable.
        batches: pairs of a batch, any pytree of arrays with B samples along their first axis, and
            its groups, as for `group_importance`.
        num_groups: G.
        micro_batch: the number of samples in a micro-batch, regrouped across batches (the last of a
            group is smaller). None: the samples of a group in a batch are one.
        formula: "sum-of-squares", the mean over a group's micro-batches, or "square-of-mean" of the
            gradient of its mean loss over all samples.
        form: "pure", each sample is passed once, in parts of one group; "vmap", the definition
            above: each batch is passed once for every group.
        devices: over which micro-batches are spread, `jax.devices()` for all; none: where `params`
            lie. Each adds up its own, and there is one reduction at the end.

    Returns:
        A tree of (G, *w.shape), as `group_importance`; zeros for a group without samples.

    Raises:
        ValueError: no batches, arrays that do not fit, or importance that is not finite.

    Source:
        FairGRAPE (arXiv 2207.10888), Eq. 6 and Sec. 5.4, and its code.

    Example:
        >>> loss_fn = lambda params, x: params["w"][0, 0] * x
        >>> params, masks = {"w": jnp.full((1, 1), 3.0)}, {"w": np.ones((1, 1), bool)}
        >>> batches = [(np.array([1.0, 2.0]), np.array([0, 1])), (np.array([3.0]), np.array([0]))]
        >>> scores = average_importance(loss_fn, params, masks, batches, num_groups=2)
        >>> scores["w"].ravel().tolist()
        [45.0, 36.0]
    """
    _check_options(formula, form, micro_batch)
    arrays, network = split_network(loss_fn, params, masks)
    squares = formula == "sum-of-squares"
    if isinstance(batches, list | tuple) and is_traced((params, masks, batches)):
        if micro_batch is not None:
            raise ValueError("micro_batch: batches cannot be regrouped inside jit; give None")
        rows = _traced_average(network, arrays, batches, num_groups, squares)
        return jax.tree.unflatten(jax.tree.structure(masks), rows)
    summand = Summand(network, squares)
    adders = [Adder(summand, arrays, num_groups, device) for device in devices or [None]]
    counts = np.zeros(num_groups, np.int64)
    for part in parts(checked_batches(batches, num_groups), micro_batch, form, squares):
        counts += part.counts
        if part.start:  # a micro-batch stays on its device
            adder = min(adders, key=lambda adder: adder.load)
        adder.add(part)
    if not counts.any():
        raise ValueError("batches: are empty, or no sample is in a group")
    rows = combine(adders, counts, squares)
    for name, finite in zip(layer_names(masks), jax.device_get(_finite(rows)), strict=True):
        if not finite:
            raise ValueError(
                f"importance of layer {name}: is not finite; the loss or its gradient overflows"
            )
    return jax.tree.unflatten(jax.tree.structure(masks), rows)


def _importance(
    network: SampleNetwork,
    arrays: Arrays,
    batch: Batch,
    members: Bool[Array, "G B"],
    axis_name: str | None,
) -> list[jax.Array]:
    """(w * dL_k/dw)^2 of each layer, (G, *w.shape), as it is defined."""
    counts, local = jnp.asarray(members).sum(axis=1, dtype=jnp.float32), arrays
    if axis_name is not None:
        counts = jax.lax.psum(counts, axis_name)
        local = arrays._replace(weights=tuple(_varying(w, axis_name) for w in arrays.weights))
    scale = jnp.where(members, 1 / jnp.maximum(counts, 1)[:, None], jnp.float32(0))
    gradients = jax.vmap(lambda s: network.gradient(local, batch, s))(scale)
    if axis_name is not None:
        gradients = [jax.lax.psum(g, axis_name) for g in gradients]
    return [square(w, g) for w, g in zip(arrays.weights, gradients, strict=True)]


_jit_importance = jax.jit(_importance, static_argnums=(0, 4))


def _varying(array: jax.Array, axis_name: str) -> jax.Array:
    """Different on every device, so that its gradient is the device's, not yet their sum."""
    if axis_name in getattr(jax.typeof(array), "vma", ()):
        return array
    return jax.lax.pcast(array, axis_name, to="varying")


def _traced_average(
    network: SampleNetwork,
    arrays: Arrays,
    batches: Sequence[tuple[Batch, ArrayLike]],
    num_groups: int,
    squares: bool,
) -> list[jax.Array]:
    """The average inside jit, of each layer."""
    sums = zeros(arrays.weights, num_groups)
    total = jnp.zeros(num_groups, jnp.float32)
    if not batches:
        raise ValueError("batches: are empty")
    for batch, groups in batches:
        members = jnp.asarray(membership(groups, num_groups, sample_count(batch)))
        counts = members.sum(axis=1, dtype=jnp.float32)
        scale = members.astype(jnp.float32)
        if squares:
            scale = scale / jnp.maximum(counts, 1)[:, None]
            counts = jnp.minimum(counts, 1)
        sums = add_all(Summand(network, squares), sums, arrays, Terms(batch, scale))
        total = total + counts
    return mean_of_sums([(sums.rows, sums.lost)], total, arrays.weights, squares)


def _check_options(formula: str, form: str, micro_batch: int | None) -> None:
    if formula not in ("sum-of-squares", "square-of-mean"):
        raise ValueError(f"formula: {formula!r} is neither 'sum-of-squares' nor 'square-of-mean'")
    if form not in ("pure", "vmap"):
        raise ValueError(f"form: {form!r} is neither 'pure' nor 'vmap'")
    if micro_batch is not None and micro_batch < 1:
        raise ValueError(f"micro_batch: {micro_batch} is not at least 1")


@jax.jit
def _finite(rows: list[jax.Array]) -> list[Bool[JaxArray, ""]]:
    return [jnp.isfinite(row).all() for row in rows]
