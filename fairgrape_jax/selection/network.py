"""The choice by the fixed point, for one layer or for a whole tree of them, checked and certain.

What is jitted computes; what is called with arrays also checks its input first, and afterwards
walks a layer as a whole, on the host, if its fixed point was not found.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fairgrape_jax import parallel
from fairgrape_jax.masks import Tree
from fairgrape_jax.selection import blocks as bl
from fairgrape_jax.selection.blocks import Blocks
from fairgrape_jax.selection.counts import Scope, as_tree, counts, joined, members
from fairgrape_jax.selection.fixed_point.threshold import Finish, Info, select_blocks
from fairgrape_jax.selection.greedy import check_layer, select_greedy, shares

LARGEST = float(np.finfo(np.float32).max)


def select_threshold(
    importance: jax.Array,
    previous: jax.Array,
    keep: Any,
    *,
    finish: Finish = "greedy",
    axis: str | None = None,
) -> jax.Array:
    """What `select_greedy` (relative deficit) chooses in one layer, found as a fixed point.

    importance: (n, G), non-negative, computed with as float32; previous: (n,) bool; keep: the exact
    number of weights, traced or not. finish: "greedy" ends with greedy's own steps; "none" with the
    weights nearest to the fixed point. axis: the name of a mapped axis over which a layer's weights
    are cut, in order and evenly; each device gives its part, and gets the mask of it.
    Returns (n,) bool: of the exact count, nested, ties to the lower index. Called with arrays it
    raises ValueError as `select_greedy`; in a jitted program nothing is checked, `keep` is clipped
    to what is alive, and a layer whose fixed point is not found is chosen as well as it is known.
    Source: FairGRAPE (arXiv 2207.10888), Algorithm 1; the fixed point is this project's.

    >>> importance = np.array([[4.0, 0.0], [3.0, 0.0], [0.0, 2.0], [0.0, 1.0]])
    >>> select_threshold(importance, np.ones(4, bool), 2)
    Array([ True, False,  True, False], dtype=bool)
    """
    return solve_threshold(importance, previous, keep, finish=finish, axis=axis)[0]


def solve_threshold(
    importance: jax.Array,
    previous: jax.Array,
    keep: Any,
    *,
    finish: Finish = "greedy",
    axis: str | None = None,
) -> tuple[jax.Array, Info]:
    """As `select_threshold`, with how it was reached; `converged` False says: not by it.

    >>> mask, info = solve_threshold(np.eye(4), np.ones(4, bool), 3)
    >>> int(mask.sum()), bool(info.converged)
    (3, True)
    """
    if finish not in ("greedy", "none"):
        raise ValueError(f"finish: {finish!r} is neither 'greedy' nor 'none'")
    traced = any(isinstance(x, jax.core.Tracer) for x in (importance, previous, keep))
    if not traced:
        check_layer(np.asarray(importance), np.asarray(previous), keep)
    mask, info = _solve_layer(importance, previous, keep, finish, axis)
    if traced or info.converged:
        return mask, info
    columns, before = np.asarray(importance), np.asarray(previous)
    chosen = select_greedy(columns, before, keep)
    error = _share_error(columns.T, before, chosen)
    return jnp.asarray(chosen), info._replace(share_error=error)


@functools.partial(jax.jit, static_argnames=("finish", "axis"))
def _solve_layer(importance: Any, previous: Any, keep: Any, finish: Any, axis: Any) -> Any:
    n = len(previous)
    blocks = bl.pack([jnp.asarray(importance).T], [jnp.asarray(previous)], [0])
    if axis:
        before, everyone = lax.axis_index(axis).astype(jnp.int32), lax.psum(1, axis)
        blocks = blocks._replace(start=blocks.start + before * n, size=blocks.size * everyone)
    mask, info = select_blocks(blocks, jnp.asarray(keep).reshape(1), finish, axis)
    return bl.unpack(mask, [n])[0], jax.tree.map(lambda x: x[0], info)


def select_tree(
    importance: Tree,
    masks: Tree,
    density: float,
    *,
    scope: Scope = "layer",
    minimum: int = 0,
    finish: Finish = "greedy",
    devices: Sequence[jax.Device] = (),
) -> Tree:
    """The next masks of a whole network, all layers in one program.

    importance: a tree of (G, *w.shape); masks: of (*w.shape) bool, None where not prunable;
    density: the part of ALL weights to keep, floor(n * density) of each layer, or of the network
    for scope "global", whose groups' shares are then those of the whole network. minimum: what a
    layer keeps at least (of scope "global" the network, that many for each of its layers).
    devices: over which the weights are spread while choosing; none: where they are.
    Returns masks of NumPy arrays. Raises ValueError, with the layer's name, for importances that
    are negative, NaN or infinite, and where fewer weights are alive than shall be kept.

    >>> importance = {"kernel": np.array([[[4.0, 3.0, 0.0, 0.0]], [[0.0, 0.0, 2.0, 1.0]]])}
    >>> select_tree(importance, {"kernel": np.ones((1, 4), bool)}, 0.5)
    {'kernel': array([[ True, False,  True, False]])}
    """
    return solve_tree(
        importance, masks, density, scope=scope, minimum=minimum, finish=finish, devices=devices
    )[0]


def solve_tree(
    importance: Tree,
    masks: Tree,
    density: float,
    *,
    scope: Scope = "layer",
    minimum: int = 0,
    finish: Finish = "greedy",
    devices: Sequence[jax.Device] = (),
) -> tuple[Tree, dict[str, dict[str, float]]]:
    """As `select_tree`, with how each layer's choice was reached: the fields of `Info`, by name.

    For scope "global" there is one entry, "network".
    """
    layers = members(masks, scope)
    names, numbers = list(layers), list(layers.values())
    alive, rows = jax.tree.leaves(masks), jax.tree.leaves(importance)
    segments = tuple(segment for segment, own in enumerate(numbers) for _ in own)
    keep = np.array(list(counts(masks, density, scope, minimum).values()), np.int32)
    if len(devices) > 1:
        rows, alive = parallel.replicate((rows, alive), devices)
    chosen, info, sound, left = _solve_leaves(
        tuple(rows), tuple(alive), keep, segments, finish, tuple(devices)
    )
    _check(names, segments, np.asarray(sound), np.asarray(left), keep)
    flat = [joined(chosen, own) for own in numbers]
    passes, errors, converged = (np.array(x) for x in info)
    for segment in np.flatnonzero(~converged):
        own = joined(rows, numbers[segment], lead=1)
        before = joined(alive, numbers[segment])
        flat[segment] = select_greedy(np.ascontiguousarray(own.T), before, int(keep[segment]))
        errors[segment] = _share_error(own, before, flat[segment])
    found = {
        name: {
            "passes": int(passes[i]),
            "share_error": float(errors[i]),
            "converged": bool(converged[i]),
        }
        for i, name in enumerate(names)
    }
    return as_tree(masks, flat), found


@functools.partial(jax.jit, static_argnames=("segments", "finish", "devices"))
def _solve_leaves(
    rows: Any, alive: Any, keep: Any, segments: Any, finish: Any, devices: Any
) -> Any:
    rows = [jnp.asarray(leaf).reshape(len(leaf), -1) for leaf in rows]
    alive = [jnp.asarray(leaf).reshape(-1) for leaf in alive]
    sound = jnp.stack([((leaf >= 0) & (leaf <= LARGEST)).all() for leaf in rows])
    left = jnp.stack([leaf.sum(dtype=jnp.int32) for leaf in alive])
    blocks = bl.pack(rows, alive, segments, max(len(devices), 1))
    if len(devices) > 1:
        select = functools.partial(select_blocks, finish=finish, axis=parallel.AXIS)
        axes: Any = Blocks(0, 0, 0, None)  # type: ignore[arg-type]
        mask, info = parallel.shard_function(select, devices, (axes, None), (0, None))(blocks, keep)
    else:
        mask, info = select_blocks(blocks, keep, finish, None)
    return bl.unpack(mask, [len(leaf) for leaf in alive]), info, sound, left


def _check(names: list[str], segments: Any, sound: Any, left: Any, keep: Any) -> None:
    for segment, fine in zip(segments, sound, strict=True):
        if not fine:
            raise ValueError(
                f"importance of layer {names[segment]}: "
                "negative, NaN or infinite values cannot be ranked"
            )
    for name, wanted, count in zip(names, keep, np.bincount(segments, left), strict=True):
        if wanted > count:
            raise ValueError(f"layer {name}: {wanted} weights cannot be kept of the {count} alive")


def _share_error(rows: np.ndarray, previous: np.ndarray, mask: np.ndarray) -> float:
    target, found = shares(rows.T, previous), shares(rows.T, mask)
    some = (target > 0) & (found.sum() > 0)
    return float(np.abs(found[some] / target[some] - 1).max(initial=0))
