"""All layers of a network: their duals in one program, on one device or cut over several."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fairgrape_jax import parallel
from fairgrape_jax.masks import Tree
from fairgrape_jax.selection import Allocation, select_greedy, solve_tree
from fairgrape_jax.selection import blocks as bl
from fairgrape_jax.selection.blocks import CUT, HIGH, Blocks
from fairgrape_jax.selection.counts import as_tree, joined, members
from fairgrape_jax.selection.inputs import as_float, on_host, rankable
from fairgrape_jax.selection.maxmin.layer import NEAR, Band, Layer, Survey, conclude, solve


def maxmin_tree(
    importance: Tree,
    masks: Tree,
    density: float,
    *,
    allocation: Allocation = "uniform",
    minimum: int = 0,
    weights: Tree = None,
    order: Sequence[str] = (),
    devices: Sequence[jax.Device] = (),
) -> tuple[Tree, dict[str, dict[str, float]]]:
    """The max-min choice in every layer of a network, and each choice's certificate by name.

    D is minimised over sums of float32, which can cost the bound some 1e-6 of its height but not
    its truth: at the lambda that was found D is evaluated once more, on the host, in float64, and
    so is what the choice achieves.

    Args:
        importance: a tree of (G, *w.shape) of any real dtype, None where masks have None.
        masks: a tree of (*w.shape) bool, None where not prunable.
        density: the part of ALL weights to keep.
        allocation: as for `select_tree`; "global" has one certificate, "network".
        minimum: as for `select_tree`.
        weights: as for `select_tree`.
        order: as for `select_tree`.
        devices: over which the weights are spread while D is minimised; none: where JAX puts them.

    Returns:
        Masks of NumPy arrays, never below `select_greedy`'s on the worst group's retained part, and
        {name: {"achieved", "bound", "gap", "passes"}}.

    Raises:
        ValueError: as `select_tree`.

    Example:
        >>> importance = {"kernel": np.array([[[5.0, 0.0, 4.0, 1.0]], [[0.0, 5.0, 4.0, 1.0]]])}
        >>> chosen, certificates = maxmin_tree(importance, {"kernel": np.ones((1, 4), bool)}, 0.25)
        >>> chosen
        {'kernel': array([[False, False,  True, False]])}
    """
    greedy, _ = solve_tree(
        importance,
        masks,
        density,
        allocation=allocation,
        minimum=minimum,
        weights=weights,
        order=order,
        devices=devices,
    )
    leaves = jax.tree.leaves(masks)
    rows = [as_float(rankable(leaf)) for leaf in jax.tree.leaves(importance)]
    numbers = members(masks, allocation)
    first = [joined(jax.tree.leaves(greedy), each) for each in numbers.values()]
    layers = [
        Layer(joined(rows, each, lead=1), joined(leaves, each), int(chosen.sum()))
        for each, chosen in zip(numbers.values(), first, strict=True)
    ]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda layer: layer.totals, layers))
        weights, passes = zip(*solve(layers, functools.partial(on_blocks, devices)), strict=True)
        second = pool.map(walk, layers)
        results = pool.map(conclude, layers, weights, passes, zip(first, second, strict=True))
        chosen, certificates = zip(*results, strict=True)
    details = {
        name: {"achieved": c.achieved, "bound": c.bound, "gap": c.gap, "passes": c.passes}
        for name, c in zip(numbers, certificates, strict=True)
    }
    return as_tree(masks, chosen), details


def walk(layer: Layer) -> np.ndarray:
    """What `select_greedy` chooses, from which the fixed point may differ by a few weights."""
    return select_greedy(layer.rows, layer.alive, layer.keep)


def on_blocks(devices: Sequence[jax.Device], layers: Sequence[Layer]) -> Survey:
    """The passes over all layers at once, their weights laid out in blocks on the devices."""
    rows, powers = zip(*(_scaled(layer) for layer in layers), strict=True)
    alive = tuple(layer.alive for layer in layers)
    blocks = pack_layers(*jax.device_put((rows, alive)), max(len(devices), 1))
    # What the blocks hold is the importance over these powers of two.
    shift = np.stack(powers) + on_host(blocks.shift)
    if len(devices) > 1:
        blocks = parallel.shard_arrays(blocks, devices, CUT)
    keep = np.array([layer.keep for layer in layers], np.int32)
    before, after = np.array([layer.near for layer in layers], np.int32).T
    capacity = capacity_of([len(layer.alive) for layer in layers])
    totals = np.stack([np.where(layer.totals > 0, layer.totals, 1) for layer in layers])
    totals = np.ldexp(totals, -shift)
    scale = np.ldexp(np.float32(1), np.frexp(totals)[1] + 1)  # a power of two above them

    def survey(weights: np.ndarray) -> list[Band]:
        factor = (weights / totals).astype(np.float32)
        on_devices = jax.device_put((factor, before, after, scale))
        high, low, bits, keys = jax.device_get(
            survey_blocks(blocks, *on_devices, capacity, tuple(devices))
        )
        base = (high * 2.0**-HIGH + low * 2.0 ** -float(bits)) * scale / totals
        return [
            Band(row[:count].view(np.float32) / total, held, int(inside))
            for row, count, total, held, inside in zip(
                keys, after - before, totals, base, keep - before, strict=True
            )
        ]

    return survey


def capacity_of(sizes: Sequence[int]) -> int:
    """The most weights near an edge that a pass brings to sight, of layers of so many weights."""
    return max(2 * (size // NEAR) for size in sizes)


def _scaled(layer: Layer) -> tuple[np.ndarray, np.ndarray]:
    """A layer's importance in float32, over powers of two (G,) that are 1 for one of float32."""
    if layer.rows.dtype == np.float32:
        return layer.rows, np.zeros(len(layer.rows), int)
    exponent = np.frexp(layer.rows.max(axis=1, initial=0))[1]
    with np.errstate(under="ignore"):
        return np.ldexp(layer.rows, -exponent[:, None]).astype(np.float32), exponent


@functools.partial(jax.jit, static_argnames="shards")
def pack_layers(rows: Any, alive: Any, shards: int) -> Blocks:
    """Importances (G, n) and masks (n,) of layers in blocks, their number divisible by `shards`."""
    return bl.pack(rows, alive, range(len(rows)), shards)


@functools.partial(jax.jit, static_argnames=("capacity", "devices"))
def survey_blocks(
    blocks: Blocks, factor: Any, before: Any, after: Any, scale: Any, capacity: int, devices: Any
) -> Any:
    """One pass over the blocks of all layers, cut over `devices`; see `look`."""
    if len(devices) < 2:
        return look(blocks, factor, before, after, scale, capacity, None)
    each = functools.partial(look, capacity=capacity, axis=parallel.AXIS)
    over = parallel.shard_function(each, devices, (CUT, *[None] * 4), None)
    return over(blocks, factor, before, after, scale)


def look(
    blocks: Blocks,
    factor: jax.Array,
    before: jax.Array,
    after: jax.Array,
    scale: jax.Array,
    capacity: int,
    axis: str | None,
) -> tuple[jax.Array, ...]:
    """A pass over every segment's order by sum_k factor_k I[k, w], ties by index.

    factor: (L, G), lambda_k / T_k; scale: (L, G), powers of two above the groups' importances.
    Returns the importance within the first `before` (L,), as the whole numbers of a `Fixed`: high
    and low (L, G) and the bits of low; and the keys (L, capacity, G) of those from there to
    `after` (L,).
    """

    def ranks(keys: jax.Array, segment: jax.Array) -> jax.Array:
        sums = (bl.values(keys) * factor[segment][:, :, None]).sum(axis=1)
        return jnp.where(keys[:, 0] < 0, jnp.uint32(0), bl.ordered(sums))

    def within(keys: jax.Array, chosen: jax.Array) -> jax.Array:
        return jnp.where(chosen[:, None], bl.values(keys), 0).sum(axis=2)

    rank = bl.over_chunks(ranks, blocks.keys, blocks.segment)
    base = bl.largest(rank, before, blocks, axis)
    band = bl.largest(rank, after, blocks, axis) & ~base
    held = bl.add(bl.over_chunks(within, blocks.keys, base), scale, blocks, axis)
    near = bl.gather(band, capacity, blocks, axis)
    return held.high, held.low, jnp.asarray(held.bits), near.keys
