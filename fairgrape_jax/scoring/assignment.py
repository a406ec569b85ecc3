"""Which device adds which micro-batches of a round to which of its accumulators."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

BLOCK = 64  # the drift of n terms is that of about BLOCK + n / BLOCK; n is some thousands at most


class Schedule(NamedTuple):
    """Which micro-batches of a plan each device adds to which of its accumulators, call by call.

    Attributes:
        order: the number of the micro-batch, -1 for none.
        row: its accumulator.
        start: whether it is the first of a block.
        end: whether it is the last of a block.
        groups: the group of each of the R accumulators of a device, -1 for none.
    """

    order: Int[np.ndarray, "calls devices slots"]
    row: Int[np.ndarray, "calls devices slots"]
    start: Bool[np.ndarray, "calls devices slots"]
    end: Bool[np.ndarray, "calls devices slots"]
    groups: Int[np.ndarray, "devices R"]


def assign_micro_batches(
    group: Int[np.ndarray, " M"], groups: int, devices: int, slots: int, *, shard: bool = False
) -> Schedule:
    """Micro-batches in the order of their groups, cut evenly over the devices.

    Args:
        group: the group of each micro-batch.
        groups: how many there are.
        devices: how many there are.
        slots: micro-batches that a device takes in a call.
        shard: False for an accumulator of each group on every device, True for ceil(groups /
            devices) of them, see `place_groups`.

    Example:
        >>> schedule = assign_micro_batches(np.array([0, 1, 0, 1, 1]), 2, devices=2, slots=1)
        >>> schedule.order[:, :, 0].T.tolist()
        [[0, 2, 1], [3, 4, -1]]
    """
    queues, rows, of_accumulators = (_sharded if shard else _even)(group, groups, devices)
    calls = math.ceil(max(len(queue) for queue in queues) / slots)
    order = np.full((devices, calls * slots), -1, np.int32)
    row = np.zeros_like(order)
    start, end = (np.zeros(order.shape, bool) for _ in range(2))
    for device, queue in enumerate(queues):
        count = len(queue)
        first = block_starts(rows[device])
        order[device, :count], row[device, :count] = queue, rows[device]
        start[device, :count], end[device, :count] = first, np.append(first[1:], True)[:count]

    def by_call(x: np.ndarray) -> np.ndarray:
        return x.reshape(devices, calls, slots).swapaxes(0, 1)

    return Schedule(by_call(order), by_call(row), by_call(start), by_call(end), of_accumulators)


# A device's micro-batches, the accumulator of each, and the groups of the accumulators.
_Queues = tuple[list[np.ndarray], list[np.ndarray], np.ndarray]


def _even(group: np.ndarray, groups: int, devices: int) -> _Queues:
    queues = np.array_split(np.argsort(group, kind="stable"), devices)
    return queues, [group[q] for q in queues], np.tile(np.arange(groups), (devices, 1))


def _sharded(group: np.ndarray, groups: int, devices: int) -> _Queues:
    of_accumulators = np.full((devices, math.ceil(groups / devices)), -1)
    queues, rows = [], []
    for device, pieces in enumerate(place_groups(np.bincount(group, minlength=groups), devices)):
        numbers = [np.array_split(np.flatnonzero(group == k), n)[part] for k, part, n in pieces]
        of_accumulators[device, : len(pieces)] = [k for k, _, _ in pieces]
        queues.append(np.concatenate([*numbers, np.zeros(0, int)]))
        rows.append(np.repeat(np.arange(len(numbers)), [len(piece) for piece in numbers]))
    return queues, rows, of_accumulators


def block_starts(row: Int[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Where a block begins in a device's queue: at another accumulator, and after BLOCK terms.

    Args:
        row: the accumulator of each term in the queue.

    Example:
        >>> block_starts(np.array([0, 0, 1])).tolist()
        [True, False, True]
    """
    place = np.arange(len(row))
    changed = np.append(True, row[1:] != row[:-1])[: len(row)]
    run = np.maximum.accumulate(np.where(changed, place, 0)) if len(row) else place
    return (place - run) % BLOCK == 0


def place_groups(counts: Int[np.ndarray, " G"], devices: int) -> list[list[tuple[int, int, int]]]:
    """Groups over devices, ceil(G / devices) accumulators on each.

    Accumulators left over split the largest groups, and the largest part goes to the least busy
    device that has room: the work is as even as the memory allows.

    Args:
        counts: micro-batches of each group.
        devices: how many there are.

    Returns:
        For each device the (group, part, parts) of each of its accumulators.

    Example:
        >>> place_groups(np.array([6, 2]), 4)
        [[(0, 0, 3)], [(0, 1, 3)], [(0, 2, 3)], [(1, 0, 1)]]
    """
    room = -(-len(counts) // devices)
    parts = np.minimum(counts, 1)
    for _ in range(devices * room - int(parts.sum())):
        parts[np.argmax(counts / np.maximum(parts, 1))] += 1
    pieces = [(k, part, int(n)) for k, n in enumerate(parts) for part in range(n)]
    pieces.sort(key=lambda piece: -counts[piece[0]] / piece[2])
    placed: list[list[tuple[int, int, int]]] = [[] for _ in range(devices)]
    load = np.zeros(devices)
    for piece in pieces:
        free = [device for device in range(devices) if len(placed[device]) < room]
        device = min(free, key=lambda device: load[device])
        placed[device].append(piece)
        load[device] += counts[piece[0]] / piece[2]
    return placed
