"""Whole weights from lambda: the choice, its swaps, and the certificate of what it achieves."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float64, Int

from fairgrape_jax.selection.maxmin.layer import Layer, select_largest

EDGE, TIES = 1000, 20_000  # weights at the edge that are looked at, on either side, and tied
SWAPS = 1000  # at most


@dataclasses.dataclass(frozen=True)
class Certificate:
    """How good a choice is: the worst group's retained part, and what no choice can exceed.

    Attributes:
        achieved: the worst group's retained part, a sum in float64.
        bound: what no choice can exceed, likewise.
        passes: evaluations of D, each counted for the part of the layer's weights that it was made
            over, rounded up.
    """

    achieved: float
    bound: float
    passes: int

    @property
    def gap(self) -> float:
        """Bound minus achieved."""
        return self.bound - self.achieved


def conclude(
    layer: Layer,
    lambdas: Float64[np.ndarray, " G"],
    passes: int,
    greedy: Sequence[Bool[np.ndarray, " n"]],
) -> tuple[Bool[np.ndarray, " n"], Certificate]:
    """Whole weights from lambda, greedy's where one of them is better, and the certificate.

    Args:
        layer: what is chosen from.
        lambdas: where D is least; the bound is D there, evaluated here in float64.
        passes: for the certificate.
        greedy: choices that must not be better.
    """
    if not layer.active.any():
        whole = float(layer.keep == np.count_nonzero(layer.alive))
        return greedy[0], Certificate(whole, whole, 0)
    rounded, bound = round_primal(layer, lambdas)
    candidates = [*greedy, *rounded]
    retained = [
        float((layer.retained(mask) / np.where(layer.active, layer.totals, 1))[layer.active].min())
        for mask in candidates
    ]
    best = int(np.argmax(retained))  # greedy on ties: it comes first
    return candidates[best], Certificate(retained[best], max(bound, retained[best]), passes)


def round_primal(
    layer: Layer, lambdas: Float64[np.ndarray, " G"]
) -> tuple[list[Bool[np.ndarray, " _n"]], float]:
    """Choices of K whole weights from lambda, and D(lambda).

    The largest sums, and the best fractional choice among the weights at the boundary, which has at
    most G fractional weights; either with swaps across the boundary.

    Args:
        layer: what is chosen from.
        lambdas: on the simplex, 0 for groups without importance.
    """
    scores = layer.scores(lambdas)
    chosen = select_largest(scores, layer.keep)
    edge, bound = float(scores[chosen].min()), float(scores[chosen].sum())
    band = boundary(scores, chosen, edge, EDGE)
    parts, inner = layer.parts(band)[:, layer.active], chosen[band]
    base = layer.retained(chosen)[layer.active] / layer.totals[layer.active]
    exchanged = chosen.copy()
    exchanged[band] = fractional(parts, base - parts[inner].sum(axis=0), int(inner.sum()))
    return [swap(layer, mask, scores, edge) for mask in (chosen, exchanged)], bound


def swap(
    layer: Layer, chosen: Bool[np.ndarray, " n"], scores: Float64[np.ndarray, " n"], edge: float
) -> Bool[np.ndarray, " n"]:
    """Exchange weights nearest to the edge, and those that tie, while one lifts the worst group.

    Args:
        layer: what is chosen from.
        chosen: the choice to begin with.
        scores: of every weight.
        edge: the lowest score among those of the largest.
    """
    band = boundary(scores, chosen, edge, 8 * len(layer.rows))
    parts, inner = layer.parts(band)[:, layer.active], chosen[band]
    retained = layer.retained(chosen)[layer.active] / layer.totals[layer.active]
    for _ in range(SWAPS):
        inside = extremes(-parts, np.flatnonzero(inner))
        outside = extremes(parts, np.flatnonzero(~inner))
        if not (len(inside) and len(outside)):
            break
        difference = parts[outside][None] - parts[inside][:, None]
        lifted = (retained + difference).min(axis=-1)
        i, j = np.unravel_index(np.argmax(lifted), lifted.shape)
        if lifted[i, j] <= retained.min() * (1 + 1e-12):
            break
        retained = retained + difference[i, j]
        inner[inside[i]], inner[outside[j]] = False, True
    swapped = chosen.copy()
    swapped[band] = inner
    return swapped


def fractional(
    parts: Float64[np.ndarray, "B G"], base: Float64[np.ndarray, " G"], keep: int
) -> Bool[np.ndarray, " B"]:
    """The `keep` weights with the largest parts in the best fractional choice.

    A linear program, in units of the largest part.

    Args:
        parts: I[k, w] / T_k.
        base: the part of every group that is retained without these weights.
        keep: how many to keep.

    Example:
        >>> fractional(np.array([[0.5, 0.0], [0.0, 0.5], [0.4, 0.4]]), np.zeros(2), 1)
        array([False, False,  True])
    """
    from scipy.optimize import linprog

    unit, count = parts.max() or 1.0, len(parts)
    solution = linprog(
        np.r_[np.zeros(count), -1],
        A_ub=np.c_[-parts.T / unit, np.ones(len(base))],
        b_ub=(base - base.min()) / unit,
        A_eq=np.r_[np.ones(count), 0][None],
        b_eq=[keep],
        bounds=[(0, 1)] * count + [(None, None)],
        method="highs",
    )
    return select_largest(solution.x[:-1], keep)


def boundary(
    scores: Float64[np.ndarray, " n"], chosen: Bool[np.ndarray, " n"], edge: float, near: int
) -> Int[np.ndarray, " B"]:
    """Indices of the `near` weights on either side nearest to the edge, and of up to TIES ties.

    Args:
        scores: of every weight.
        chosen: those of the largest.
        edge: the lowest score among them.
        near: how many weights on either side.
    """
    distance = np.abs(scores - edge)
    nearest = [np.flatnonzero(distance <= 1e-9 * edge)[:TIES]]
    for side in (chosen, ~chosen & (scores >= 0)):
        members = np.flatnonzero(side)
        count = min(near, len(members))
        if count:
            nearest.append(members[np.argpartition(distance[members], count - 1)[:count]])
    return np.unique(np.concatenate(nearest))


def extremes(
    parts: Float64[np.ndarray, "B G"], members: Int[np.ndarray, " M"]
) -> Int[np.ndarray, " _m"]:
    """The members with the largest parts of each group: eight a group, all if they are few.

    Args:
        parts: I[k, w] / T_k.
        members: indices of the weights to look at.
    """
    groups = parts.shape[1]
    if len(members) <= 8 * groups:
        return members
    best = [np.argpartition(-parts[members, k], 7)[:8] for k in range(groups)]
    return members[np.unique(np.concatenate(best))]
