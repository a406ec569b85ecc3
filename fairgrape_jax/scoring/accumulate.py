"""Averages over all micro-batches of a round: which device takes which, the sums, the reduction.

Every device adds up micro-batches of its own and nothing is exchanged before the end. A sum in
float32 drifts with its length (1e-6 after some 5,000 terms, 6e-6 after 16,000). So it has two
levels: up to BLOCK terms of one group go into a block, and whole blocks into the group's row. A
device meets the micro-batches of a group one after another, so there is one block, not one a group.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from fairgrape_jax import parallel
from fairgrape_jax.data.batches import GroupBatches, read_images, rows_of_process
from fairgrape_jax.data.dataset import Split
from fairgrape_jax.data.prefetch import make_batches
from fairgrape_jax.masks import Array, Tree, map_masked
from fairgrape_jax.scoring.assignment import Schedule
from fairgrape_jax.scoring.importance import Execution, mixed_gradients
from fairgrape_jax.scoring.statistics import ScoredNetwork, Statistic

Batch = Tree  # the micro-batches of a call, as `micro_batches` yields them, or one of them


class Sums(NamedTuple):
    """The accumulators.

    Attributes:
        rows: a tree of (devices, R, *w.shape) float32.
        block: a tree of (devices, *w.shape) float32.
    """

    rows: Tree
    block: Tree


def micro_batches(
    split: Split,
    plan: GroupBatches,
    schedule: Schedule,
    part: tuple[int, int] = (0, 1),
    begin: int = 0,
) -> Iterator[dict[str, np.ndarray]]:
    """The pictures of each call, arrays of (devices, slots, b, ...); empty places are not valid.

    Args:
        split: where the pictures are.
        plan: the micro-batches, by index into the split.
        schedule: which device takes which of them.
        part: (which, of how many processes): the arrays of one process's devices alone.
        begin: the number of the first call.

    Yields:
        images, labels and valid; group: (devices, slots, b), the group of each picture; number:
        (devices, slots), of the micro-batch in the plan; row, start and end of the schedule.
    """
    make = functools.partial(_call, split, plan, schedule, part)
    return make_batches(make, range(begin, len(schedule.order)), split)


def _call(
    split: Split, plan: GroupBatches, schedule: Schedule, part: tuple[int, int], call: int
) -> dict[str, np.ndarray]:
    devices = rows_of_process(np.arange(len(schedule.groups)), part)
    order = schedule.order[call, devices]
    indices = plan.indices[np.maximum(order, 0)]
    images, good = read_images(split, indices)
    return {
        "images": images,
        "labels": split.labels[indices],
        "group": split.groups[indices],
        "valid": plan.valid[np.maximum(order, 0)] & (order >= 0)[..., None] & good,
        "number": order,
        "row": schedule.row[call, devices],
        "start": schedule.start[call, devices],
        "end": schedule.end[call, devices],
    }


def empty_sums(masks: Tree, rows: int, devices: list[jax.Device]) -> Sums:
    """Zero accumulators in float32, `rows` on each device.

    Args:
        masks: of the shapes of the weights, None where not prunable.
        rows: accumulators on each device.
        devices: those of this process.
    """
    return Sums(
        rows=jax.tree.map(lambda m: parallel.sharded_zeros((rows, *m.shape), devices), masks),
        block=jax.tree.map(lambda m: parallel.sharded_zeros(m.shape, devices), masks),
    )


def make_accumulate(
    make_network: Callable[[Tree], ScoredNetwork], statistic: Statistic, execution: Execution
) -> Callable[..., Sums]:
    """The per-device step that adds S micro-batches of one group each to the accumulators.

    Args:
        make_network: (batch_stats) to the network.
        statistic: what is averaged.
        execution: "unroll" and "scan" hold one value of the statistic at a time, "vmap" S of them.

    Returns:
        (sums, params, batch_stats, masks, extra, batch) to the sums; batch as `micro_batches`
        yields it, of one device; extra goes to the statistic.
    """

    def accumulate(
        sums: Sums, params: Tree, batch_stats: Tree, masks: Tree, extra: Tree, batch: Batch
    ) -> Sums:
        network = make_network(batch_stats)

        def value(micro: Batch) -> Tree:
            one = statistic(network, params, masks, micro, extra)
            return _weigh_by_samples(statistic, one, micro["valid"].sum())

        def add(sums: Sums, micro: Batch) -> Sums:
            new = micro["value"] if "value" in micro else value(micro)
            block = jax.tree.map(
                lambda b, t: jnp.where(micro["start"], 0, b) + t.astype(b.dtype), sums.block, new
            )
            rows = jax.tree.map(
                lambda r, b: r.at[micro["row"]].add(jnp.where(micro["end"], b, 0)),
                sums.rows,
                block,
            )
            return Sums(rows, block)

        if execution == "scan":
            return jax.lax.scan(lambda s, micro: (add(s, micro), None), sums, batch)[0]
        if execution == "vmap":
            batch = batch | {"value": jax.vmap(value)(batch)}
        for slot in range(len(batch["row"])):
            sums = add(sums, _slot(batch, slot))
        return sums

    return accumulate


def make_accumulate_mixed(
    make_network: Callable[[Tree], ScoredNetwork],
    groups: int,
    statistic: Statistic,
    execution: Execution,
) -> Callable[..., Sums]:
    """The per-device step that adds S mixed micro-batches: one forward, G backward passes each.

    Every micro-batch has a term for every group, so there is no block: the sums are plain float32.

    Args:
        make_network: (batch_stats) to a network whose loss is (G,), valid being (G, b).
        groups: G.
        statistic: one of the gradient.
        execution: as for `make_accumulate`, over the groups.

    Returns:
        A step that takes what that of `make_accumulate` takes.

    Raises:
        ValueError: a statistic that needs more than the gradient.
    """
    of_gradient = statistic.of_gradient
    if of_gradient is None:
        raise ValueError(
            "statistic: a mixed micro-batch gives gradients; give one with of_gradient"
        )

    def accumulate(
        sums: Sums, params: Tree, batch_stats: Tree, masks: Tree, extra: Tree, batch: Batch
    ) -> Sums:
        loss = make_network(batch_stats).loss

        def add(rows: Tree, micro: Batch) -> Tree:
            numbers = np.arange(groups, dtype=np.int32)[:, None]
            members = micro["valid"][None] & (micro["group"].astype(jnp.int32)[None] == numbers)
            data = micro["images"], micro["labels"], members
            gradient = mixed_gradients(loss, params, *data)[1]

            def of_group(k: Tree) -> Tree:
                one = of_gradient(masks, params, gradient(k))
                return _weigh_by_samples(statistic, one, members[k].sum())

            def add_group(rows: Tree, k: Tree) -> Tree:
                return jax.tree.map(lambda r, t: r.at[k].add(t.astype(r.dtype)), rows, of_group(k))

            if execution == "vmap":
                new = jax.vmap(of_group)(jnp.arange(groups, dtype=jnp.int32))
                return jax.tree.map(lambda r, t: r + t.astype(r.dtype), rows, new)
            if execution == "scan":
                each = jnp.arange(groups, dtype=jnp.int32)
                return jax.lax.scan(lambda r, k: (add_group(r, k), None), rows, each)[0]
            for k in range(groups):
                rows = add_group(rows, k)
            return rows

        rows = sums.rows
        for slot in range(len(batch["row"])):
            rows = add(rows, _slot(batch, slot))
        return Sums(rows, sums.block)

    return accumulate


def _slot(batch: Batch, slot: int) -> Batch:
    """Micro-batch `slot` of a call."""
    return jax.tree.map(lambda x: x[slot], batch)


def _weigh_by_samples(statistic: Statistic, value: Tree, count: jax.Array) -> Tree:
    """What one micro-batch of `count` valid samples adds to its group's sum."""
    if statistic.per == "batch":
        return value
    # The mean over samples, not over micro-batches: the last one may be partial.
    return jax.tree.map(lambda v: v * count.astype(v.dtype), value)


def reduce_to_means(rows: Tree, counts: Float[Array, " R"]) -> Tree:
    """The per-device step that turns sums into means, with one all-reduce.

    Args:
        rows: a tree of (R, *w.shape), one device's.
        counts: as `divisors` gives them.
    """
    return jax.tree.map(
        lambda s: (
            jax.lax.psum(s, parallel.AXIS) / jnp.maximum(counts, 1).reshape(-1, *[1] * (s.ndim - 1))
        ),
        rows,
    )


def gather_means(
    rows: Tree,
    schedule: Schedule,
    masks: Tree,
    counts: Float[np.ndarray, " G"],
    devices: list[jax.Device],
) -> Tree:
    """Means from accumulators that are sharded over groups.

    A layer at a time on the host, where the choice is made: a device holds all groups of a layer
    only while several processes exchange it.

    Args:
        rows: a tree of (devices, R, *w.shape).
        schedule: which accumulators are whose.
        masks: of the shapes of the weights, None where not prunable.
        counts: as `divisors` gives them.
        devices: those of this process.

    Returns:
        A tree of (G, *w.shape) NumPy arrays, None where not prunable.
    """

    def layer(mask: Array | None, sums: Array) -> np.ndarray | None:
        if mask is None:
            return None
        gathered = parallel.all_gather_rows(sums)
        total = np.zeros((len(counts), *mask.shape), np.float32)
        for (device, row), k in np.ndenumerate(schedule.groups):
            if k >= 0:
                total[k] += gathered[device, row]
        return total / np.maximum(counts, 1).reshape(-1, *[1] * mask.ndim)

    return map_masked(layer, masks, rows)


def divisors(
    group: Int[np.ndarray, "M _b"],
    valid: Bool[np.ndarray, "M b"],
    groups: int,
    statistic: Statistic,
    last_alone: bool = False,
) -> Float32[np.ndarray, " G"]:
    """What each group's sum is divided by: its micro-batches, or its samples.

    Args:
        group: the group of each sample of each micro-batch; (M, 1) where a micro-batch has one.
        valid: which samples count.
        groups: G.
        statistic: whether micro-batches or samples count.
        last_alone: divide the last group's sum alone (a defect of the official code).
    """
    members = np.stack([(valid & (group == k)).sum(axis=1) for k in range(groups)])
    each = members > 0 if statistic.per == "batch" else members
    counts = each.sum(axis=1).astype(np.float32)
    if last_alone:
        counts[:-1] = np.minimum(counts[:-1], 1)
    return counts
