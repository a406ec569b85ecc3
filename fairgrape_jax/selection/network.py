"""The choice by the fixed point, for one layer or for a whole tree of them, checked and certain.

What is jitted computes; what is called with arrays also checks its input first, and afterwards
walks a layer as a whole, on the host, if its fixed point was not found, or if float32, in which the
fixed point is computed, cannot hold its importances.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Bool, Int, Int32, Shaped

from fairgrape_jax import parallel
from fairgrape_jax.masks import Array, Masks
from fairgrape_jax.selection import blocks as bl
from fairgrape_jax.selection.allocation import Budget, allocate
from fairgrape_jax.selection.blocks import Arrays, Blocks
from fairgrape_jax.selection.counts import as_tree, check_trees, joined, members
from fairgrape_jax.selection.fixed_point.threshold import Finish, Info, select_blocks
from fairgrape_jax.selection.greedy import select_greedy, shares
from fairgrape_jax.selection.inputs import (
    LayerMask,
    LayerScores,
    NumpyMask,
    TreeScores,
    check_layer,
    check_values,
    float32_exactly,
    groups_first,
    is_real,
    rankable,
)


def select_threshold(
    importance: LayerScores,
    previous: LayerMask,
    keep: int | Array,
    *,
    finish: Finish = "greedy",
    axis: str | None = None,
) -> Bool[jax.Array, " n"]:
    """What `select_greedy` (relative deficit) chooses in one layer, found as a fixed point.

    Called with arrays it checks them, and what float32 cannot hold (float64 of more digits, large
    integers, values too far apart) is chosen by `select_greedy` itself. In a jitted program nothing
    is checked: importances count as float32, negative ones and NaN as 0, infinite ones as the
    largest; `keep` is clipped to what is alive, and a layer whose fixed point is not found is
    chosen as well as it is known.

    Args:
        importance: (G, n) of any real dtype, non-negative.
        previous: (n,) bool, the weights alive.
        keep: the exact number of weights, traced or not.
        finish: "greedy" ends with greedy's own steps, "none" with the weights nearest to the fixed
            point.
        axis: the name of a mapped axis over which a layer's weights are cut, in order and evenly;
            each device gives its part, and gets the mask of it.

    Returns:
        (n,) bool: of the exact count, nested, ties to the lower index.

    Raises:
        ValueError: called with arrays, as `select_greedy`.

    Source:
        FairGRAPE (arXiv 2207.10888), Algorithm 1; the fixed point is this project's.

    Example:
        >>> importance = np.array([[4.0, 3.0, 0.0, 0.0], [0.0, 0.0, 2.0, 1.0]])
        >>> select_threshold(importance, np.ones(4, bool), 2)
        Array([ True, False,  True, False], dtype=bool)
    """
    return solve_threshold(importance, previous, keep, finish=finish, axis=axis)[0]


def solve_threshold(
    importance: LayerScores,
    previous: LayerMask,
    keep: int | Array,
    *,
    finish: Finish = "greedy",
    axis: str | None = None,
) -> tuple[Bool[jax.Array, " n"], Info]:
    """As `select_threshold`, with how it was reached; `converged` False says: not by it.

    Args:
        importance: as for `select_threshold`.
        previous: likewise.
        keep: likewise.
        finish: likewise.
        axis: likewise.

    Example:
        >>> importance = np.array([[4.0, 3.0, 0.0, 0.0], [0.0, 0.0, 2.0, 1.0]])
        >>> mask, info = solve_threshold(importance, np.ones(4, bool), 3)
        >>> int(mask.sum()), bool(info.converged)
        (3, True)
    """
    _check_finish(finish)
    if any(isinstance(x, jax.core.Tracer) for x in (importance, previous, keep)):
        _check_traced(importance, keep)
        return _solve_layer(groups_first(importance, len(previous)), previous, keep, finish, axis)
    scores, before, number = check_layer(importance, previous, keep)
    if not scores.size:  # no weight, or no group
        return jax.device_put(select_greedy(scores, before, number)), Info(0, 0.0, True)
    passes: Any = 0
    if (narrow := float32_exactly(scores)) is not None:
        mask, info = _solve_layer(*jax.device_put((narrow, before, np.int32(number))), finish, axis)
        if jax.device_get(info.converged):
            return mask, info
        passes = info.passes
    chosen = select_greedy(scores, before, number)
    return jax.device_put(chosen), Info(passes, _share_error(scores, before, chosen), False)


def _check_traced(importance: Any, keep: Any) -> None:
    """What is known of them while a program is traced."""
    dtype = jnp.result_type(importance)
    if not is_real(dtype):
        raise ValueError(f"importance: real numbers are expected, not dtype {dtype}")
    if not jnp.issubdtype(jnp.result_type(keep), jnp.integer):
        raise ValueError(f"keep: a whole number is expected, not dtype {jnp.result_type(keep)}")


@functools.partial(jax.jit, static_argnames=("finish", "axis"))
def _solve_layer(
    importance: Shaped[Array, "G n"],
    previous: Bool[Array, " n"],
    keep: Int[Array, ""] | int,
    finish: Finish,
    axis: str | None,
) -> tuple[Bool[jax.Array, " n"], Info]:
    n = len(previous)
    rows = _some_group(jnp.asarray(importance))
    blocks, _ = bl.pack([rows], [jnp.asarray(previous)], [0], axis=axis)
    if axis:
        before, everyone = lax.axis_index(axis).astype(jnp.int32), lax.psum(1, axis)
        start, size = blocks.start + before * n, blocks.size * everyone
        blocks = dataclasses.replace(blocks, start=start, size=size)
    mask, info = select_blocks(blocks, jnp.asarray(keep).reshape(1), finish)
    return mask.reshape(-1)[:n], jax.tree.map(lambda x: x[0], info)


def _some_group(rows: Shaped[jax.Array, "_G n"]) -> Shaped[jax.Array, "_H n"]:
    """Without groups, one to which nothing matters."""
    return rows if len(rows) else jnp.zeros((1, *rows.shape[1:]), jnp.float32)


def select_tree(
    importance: TreeScores,
    masks: Masks,
    density: float,
    *,
    finish: Finish = "greedy",
    devices: Sequence[jax.Device] = (),
    **budget: Unpack[Budget],
) -> Masks:
    """The next masks of a whole network, all layers in one program.

    Args:
        importance: a tree of (G, *w.shape) of any real dtype, None where masks have None.
        masks: a tree of (*w.shape) bool, None where not prunable.
        density: the part of ALL weights to keep.
        finish: as for `select_threshold`.
        devices: over which the weights are spread while choosing; none: where they are.
        budget: `allocation`, `minimum`, `weights` and `order`, how many each layer keeps, as for
            `allocate`; for "global" the groups' shares are those of the whole network, which keeps
            `minimum` for each of its layers.

    Returns:
        Masks of NumPy arrays.

    Raises:
        ValueError: a density outside 0..1; with the layer's name, importances that are negative,
            NaN or infinite, arrays that do not fit, and fewer weights alive than shall be kept.

    Example:
        >>> importance = {"kernel": np.array([[[4.0, 3.0, 0.0, 0.0]], [[0.0, 0.0, 2.0, 1.0]]])}
        >>> select_tree(importance, {"kernel": np.ones((1, 4), bool)}, 0.5)
        {'kernel': array([[ True, False,  True, False]])}
    """
    return solve_tree(importance, masks, density, finish=finish, devices=devices, **budget)[0]


def solve_tree(
    importance: TreeScores,
    masks: Masks,
    density: float,
    *,
    finish: Finish = "greedy",
    devices: Sequence[jax.Device] = (),
    **budget: Unpack[Budget],
) -> tuple[Masks, dict[str, dict[str, float | int]]]:
    """As `select_tree`, with how each layer's choice was reached: the fields of `Info`, by name.

    For allocation "global" there is one entry, "network".

    Args:
        importance: as for `select_tree`.
        masks: likewise.
        density: likewise.
        finish: likewise.
        devices: likewise.
        budget: likewise.

    Example:
        >>> rows = np.array([[[4.0, 3.0, 0.0, 0.0]], [[0.0, 0.0, 2.0, 1.0]]])
        >>> importance, masks = {"fc": {"kernel": rows}}, {"fc": {"kernel": np.ones((1, 4), bool)}}
        >>> solve_tree(importance, masks, 0.5)[1]["fc"]["converged"]
        True
    """
    _check_finish(finish)
    layers = members(masks, budget.get("allocation", "uniform"))
    check_trees(importance, masks)
    keep = np.array(list(allocate(masks, density, **budget).values()), np.int32)
    names, numbers = list(layers), list(layers.values())
    rows, alive = jax.tree.leaves(importance), jax.tree.leaves(masks)
    segments = tuple(segment for segment, leaves in enumerate(numbers) for _ in leaves)
    narrow = [_as_float32(row, names[segment]) for row, segment in zip(rows, segments, strict=True)]
    fits = np.bincount(segments, [x is None for x in narrow]) == 0
    # What float32 cannot hold is ranked on the host, and is nothing to the program.
    narrow = [
        np.zeros(np.shape(row), np.float32) if x is None else x
        for row, x in zip(rows, narrow, strict=True)
    ]
    placed = jax.device_put((tuple(narrow), tuple(alive)))
    if len(devices) > 1:
        placed = parallel.replicate(placed, devices)
    options: Any = {"segments": segments, "finish": finish, "devices": tuple(devices)}
    chosen, info, (sound, left) = jax.device_get(
        solve_leaves(*placed, jax.device_put(keep), **options)
    )
    _check(names, segments, sound, left, keep)
    chosen = bl.unpack(chosen, [leaf.size for leaf in alive])
    flat = [joined(chosen, leaves) for leaves in numbers]
    passes, errors, converged = (np.array(x) for x in info)
    converged &= fits
    for segment in np.flatnonzero(~converged):
        scores = joined([rankable(row) for row in rows], numbers[segment], lead=1)
        before = joined(alive, numbers[segment])
        flat[segment] = select_greedy(scores, before, int(keep[segment]))
        errors[segment] = _share_error(scores, before, flat[segment])
    reached = Info(passes.tolist(), errors.tolist(), converged.tolist())
    details = {
        name: dict(zip(Info._fields, each, strict=True))
        for name, each in zip(names, zip(*reached, strict=True), strict=True)
    }
    return as_tree(masks, flat), details


def _check_finish(finish: str) -> None:
    if finish not in ("greedy", "none"):
        raise ValueError(f"finish: {finish!r} is neither 'greedy' nor 'none'")


def _as_float32(rows: Array, name: str) -> Array | None:
    """Importance in a dtype that a device brings to float32 unchanged; None where there is none."""
    small = jnp.issubdtype(rows.dtype, jnp.floating) and rows.dtype.itemsize <= 4
    if small and isinstance(rows, jax.Array):
        return rows
    scores = rankable(rows, f"importance of layer {name}")
    if not small:  # the program looks at the others
        check_values(scores, f"importance of layer {name}")
    return float32_exactly(scores)


@functools.partial(jax.jit, static_argnames=("segments", "finish", "devices"))
def solve_leaves(
    rows: Sequence[jax.Array],
    alive: Sequence[jax.Array],
    keep: Int32[jax.Array, " L"],
    *,
    segments: tuple[int, ...],
    finish: Finish,
    devices: tuple[jax.Device, ...],
) -> tuple[Bool[jax.Array, "B BLOCK"], Info, Arrays]:
    """The choice in all layers as one program.

    Args:
        rows: (G, *w.shape) of each leaf, in a dtype that becomes float32 unchanged.
        alive: (*w.shape) bool of each.
        keep: how many each segment keeps.
        segments: for each leaf the segment that it belongs to.
        finish: as for `select_threshold`.
        devices: over which the blocks are cut.

    Returns:
        The masks in blocks, how each segment's was reached, and what is seen of the leaves.
    """
    rows = [leaf.reshape(len(leaf), math.prod(leaf.shape[1:])) for leaf in rows]
    rows = [_some_group(jnp.asarray(leaf)) for leaf in rows]
    alive = [jnp.asarray(leaf).reshape(-1) for leaf in alive]
    blocks, arrays = bl.pack(rows, alive, segments, max(len(devices), 1))

    def select(blocks: Blocks, keep: jax.Array) -> tuple[jax.Array, Info]:
        axis = parallel.AXIS if len(devices) > 1 else None
        return select_blocks(dataclasses.replace(blocks, axis=axis), keep, finish)

    if len(devices) > 1:
        # Every device has all importances and lays them all out: the compiler would cut that work,
        # and gather the importances again.
        blocks = parallel.constrain_to_copies(blocks, devices)
        select = parallel.shard_function(select, devices, (bl.CUT, None), (0, None))
    mask, info = select(blocks, keep)
    if len(devices) > 1:
        mask = parallel.constrain_to_copies(mask, devices)
    return mask, info, arrays


def _check(
    names: Sequence[str],
    segments: Sequence[int],
    sound: Bool[np.ndarray, " N"],
    left: Int[np.ndarray, " N"],
    keep: Int[np.ndarray, " L"],
) -> None:
    """ValueError, with the layer's name, for what the program saw of N leaves in L segments."""
    for segment, fine in zip(segments, sound, strict=True):
        if not fine:
            raise ValueError(
                f"importance of layer {names[segment]}: "
                "negative, NaN or infinite values cannot be ranked"
            )
    for name, number, count in zip(names, keep, np.bincount(segments, left), strict=True):
        if number > count:
            raise ValueError(
                f"layer {name}: {number} weights cannot be kept of the {int(count)} alive"
            )


def _share_error(scores: Shaped[np.ndarray, "G n"], previous: NumpyMask, mask: NumpyMask) -> float:
    """The worst |P_k - P*_k| / P*_k of a choice."""
    target, achieved = shares(scores, previous), shares(scores, mask)
    some = (target > 0) & (achieved.sum() > 0)
    return float(np.abs(achieved[some] / target[some] - 1).max(initial=0))
