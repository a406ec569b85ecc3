"""Choices of weights within a pattern of N:M: by scores, by FairGRAPE's greedy steps, max-min."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
from jaxtyping import Float64

from fairgrape_jax._numba import njit
from fairgrape_jax.selection.greedy import Deficit, descending, group_totals, order_groups
from fairgrape_jax.selection.inputs import (
    LayerMask,
    LayerScores,
    NumpyMask,
    as_float,
    check_layer,
    on_host,
)
from fairgrape_jax.selection.patterns import Limits

PASSES = 200  # of the max-min choice over the groups' weights


def select_first_within(
    scores: LayerScores, previous: LayerMask, keep: int, limits: Limits
) -> NumpyMask:
    """The `keep` weights of highest score that a pattern allows, ties to the lower index.

    There is no choice within the limits of a larger sum of scores: every block has its best weights
    up to the least it keeps, then the best of all are added that are among the best of their block.

    Args:
        scores: (K, n) of any real dtype and sign; the first row counts.
        previous: (n,) bool, the weights alive.
        keep: how many weights to keep.
        limits: of every block.

    Example:
        >>> from fairgrape_jax.selection.patterns import NofM, limits
        >>> scores, alive = np.array([[9.0, 8, 7, 1, 2, 3, 4, 5]]), np.ones(8, bool)
        >>> blocks = limits(NofM(2, 4), np.repeat([0, 1], 4), alive, 3)
        >>> select_first_within(scores, alive, 3, blocks).astype(int)
        array([1, 1, 0, 0, 0, 0, 0, 1])
    """
    rows, before, keep = check_layer(on_host(scores)[:1], previous, keep, signed=True)
    alive = np.flatnonzero(before)
    order = alive[descending(rows[0, alive])]
    blocks = limits.blocks[order]
    rank = rank_in_block(blocks)
    least, most = limits.least[blocks], limits.most[blocks]
    mask = np.zeros(len(before), bool)
    mask[order[rank < least]] = True
    more = order[(rank >= least) & (rank < most)]
    mask[more[: keep - int(limits.least.sum())]] = True
    return mask


def rank_in_block(blocks: np.ndarray) -> np.ndarray:
    """How many before each element are of the same block.

    Args:
        blocks: (n,) int.

    Example:
        >>> rank_in_block(np.array([1, 0, 1, 1, 0]))
        array([0, 0, 1, 2, 1])
    """
    by_block = np.argsort(blocks, kind="stable")
    sizes = np.bincount(blocks)
    firsts = np.repeat(np.cumsum(sizes) - sizes, sizes)
    rank = np.empty(len(blocks), np.int64)
    rank[by_block] = np.arange(len(blocks)) - firsts
    return rank


def select_greedy_within(
    importance: LayerScores,
    previous: LayerMask,
    keep: int,
    limits: Limits,
    *,
    deficit: Deficit = "relative",
    advances: int = 1,
) -> NumpyMask:
    """FairGRAPE's choice within a pattern: `select_greedy`, passing by what a block cannot take.

    A weight is passed by if its block has all it may keep, or, once the weights that are left to
    choose are just those that other blocks still need, if it has the least it keeps. What was
    passed by never becomes possible again, so one walk through each group's order is enough.

    Args:
        importance: as for `select_greedy`.
        previous: (n,) bool, the weights alive.
        keep: how many weights to keep.
        limits: of every block.
        deficit: as for `select_greedy`.
        advances: likewise.

    Example:
        >>> from fairgrape_jax.selection.patterns import NofM, limits
        >>> importance = np.array([[4.0, 3.0, 0.0, 0.0], [2.0, 1.0, 0.5, 0.1]])
        >>> blocks = limits(NofM(1, 2), np.array([0, 0, 1, 1]), np.ones(4, bool), 2)
        >>> select_greedy_within(importance, np.ones(4, bool), 2, blocks)
        array([ True, False,  True, False])
    """
    scores, before, keep = check_layer(importance, previous, keep)
    alive = np.flatnonzero(before)
    candidates = scores[:, alive]
    columns = np.ascontiguousarray(as_float(candidates).T)
    totals = group_totals(columns)
    active = np.flatnonzero(totals > 0)
    columns = np.ascontiguousarray(columns[:, active])
    groups = order_groups(candidates[active], columns, totals[active], deficit)
    in_blocks = Limits(limits.blocks[alive].astype(np.int64), limits.least, limits.most)
    mask = np.zeros(len(before), bool)
    mask[alive] = _walk()(columns, groups, in_blocks, keep, advances)
    return mask


def select_maxmin_within(
    importance: LayerScores, previous: LayerMask, keep: int, limits: Limits
) -> NumpyMask:
    """Most importance retained for the worst group within a pattern, to an approximation.

    For any weights of the groups, `select_first_within` of the weighted sum is the best choice;
    weights move by multiplicative updates towards the groups that retain least, and the best choice
    seen is returned.

    Args:
        importance: (G, n) of any real dtype, non-negative.
        previous: (n,) bool, the weights alive.
        keep: how many weights to keep.
        limits: of every block.

    Source:
        Arora, Hazan, Kale, "The Multiplicative Weights Update Method" (2012), Sec. 3.2.

    Example:
        >>> from fairgrape_jax.selection.patterns import NofM, limits
        >>> importance = np.array([[4.0, 3, 0, 0], [0, 0, 2.0, 1]])
        >>> blocks = limits(NofM(1, 2), np.array([0, 0, 1, 1]), np.ones(4, bool), 2)
        >>> select_maxmin_within(importance, np.ones(4, bool), 2, blocks)
        array([ True, False,  True, False])
    """
    scores, before, keep = check_layer(importance, previous, keep)
    parts = as_float(scores).astype(np.float64) * before
    totals = parts.sum(axis=1)
    parts = parts[totals > 0] / totals[totals > 0, None]
    if len(parts) < 2:
        rows = parts if len(parts) else np.zeros((1, len(before)))
        return select_first_within(rows, before, keep, limits)
    weights = np.full(len(parts), 1 / len(parts))
    step = np.sqrt(8 * np.log(len(parts)) / PASSES)
    best, most = np.zeros(0, bool), -1.0
    for _ in range(PASSES):
        mask = select_first_within((weights @ parts)[None], before, keep, limits)
        retained: Float64[np.ndarray, " G"] = parts[:, mask].sum(axis=1)
        if retained.min() > most:
            best, most = mask, float(retained.min())
        weights = weights * np.exp(-step * (retained - retained.min()))
        weights /= weights.sum()
    return best


@functools.cache
def _walk() -> Callable[..., np.ndarray]:
    """The greedy loop within limits, compiled at its first use."""

    def walk(importance, by_group, limits, keep, advances):  # pragma: no cover - compiled
        order, ends, target, scale = by_group
        blocks, least, most = limits
        n, groups = importance.shape
        selected = np.zeros(n, np.bool_)
        taken = np.zeros(len(most), np.int64)
        needed = least.sum()
        position = np.zeros(groups, np.int64)
        kept = np.zeros(groups)
        count = 0
        lowest_index = 0
        share = np.full(groups, 1.0 / max(groups, 1))
        while count < keep:
            worst, lowest = -1, np.inf
            for k in range(groups):
                change = (share[k] - target[k]) * scale[k]
                if position[k] < ends[k] and change < lowest:
                    worst, lowest = k, change
            # Where no group has any importance left, the lowest indices are kept.
            for _ in range(advances if worst >= 0 else 1):
                if count == keep or (worst >= 0 and position[worst] == n):
                    break
                if worst >= 0:
                    w = order[worst, position[worst]]
                    position[worst] += 1
                else:
                    w = lowest_index
                    lowest_index += 1
                b = blocks[w]
                room = taken[b] < (least[b] if keep - count <= needed else most[b])
                if not selected[w] and room:
                    selected[w] = True
                    count += 1
                    if taken[b] < least[b]:
                        needed -= 1
                    taken[b] += 1
                    for k in range(groups):
                        kept[k] += importance[w, k]
            total = kept.sum()
            if total > 0:
                for k in range(groups):
                    share[k] = kept[k] / total
        return selected

    return njit(walk)
