"""All layers of a network: their duals in one program, on one device or cut over several."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, Int32

from fairgrape_jax import parallel
from fairgrape_jax.masks import Masks
from fairgrape_jax.selection import blocks as bl
from fairgrape_jax.selection import select_greedy, solve_tree
from fairgrape_jax.selection.allocation import Budget
from fairgrape_jax.selection.blocks import CUT, HIGH, Blocks
from fairgrape_jax.selection.counts import as_tree, joined, members
from fairgrape_jax.selection.inputs import TreeScores, as_float, on_host, rankable
from fairgrape_jax.selection.maxmin.layer import NEAR, Layer
from fairgrape_jax.selection.maxmin.rounding import conclude
from fairgrape_jax.selection.maxmin.search import Band, Survey, minimise


def maxmin_tree(
    importance: TreeScores,
    masks: Masks,
    density: float,
    *,
    devices: Sequence[jax.Device] = (),
    **budget: Unpack[Budget],
) -> tuple[Masks, dict[str, dict[str, float | int]]]:
    """The max-min choice in every layer of a network, and each choice's certificate by name.

    D is minimised over sums of float32, which can cost the bound some 1e-6 of its height but not
    its truth: at the lambda that was found D is evaluated once more, on the host, in float64, and
    so is what the choice achieves.

    Args:
        importance: a tree of (G, *w.shape) of any real dtype, None where masks have None.
        masks: a tree of (*w.shape) bool, None where not prunable.
        density: the part of ALL weights to keep.
        devices: over which the weights are spread while D is minimised; none: where JAX puts them.
        budget: as for `select_tree`; allocation "global" has one certificate, "network".

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
    greedy, _ = solve_tree(importance, masks, density, devices=devices, **budget)
    leaves = jax.tree.leaves(masks)
    rows = [as_float(rankable(leaf)) for leaf in jax.tree.leaves(importance)]
    numbers = members(masks, budget.get("allocation", "uniform"))
    first = [joined(jax.tree.leaves(greedy), each) for each in numbers.values()]
    layers = [
        Layer(joined(rows, each, lead=1), joined(leaves, each), int(chosen.sum()))
        for each, chosen in zip(numbers.values(), first, strict=True)
    ]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda layer: layer.totals, layers))
        lambdas, passes = zip(
            *minimise(layers, functools.partial(survey_on_blocks, devices)), strict=True
        )
        second = pool.map(walk, layers)
        results = pool.map(conclude, layers, lambdas, passes, zip(first, second, strict=True))
        chosen, certificates = zip(*results, strict=True)
    details = {
        name: {"achieved": c.achieved, "bound": c.bound, "gap": c.gap, "passes": c.passes}
        for name, c in zip(numbers, certificates, strict=True)
    }
    return as_tree(masks, chosen), details


def walk(layer: Layer) -> np.ndarray:
    """What `select_greedy` chooses, from which the fixed point may differ by a few weights.

    Args:
        layer: what is chosen from.
    """
    return select_greedy(layer.rows, layer.alive, layer.keep)


def survey_on_blocks(devices: Sequence[jax.Device], layers: Sequence[Layer]) -> Survey:
    """The passes over all layers at once, their weights laid out in blocks on the devices.

    Args:
        devices: over which the weights are spread; none: where JAX puts them.
        layers: what is chosen from.
    """
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

    def survey(lambdas: np.ndarray) -> list[Band]:
        factor = (lambdas / totals).astype(np.float32)
        window = jax.device_put(Window(factor, scale, before, after))
        sight = survey_blocks(blocks, window, capacity=capacity, devices=tuple(devices))
        high, low, bits, keys = jax.device_get(sight)
        base = (high * 2.0**-HIGH + low * 2.0 ** -float(bits)) * scale / totals
        return [
            Band(row[:count].view(np.float32) / total, retained, int(inside))
            for row, count, total, retained, inside in zip(
                keys, after - before, totals, base, keep - before, strict=True
            )
        ]

    return survey


def capacity_of(sizes: Sequence[int]) -> int:
    """The most weights near an edge that a pass brings to sight, of layers of so many weights.

    Args:
        sizes: the weights of each layer.
    """
    return max(2 * (size // NEAR) for size in sizes)


def _scaled(layer: Layer) -> tuple[np.ndarray, np.ndarray]:
    """A layer's importance in float32, over powers of two (G,) that are 1 for one of float32."""
    if layer.rows.dtype == np.float32:
        return layer.rows, np.zeros(len(layer.rows), int)
    exponent = np.frexp(layer.rows.max(axis=1, initial=0))[1]
    with np.errstate(under="ignore"):
        return np.ldexp(layer.rows, -exponent[:, None]).astype(np.float32), exponent


@functools.partial(jax.jit, static_argnames="shards")
def pack_layers(rows: Sequence[jax.Array], alive: Sequence[jax.Array], shards: int) -> Blocks:
    """Layers in blocks, their number divisible by `shards`.

    Args:
        rows: importances (G, n) of each layer.
        alive: masks (n,).
        shards: over how many devices the blocks will be cut.
    """
    return bl.pack(rows, alive, range(len(rows)), shards)[0]


class Window(NamedTuple):
    """Which weights a pass brings to sight: from the `before`-th to the `after`-th of an order.

    Attributes:
        factor: lambda_k / T_k; the order is that of sum_k factor_k I[k, w], ties by index.
        scale: powers of two above the groups' importances.
        before: how many come first.
        after: how many there are until its end.
    """

    factor: Float32[jax.Array, "L G"]
    scale: Float32[jax.Array, "L G"]
    before: Int32[jax.Array, " L"]
    after: Int32[jax.Array, " L"]


class Sight(NamedTuple):
    """What a pass brings to sight of every segment.

    Attributes:
        high: the importance before the window, the upper integers of a `Fixed`.
        low: its lower ones.
        bits: those of the lower ones.
        keys: of the weights in the window, up to a capacity.
    """

    high: Int32[jax.Array, "L G"]
    low: Int32[jax.Array, "L G"]
    bits: Int32[jax.Array, ""]
    keys: Int32[jax.Array, "L C G"]


@functools.partial(jax.jit, static_argnames=("capacity", "devices"))
def survey_blocks(
    blocks: Blocks, window: Window, *, capacity: int, devices: tuple[jax.Device, ...]
) -> Sight:
    """One pass over the blocks of all layers; see `look`.

    Args:
        blocks: the weights.
        window: which of them.
        capacity: how many of a segment at most.
        devices: over which the blocks are cut.
    """
    if len(devices) < 2:
        return look(blocks, window, capacity)

    def each(part: Blocks, window: Window) -> Sight:
        return look(dataclasses.replace(part, axis=parallel.AXIS), window, capacity)

    return parallel.shard_function(each, devices, (CUT, None), None)(blocks, window)


def look(blocks: Blocks, window: Window, capacity: int) -> Sight:
    """A pass over every segment's weights, up to `capacity` of them in the window.

    Args:
        blocks: the weights.
        window: which of them.
        capacity: how many of a segment at most.
    """
    factor = window.factor

    def ranks(some: Blocks) -> jax.Array:
        sums = (bl.values(some.keys) * factor[some.segment][:, :, None]).sum(axis=1)
        return jnp.where(some.keys[:, 0] < 0, jnp.uint32(0), bl.ordered(sums))

    def within(some: Blocks, chosen: jax.Array) -> jax.Array:
        return jnp.where(chosen[:, None], bl.values(some.keys), 0).sum(axis=2)

    rank = bl.over_chunks(ranks, blocks)
    base = bl.select_largest(rank, window.before, blocks)
    band = bl.select_largest(rank, window.after, blocks) & ~base
    retained = bl.add_floats(bl.over_chunks(within, blocks, base), window.scale, blocks)
    near = bl.gather(band, capacity, blocks)
    return Sight(retained.high, retained.low, jnp.asarray(retained.bits), near.keys)
