"""Which weights of a layer stay: FairGRAPE's greedy choice, and the plain top-K beside it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Literal

import numpy as np

from fairgrape_jax._numba import njit

Deficit = Literal["relative", "absolute"]
Select = Literal["threshold", "greedy"]


def select_greedy(
    importance: np.ndarray,
    previous: np.ndarray,
    keep: int,
    *,
    deficit: Deficit = "relative",
    advances: int = 1,
) -> np.ndarray:
    """FairGRAPE's choice for one layer: keep each group's share of importance.

    Repeats until `keep` weights are selected: take the group that lost the largest part of its
    share, and add its most important weight that is not selected yet; the weight brings its
    importance for every group. Shares count as 1/G before the first pick.

    importance: (n, G), non-negative; previous: (n,) bool, the weights alive, of which alone the
    targets are computed and the choice is made; keep: the exact number of weights to keep.
    deficit: "relative", (P - P*) / P* (Eq. 8), or "absolute", P - P* (the official code).
    advances: positions to advance in the chosen group's order before the deficits are looked at
    again, positions already selected included (the official code: 2).
    Ties go to the lower index, of weights as of groups. A group takes no part once it has all of
    its importance (rounding alone could say that it lost some), nor does one without any; where
    none is left that does, the lowest indices are kept.
    Returns (n,) bool. Raises ValueError for shapes that do not fit, a `keep` outside 0..alive, or
    importances that are negative, NaN or infinite.
    Source: FairGRAPE (arXiv 2207.10888), Algorithm 1, Eqs. 7 and 8.

    >>> importance = np.array([[4.0, 0.0], [3.0, 0.0], [0.0, 2.0], [0.0, 1.0]])
    >>> select_greedy(importance, np.ones(4, bool), 2)
    array([ True, False,  True, False])
    """
    importance, previous = np.asarray(importance), np.asarray(previous)
    check_layer(importance, previous, keep)
    if deficit not in ("relative", "absolute"):
        raise ValueError(f"deficit: {deficit!r} is neither 'relative' nor 'absolute'")
    if advances < 1:
        raise ValueError(f"advances: {advances} is less than 1")
    alive = np.flatnonzero(previous)
    mask = np.zeros(len(previous), bool)
    candidates = np.ascontiguousarray(importance[alive])
    totals = candidates.sum(axis=0, dtype=np.float64)
    active = np.flatnonzero(totals > 0)
    if len(active) == 0 or keep == len(alive):
        mask[alive[:keep]] = True
        return mask
    candidates = np.ascontiguousarray(candidates[:, active])
    order = np.stack([descending(candidates[:, k]) for k in range(len(active))])
    target = totals[active] / totals[active].sum()
    scale = 1.0 / target if deficit == "relative" else np.ones_like(target)
    ends = np.count_nonzero(candidates, axis=0)
    chosen = _walk()(candidates, order, ends, target, scale, keep, advances)
    chosen[np.flatnonzero(~chosen)[: keep - np.count_nonzero(chosen)]] = True
    mask[alive] = chosen
    return mask


def select_top(scores: np.ndarray, previous: np.ndarray, keep: int) -> np.ndarray:
    """The `keep` weights of highest score among those alive, ties to the lower index.

    scores: (n,), of any sign; previous: (n,) bool. Returns (n,) bool; raises as `select_greedy`.

    >>> select_top(np.array([1.0, 2.0, 2.0, 9.0]), np.array([True, True, True, False]), 1)
    array([False,  True, False, False])
    """
    scores, previous = np.asarray(scores), np.asarray(previous)
    check_layer(scores[:, None], previous, keep, signed=True)
    alive = np.flatnonzero(previous)
    mask = np.zeros(len(previous), bool)
    mask[alive[descending(scores[alive])[:keep]]] = True
    return mask


def select_first(scores: np.ndarray, previous: np.ndarray, keep: int) -> np.ndarray:
    """`select_top` by the first of K columns; scores: (n, K).

    >>> select_first(np.array([[1.0], [2.0], [3.0]]), np.ones(3, bool), 2)
    array([False,  True,  True])
    """
    return select_top(np.asarray(scores)[:, 0], previous, keep)


def descending(values: np.ndarray) -> np.ndarray:
    """Indices that sort finite values from large to small, ties by index; (n,) uint32.

    The bits of a float32 order as the float does, once those of negative ones are turned round, so
    bits and index pack into one 64-bit integer, and one integer sort, far faster than a stable
    argsort, gives both.

    >>> descending(np.array([1.0, 3.0, -2.0, 3.0, -5.0], np.float32))
    array([1, 3, 0, 2, 4], dtype=uint32)
    """
    if values.dtype != np.float32:
        return np.argsort(-values, kind="stable").astype(np.uint32)
    bits = (values + np.float32(0)).view(np.uint32)  # -0.0 + 0 is +0.0
    falling = np.where(bits >> 31, bits, bits ^ np.uint32(0x7FFFFFFF))
    keys = falling.astype(np.uint64) << np.uint64(32)
    keys |= np.arange(len(values), dtype=np.uint64)
    keys.sort()
    return (keys & np.uint64(0xFFFFFFFF)).astype(np.uint32)


def shares(importance: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Each group's share of the importance of the weights in `mask`, P_k; (G,) float64.

    Zeros where no importance is left. Source: FairGRAPE, Eq. 7.

    >>> shares(np.array([[3.0, 1.0], [1.0, 1.0]]), np.array([True, False]))
    array([0.75, 0.25])
    """
    kept = importance[mask].sum(axis=0, dtype=np.float64)
    total = kept.sum()
    return kept / total if total > 0 else np.zeros_like(kept)


def check_layer(
    importance: np.ndarray, previous: np.ndarray, keep: int, *, signed: bool = False
) -> None:
    """ValueError unless a choice of `keep` weights can be made from these arrays."""
    if importance.ndim != 2 or previous.shape != importance.shape[:1]:
        raise ValueError(
            f"importance {importance.shape} and previous {previous.shape} do not fit: "
            "(n, G) and (n,) are expected"
        )
    if previous.dtype != bool:
        raise ValueError(f"previous: dtype bool is expected, not {previous.dtype}")
    if not np.isfinite(importance).all() or (importance.min(initial=0) < 0 and not signed):
        raise ValueError("importance: negative, NaN or infinite values cannot be ranked")
    alive = int(previous.sum())
    if not 0 <= keep <= alive:
        raise ValueError(f"keep: {keep} weights cannot be kept of the {alive} that are alive")


@functools.cache
def _walk() -> Callable[..., np.ndarray]:
    """The greedy loop, compiled at its first use."""

    def walk(importance, order, ends, target, scale, keep, advances):  # pragma: no cover - compiled
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
