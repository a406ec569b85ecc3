"""Per-group importance of any network's weights, from a function that gives a loss per sample.

The definition: I[k, w] is the mean over micro-batches of (w * dL_k/dw)^2, L_k the mean loss of the
samples of group k in the micro-batch. `group_importance` computes it as it stands, for all groups
at once (`vmap` over the groups' members), which costs a gradient pass per group.
`average_importance` gives the same to rounding: batches on the host are cut into parts of one group
each, and every sample is passed once.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fairgrape_jax.masks import (
    Tree,
    apply_masks,
    check_masks,
    layer_names,
    map_masked,
    native,
)
from fairgrape_jax.scoring.importance import Formula
from fairgrape_jax.scoring.parts import Form, Part, checked_batches, membership, parts, sample_count

SampleLoss = Callable[[Tree, Any], jax.Array]  # (params, batch of B samples) -> (B,)


def group_importance(
    loss_fn: SampleLoss,
    params: Tree,
    masks: Tree,
    batch: Any,
    groups: Any,
    *,
    num_groups: int,
    axis_name: str | None = None,
) -> Tree:
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
    arrays, network = _split(loss_fn, params, masks)
    if _traced((params, masks, batch, groups)):
        rows = _importance(network, *arrays, batch, members, axis_name)
    else:
        rows = _jit_importance(network, *_on_device((*arrays, batch, members)), axis_name)
    return jax.tree.unflatten(jax.tree.structure(masks), rows)


def average_importance(
    loss_fn: SampleLoss,
    params: Tree,
    masks: Tree,
    batches: Iterable[tuple[Any, Any]],
    *,
    num_groups: int,
    micro_batch: int | None = None,
    formula: Formula = "sum-of-squares",
    form: Form = "pure",
    devices: Sequence[jax.Device] = (),
) -> Tree:
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
    arrays, network = _split(loss_fn, params, masks)
    if isinstance(batches, list | tuple) and _traced((params, masks, batches)):
        if micro_batch is not None:
            raise ValueError("micro_batch: batches cannot be regrouped inside jit; give None")
        rows = _traced_average(network, arrays, batches, num_groups, formula)
        return jax.tree.unflatten(jax.tree.structure(masks), rows)
    squares = formula == "sum-of-squares"
    adders = [_Adder(network, arrays, num_groups, squares, d) for d in devices or [None]]
    terms = np.zeros(num_groups, np.int64)
    for part in parts(checked_batches(batches, num_groups), micro_batch, form, squares):
        terms += part.counts
        if part.start:  # a micro-batch stays on its device
            adder = min(adders, key=lambda adder: adder.load)
        adder.add(part)
    if not terms.any():
        raise ValueError("batches: are empty, or no sample is in a group")
    rows = _combine(adders, terms, arrays, squares)
    for name, finite in zip(layer_names(masks), jax.device_get(_finite(rows)), strict=True):
        if not finite:
            raise ValueError(
                f"importance of layer {name}: is not finite; the loss or its gradient overflows"
            )
    return jax.tree.unflatten(jax.tree.structure(masks), rows)


class _Network(NamedTuple):
    """The loss as a function of the prunable weights and the other arrays; hashable."""

    loss_fn: SampleLoss
    structure: Any
    prunable: tuple[bool, ...]
    constants: tuple[tuple[int, Any], ...]  # leaves that are no arrays, by number

    def losses(self, weights: Sequence[Any], others: Sequence[Any], batch: Any) -> jax.Array:
        """(B,) floats, at least of 32 bits."""
        constants, pruned, fixed = dict(self.constants), iter(weights), iter(others)
        leaves = [
            constants[i] if i in constants else next(pruned if prunable else fixed)
            for i, prunable in enumerate(self.prunable)
        ]
        losses = self.loss_fn(jax.tree.unflatten(self.structure, leaves), batch)
        shape, samples = jnp.shape(losses), sample_count(batch)
        if shape != (samples,) or not jnp.issubdtype(losses.dtype, jnp.floating):
            raise ValueError(
                f"loss_fn: gives {losses.dtype} {shape}; one loss for each of the {samples} "
                "samples is expected, before any mean"
            )
        return losses.astype(_wide(losses.dtype))

    def gradient(
        self, weights: Sequence[Any], others: Sequence[Any], batch: Any, scale: jax.Array
    ) -> list[jax.Array]:
        """Of the sum of the losses times `scale` (B,); samples of scale 0 take no part."""

        def total(weights: Sequence[Any]) -> jax.Array:
            losses = self.losses(weights, others, batch)
            by = scale.astype(losses.dtype)
            return (jnp.where(by != 0, losses, jnp.zeros_like(losses)) * by).sum()

        return [g.astype(_wide(g.dtype)) for g in jax.grad(total)(weights)]


def _split(
    loss_fn: SampleLoss, params: Tree, masks: Tree
) -> tuple[tuple[tuple[Any, ...], tuple[Any, ...]], _Network]:
    """The prunable weights, zero where pruned, the other arrays, and the rest of the network."""
    check_masks(masks, params)
    flags = map_masked(
        lambda mask, leaf: jax.tree.map(lambda _: mask is not None, leaf), masks, params
    )
    leaves, structure = jax.tree.flatten(_on_device(apply_masks(masks, _on_device(params))))
    prunable = tuple(jax.tree.leaves(flags))
    constants = tuple((i, leaf) for i, leaf in enumerate(leaves) if not _is_array(leaf))
    weights = tuple(x for x, flag in zip(leaves, prunable, strict=True) if flag)
    others = tuple(x for x, flag in zip(leaves, prunable, strict=True) if not flag and _is_array(x))
    return (weights, others), _Network(loss_fn, structure, prunable, constants)


def _importance(
    network: _Network, weights: Any, others: Any, batch: Any, members: Any, axis_name: str | None
) -> list[jax.Array]:
    counts, local = jnp.asarray(members).sum(axis=1, dtype=jnp.float32), weights
    if axis_name is not None:
        counts = jax.lax.psum(counts, axis_name)
        local = [_varying(w, axis_name) for w in weights]
    scale = jnp.where(members, 1 / jnp.maximum(counts, 1)[:, None], jnp.float32(0))
    gradients = jax.vmap(lambda s: network.gradient(local, others, batch, s))(scale)
    if axis_name is not None:
        gradients = [jax.lax.psum(g, axis_name) for g in gradients]
    return [_squared(w, g) for w, g in zip(weights, gradients, strict=True)]


_jit_importance = jax.jit(_importance, static_argnums=(0, 5))


def _squared(weights: jax.Array, gradient: jax.Array) -> jax.Array:
    """(w * g)^2, g of w's shape or with groups before it."""
    wide = weights.astype(gradient.dtype)
    return jnp.square((wide if wide.ndim == gradient.ndim else wide[None]) * gradient)


def _varying(array: jax.Array, axis_name: str) -> jax.Array:
    """Different on every device, so that its gradient is the device's, not yet their sum."""
    if axis_name in getattr(jax.typeof(array), "vma", ()):
        return array
    return jax.lax.pcast(array, axis_name, to="varying")


class _Sums(NamedTuple):
    """Sums of each weight: rows (G, *w.shape), what rounding lost of them, a micro-batch's part."""

    rows: list[jax.Array]
    lost: list[jax.Array]
    part: list[jax.Array]


class _Adder:
    """Adds parts up on one device."""

    def __init__(
        self, network: _Network, arrays: Any, groups: int, squares: bool, device: Any
    ) -> None:
        self.device, self.load = device, 0
        self.static = (network, squares)
        self.arrays = arrays if device is None else jax.device_put(arrays, device)
        self.sums = _zeros(self.arrays[0], groups)

    def add(self, part: Part) -> None:
        self.load += part.scale.shape[-1]
        given = part.batch, part.scale, *np.array([part.group, part.start, part.end], np.int32)
        add = _add_all if part.group < 0 else _add_group
        self.sums = add(*self.static, self.sums, *self.arrays, *_on_device(given, self.device))


@functools.partial(jax.jit, static_argnums=1)
def _zeros(weights: Any, groups: int) -> _Sums:
    """In float32, or float64 for weights of float64."""
    dtypes = [_wide(w.dtype) for w in weights]
    rows = [jnp.zeros((groups, *w.shape), t) for w, t in zip(weights, dtypes, strict=True)]
    part = [jnp.zeros(w.shape, t) for w, t in zip(weights, dtypes, strict=True)]
    return _Sums(rows, [jnp.zeros_like(row) for row in rows], part)


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=2)
def _add_group(
    network: _Network,
    squares: bool,
    sums: _Sums,
    weights: Any,
    others: Any,
    batch: Any,
    scale: jax.Array,
    group: jax.Array,
    start: jax.Array,
    end: jax.Array,
) -> _Sums:
    gradients = network.gradient(weights, others, batch, scale)
    part = [
        jnp.where(start, jnp.zeros_like(p), p) + g
        for p, g in zip(sums.part, gradients, strict=True)
    ]
    terms = [_squared(w, p) if squares else p for w, p in zip(weights, part, strict=True)]
    terms = [jnp.where(end, t, jnp.zeros_like(t)) for t in terms]
    rows, lost = zip(
        *[
            _plus(row[group], rest[group], term)
            for row, rest, term in zip(sums.rows, sums.lost, terms, strict=True)
        ],
        strict=True,
    )
    return _Sums(
        [all_.at[group].set(row) for all_, row in zip(sums.rows, rows, strict=True)],
        [all_.at[group].set(row) for all_, row in zip(sums.lost, lost, strict=True)],
        part,
    )


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=2)
def _add_all(
    network: _Network,
    squares: bool,
    sums: _Sums,
    weights: Any,
    others: Any,
    batch: Any,
    scale: jax.Array,
    *_: Any,
) -> _Sums:
    gradients = jax.vmap(lambda s: network.gradient(weights, others, batch, s))(scale)
    terms = [_squared(w, g) if squares else g for w, g in zip(weights, gradients, strict=True)]
    rows, lost = zip(*map(_plus, sums.rows, sums.lost, terms), strict=True)
    return _Sums(list(rows), list(lost), sums.part)


def _plus(total: jax.Array, lost: jax.Array, term: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Kahan's sum: the error does not grow with the number of terms."""
    new = term - lost
    added = total + new
    return added, (added - total) - new


def _combine(adders: list[_Adder], terms: np.ndarray, arrays: Any, squares: bool) -> list[Any]:
    """Means of all devices' sums, on the first one."""
    sums = [adder.sums for adder in adders if adder.load] or [adders[0].sums]
    pairs = [(each.rows, each.lost) for each in sums]
    if len(pairs) > 1:
        pairs = jax.device_put(pairs, adders[0].device)
        arrays = adders[0].arrays
    elif adders[0].device is not None:
        arrays = next(adder.arrays for adder in adders if adder.load)
    return _mean(pairs, *_on_device((terms.astype(np.float32),)), arrays[0], squares)


@functools.partial(jax.jit, static_argnums=3)
def _mean(pairs: Any, terms: jax.Array, weights: Any, squares: bool) -> list[jax.Array]:
    means = []
    for i, w in enumerate(weights):
        total = sum(rows[i] - lost[i] for rows, lost in pairs)
        shape = (-1, *[1] * w.ndim)
        mean = total / jnp.maximum(terms, 1).astype(total.dtype).reshape(shape)
        means.append(mean if squares else _squared(w, mean))
    return means


def _traced_average(
    network: _Network, arrays: Any, batches: Sequence[Any], num_groups: int, formula: Formula
) -> list[jax.Array]:
    squares = formula == "sum-of-squares"
    sums, terms = _zeros(arrays[0], num_groups), jnp.zeros(num_groups, jnp.float32)
    if not batches:
        raise ValueError("batches: are empty")
    for batch, groups in batches:
        members = jnp.asarray(membership(groups, num_groups, sample_count(batch)))
        counts = members.sum(axis=1, dtype=jnp.float32)
        scale = members.astype(jnp.float32)
        if squares:
            scale = scale / jnp.maximum(counts, 1)[:, None]
            counts = jnp.minimum(counts, 1)
        sums = _add_all(network, squares, sums, *arrays, batch, scale)
        terms = terms + counts
    return _mean([(sums.rows, sums.lost)], terms, arrays[0], squares)


def _check_options(formula: str, form: str, micro_batch: int | None) -> None:
    if formula not in ("sum-of-squares", "square-of-mean"):
        raise ValueError(f"formula: {formula!r} is neither 'sum-of-squares' nor 'square-of-mean'")
    if form not in ("pure", "vmap"):
        raise ValueError(f"form: {form!r} is neither 'pure' nor 'vmap'")
    if micro_batch is not None and micro_batch < 1:
        raise ValueError(f"micro_batch: {micro_batch} is not at least 1")


@jax.jit
def _finite(rows: list[jax.Array]) -> list[jax.Array]:
    return [jnp.isfinite(row).all() for row in rows]


def _is_array(leaf: Any) -> bool:
    return hasattr(leaf, "shape") and hasattr(leaf, "dtype")


def _wide(dtype: Any) -> Any:
    return jnp.float64 if dtype == jnp.float64 else jnp.float32


def _traced(tree: Any) -> bool:
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree))


def _on_device(tree: Any, device: Any = None) -> Any:
    """NumPy arrays moved there explicitly, in native byte order; what is no array stays."""

    def move(leaf: Any) -> Any:
        if not _is_array(leaf) or (isinstance(leaf, jax.Array) and device is None):
            return leaf
        if isinstance(leaf, np.ndarray | np.generic):
            leaf = native(leaf)
        return jax.device_put(leaf, device)

    return jax.tree.map(move, tree)
