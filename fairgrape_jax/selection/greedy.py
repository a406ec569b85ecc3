"""Which weights of a layer stay: FairGRAPE's greedy choice, and the plain top-K beside it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Int, Shaped, UInt32

from fairgrape_jax._numba import njit
from fairgrape_jax.masks import Array
from fairgrape_jax.selection.inputs import (
    LayerMask,
    LayerScores,
    NumpyMask,
    as_float,
    check_layer,
    groups_first,
    on_host,
    rankable,
)

Deficit = Literal["relative", "absolute"]
Select = Literal["threshold", "greedy"]


def select_greedy(
    importance: LayerScores,
    previous: LayerMask,
    keep: int,
    *,
    deficit: Deficit = "relative",
    advances: int = 1,
) -> NumpyMask:
    """FairGRAPE's choice for one layer: keep each group's share of importance.

    Repeats until `keep` weights are selected: take the group that lost the largest part of its
    share, and add its most important weight that is not selected yet; the weight brings its
    importance for every group. Shares count as 1/G before the first pick.

    Ties go to the lower index, of weights as of groups. A group takes no part once it has all of
    its importance (rounding alone could say that it lost some), nor does one without any; where
    none is left that does, the lowest indices are kept.

    Args:
        importance: (G, n) of any real dtype, non-negative; summed in float64.
        previous: (n,) bool, the weights alive, of which alone the targets are computed and the
            choice is made.
        keep: the exact number of weights to keep.
        deficit: "relative", (P - P*) / P* (Eq. 8), or "absolute", P - P* (the official code).
        advances: positions to advance in the chosen group's order before the deficits are looked
            at again, positions already selected included (the official code: 2).

    Returns:
        (n,) bool, `keep` of them True, all within `previous`.

    Raises:
        ValueError: shapes that do not fit, a `keep` outside 0..alive, importances that are
            negative, NaN or infinite, or of which a group's sum is beyond float64.

    Source:
        FairGRAPE (arXiv 2207.10888), Algorithm 1, Eqs. 7 and 8.

    Example:
        >>> importance = np.array([[4.0, 3.0, 0.0, 0.0], [0.0, 0.0, 2.0, 1.0]])
        >>> select_greedy(importance, np.ones(4, bool), 2)
        array([ True, False,  True, False])
    """
    scores, before, keep = check_layer(importance, previous, keep)
    if deficit not in ("relative", "absolute"):
        raise ValueError(f"deficit: {deficit!r} is neither 'relative' nor 'absolute'")
    if advances < 1:
        raise ValueError(f"advances: {advances} is less than 1")
    alive = np.flatnonzero(before)
    mask = np.zeros(len(before), bool)
    candidates = scores[:, alive]
    # The loop reads the groups of one weight together; added weight by weight, in their order.
    columns = np.ascontiguousarray(as_float(candidates).T)
    totals = group_totals(columns)
    active = np.flatnonzero(totals > 0)
    if len(active) == 0 or keep == len(alive):
        mask[alive[:keep]] = True
        return mask
    columns = np.ascontiguousarray(columns[:, active])
    groups = order_groups(candidates[active], columns, totals[active], deficit)
    chosen = _walk()(columns, groups, keep, advances)
    chosen[np.flatnonzero(~chosen)[: keep - np.count_nonzero(chosen)]] = True
    mask[alive] = chosen
    return mask


def group_totals(columns: Float[np.ndarray, "n G"]) -> Float64[np.ndarray, " G"]:
    """The sum of every group's importance.

    Args:
        columns: importance, the groups of a weight together.

    Raises:
        ValueError: sums, or what lies between them, that float64 cannot hold.
    """
    with np.errstate(over="ignore"):
        totals = columns.sum(axis=0, dtype=np.float64)
        whole = totals.sum()
    if not np.isfinite(whole):
        raise ValueError("importance: sums are beyond float64; divide by the largest value first")
    if whole > 0 and (totals[totals > 0] / whole).min(initial=1) < 1e-300:
        raise ValueError(
            "importance: the sums of two groups are further apart than float64 can hold; scale "
            "every group to a largest value of 1 first"
        )
    return totals


def select_top(scores: Shaped[Array, " n"], previous: LayerMask, keep: int) -> NumpyMask:
    """The `keep` weights of highest score among those alive, ties to the lower index.

    Args:
        scores: (n,) of any real dtype and sign.
        previous: (n,) bool, the weights alive.
        keep: the exact number of weights to keep.

    Returns:
        (n,) bool.

    Raises:
        ValueError: as `select_greedy`.

    Example:
        >>> select_top(np.array([1.0, 2.0, 2.0, 9.0]), np.array([True, True, True, False]), 1)
        array([False,  True, False, False])
    """
    if np.ndim(scores) != 1:
        raise ValueError(f"scores {np.shape(scores)}: (n,) is expected")
    rows, before, keep = check_layer(on_host(scores)[None], previous, keep, signed=True)
    alive = np.flatnonzero(before)
    mask = np.zeros(len(before), bool)
    mask[alive[descending(rows[0, alive])[:keep]]] = True
    return mask


def select_first(scores: LayerScores, previous: LayerMask, keep: int) -> NumpyMask:
    """`select_top` by the first of K rows of scores, (K, n).

    Args:
        scores: of any real dtype; the first row counts.
        previous: the weights alive.
        keep: the exact number of weights to keep.

    Example:
        >>> select_first(np.array([[1.0, 2.0, 3.0]]), np.ones(3, bool), 2)
        array([False,  True,  True])
    """
    return select_top(groups_first(scores, len(previous))[0], previous, keep)


def descending(values: Shaped[Array, " n"]) -> UInt32[np.ndarray, " n"]:
    """Indices that sort finite values from large to small, ties by index.

    The bits of a float32 order as the float does, once those of negative ones are turned round, so
    bits and index pack into one 64-bit integer, and one integer sort, far faster than a stable
    argsort, gives both.

    Args:
        values: (n,) of any real dtype.

    Returns:
        (n,) uint32.

    Example:
        >>> descending(np.array([1.0, 3.0, -2.0, 3.0, -5.0], np.float32))
        array([1, 3, 0, 2, 4], dtype=uint32)
    """
    values = rankable(values, "values")
    if values.dtype.kind != "f":  # the complement turns an integer round, of either sign
        return np.argsort(~values, kind="stable").astype(np.uint32)
    if values.dtype != np.float32:
        return np.argsort(-values, kind="stable").astype(np.uint32)
    bits = (values + np.float32(0)).view(np.uint32)  # -0.0 + 0 is +0.0
    falling = np.where(bits >> 31, bits, bits ^ np.uint32(0x7FFFFFFF))
    keys = falling.astype(np.uint64) << np.uint64(32)
    keys |= np.arange(len(values), dtype=np.uint64)
    keys.sort()
    return (keys & np.uint64(0xFFFFFFFF)).astype(np.uint32)


def shares(importance: LayerScores, mask: LayerMask) -> Float64[np.ndarray, " G"]:
    """Each group's share of the importance of the weights in `mask`, P_k.

    Args:
        importance: (G, n) of any real dtype.
        mask: (n,) bool.

    Returns:
        (G,) float64, of sum 1; zeros where no importance is left.

    Source:
        FairGRAPE, Eq. 7.

    Example:
        >>> shares(np.array([[3.0, 1.0], [1.0, 1.0]]), np.array([True, False]))
        array([0.75, 0.25])
    """
    mask = on_host(mask)
    scores = rankable(groups_first(importance, len(mask)), "importance")
    kept = np.ascontiguousarray(as_float(scores[:, mask]).T).sum(axis=0, dtype=np.float64)
    total = kept.sum()
    return kept / total if total > 0 else np.zeros_like(kept)


class Groups(NamedTuple):
    """What the greedy loop looks at of each group.

    Attributes:
        order: of the weights, from its most important one on.
        ends: how many have any importance.
        target: its share.
        scale: by which a loss of share counts.
    """

    order: UInt32[np.ndarray, "G n"]
    ends: Int[np.ndarray, " G"]
    target: Float64[np.ndarray, " G"]
    scale: Float64[np.ndarray, " G"]


def order_groups(
    candidates: Shaped[np.ndarray, "G n"],
    columns: Float[np.ndarray, "n G"],
    totals: Float64[np.ndarray, " G"],
    deficit: Deficit,
) -> Groups:
    """What the greedy loop looks at of groups that have some importance.

    Args:
        candidates: importance of the weights alive, as it ranks.
        columns: the same as floats, the groups of a weight together.
        totals: the sum of every group's.
        deficit: as for `select_greedy`.
    """
    order = [descending(row) for row in candidates]
    target = totals / totals.sum()
    scale = 1.0 / target if deficit == "relative" else np.ones_like(target)
    # Without any group, too.
    ranked = np.stack(order) if order else np.zeros(candidates.shape, np.uint32)
    return Groups(ranked, np.count_nonzero(columns, axis=0), target, scale)


@functools.cache
def _walk() -> Callable[[np.ndarray, Groups, int, int], np.ndarray]:
    """The greedy loop, compiled at its first use."""

    def walk(importance, by_group, keep, advances):  # pragma: no cover - compiled
        order, ends, target, scale = by_group
        n, groups = importance.shape
        selected = np.zeros(n, np.bool_)
        position = np.zeros(groups, np.int64)
        kept = np.zeros(groups)
        count = 0
        share = np.full(groups, 1.0 / groups)
        while count < keep:
            worst, lowest = -1, np.inf
            for k in range(groups):
                change = (share[k] - target[k]) * scale[k]
                if position[k] < ends[k] and change < lowest:
                    worst, lowest = k, change
            if worst < 0:
                break
            for _ in range(advances):
                if count == keep or position[worst] == n:
                    break
                w = order[worst, position[worst]]
                position[worst] += 1
                if not selected[w]:
                    selected[w] = True
                    count += 1
                    for k in range(groups):
                        kept[k] += importance[w, k]
            total = kept.sum()
            for k in range(groups):
                share[k] = kept[k] / total
        return selected

    return njit(walk)
