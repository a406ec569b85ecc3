"""One layer: the dual on the host, and the choice of whole weights with its certificate."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

import numpy as np

from fairgrape_jax.selection.greedy import select_greedy
from fairgrape_jax.selection.inputs import LayerMask, LayerScores, NumpyMask, as_float, check_layer
from fairgrape_jax.selection.maxmin.bundle import Bundle, reached

SAMPLE = 100_000  # weights at least in a sample of a layer, which has twice as many
STEP = 12  # every which weight is in it, at most: a sample of many weights is itself sampled
NEAR = 32  # a pass over a layer brings this part of its weights to sight, on either side
ROUNDS, BANDS = 50, 3  # of them at most, and how many are remembered
EDGE, TIES = 1000, 20_000  # weights at the edge that rounding looks at, on either side, and tied
SWAPS = 1000  # of the rounding, at most


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


@dataclasses.dataclass(frozen=True)
class Layer:
    """What is chosen from: importance (G, n), the weights alive (n,), and how many to keep."""

    rows: np.ndarray
    alive: np.ndarray
    keep: int

    @cached_property
    def totals(self) -> np.ndarray:
        """(G,) float64: each group's importance alive."""
        return self.retained(self.alive)

    @cached_property
    def active(self) -> np.ndarray:
        """(G,) bool: the groups with importance, none where there is nothing to choose."""
        settled = self.keep in (0, np.count_nonzero(self.alive))
        return (self.totals > 0) & (not settled)

    def retained(self, mask: np.ndarray) -> np.ndarray:
        """(G,) float64: each group's importance within `mask`."""
        every = mask.all()
        return np.array([(r if every else r[mask]).sum(dtype=np.float64) for r in self.rows])

    def parts(self, members: np.ndarray) -> np.ndarray:
        """(len(members), G) float64: I[k, w] / T_k, 0 for a group without importance."""
        totals = np.where(self.totals > 0, self.totals, 1)
        return np.ascontiguousarray((self.rows[:, members] / totals[:, None]).T)

    def scores(self, weights: np.ndarray) -> np.ndarray:
        """(n,) float64: sum_k lambda_k I[k, w] / T_k, minus infinity for the dead."""
        found = np.zeros(len(self.alive))
        for k in np.flatnonzero(weights):
            found += self.rows[k] * (weights[k] / self.totals[k])
        found[~self.alive] = -np.inf
        return found

    @property
    def near(self) -> tuple[int, int]:
        """How many weights come before those near the edge, and how many come after it begins."""
        near, alive = len(self.alive) // NEAR, int(np.count_nonzero(self.alive))
        return max(self.keep - near, 0), min(self.keep + near, alive)

    @property
    def step(self) -> int:
        """Every which weight is in a sample; 1 for a layer that is small enough as it is."""
        return sampling_step(len(self.alive))

    def sample(self) -> Layer:
        """Every so many of the weights, and as large a part of them to keep."""
        alive = self.alive[:: self.step]
        share = self.keep / max(1, int(np.count_nonzero(self.alive)))
        count = int(np.count_nonzero(alive))
        keep = min(count, max(1, round(share * count)))
        return Layer(np.ascontiguousarray(self.rows[:, :: self.step]), alive, keep)


def sampling_step(n: int) -> int:
    """Every which weight of a layer of n is in its sample; 1 for one that is searched as it is.

    >>> sampling_step(1000), sampling_step(300_000)
    (1, 3)
    """
    return min(n // SAMPLE, STEP) if n > 2 * SAMPLE else 1


def select_maxmin(importance: LayerScores, previous: LayerMask, keep: int) -> NumpyMask:
    """The `keep` weights of a layer that retain most importance for the worst group.

    Never below `select_greedy` on the worst group's retained part. Groups without importance take
    no part.

    Args:
        importance: (G, n) of any real dtype, non-negative.
        previous: (n,) bool, the weights alive.
        keep: the exact number of weights to keep.

    Returns:
        (n,) bool of the exact count, nested in `previous`.

    Raises:
        ValueError: as `select_greedy`.

    Source:
        docs/selection.md.

    Example:
        >>> importance = np.array([[5.0, 0.0, 4.0, 1.0], [0.0, 5.0, 4.0, 1.0]])
        >>> select_maxmin(importance, np.ones(4, bool), 1)
        array([False, False,  True, False])
    """
    return certified_maxmin(importance, previous, keep)[0]


def certified_maxmin(
    importance: LayerScores, previous: LayerMask, keep: int
) -> tuple[NumpyMask, Certificate]:
    """As `select_maxmin`, with the certificate of its choice.

    Example:
        >>> importance = np.array([[5.0, 0.0, 4.0, 1.0], [0.0, 5.0, 4.0, 1.0]])
        >>> mask, certificate = certified_maxmin(importance, np.ones(4, bool), 1)
        >>> certificate.achieved, certificate.bound
        (0.4, 0.4)
    """
    scores, before, keep = check_layer(importance, previous, keep)
    greedy = select_greedy(scores, before, keep)
    alive = np.flatnonzero(before)
    rows = np.ascontiguousarray(as_float(scores)[:, alive])
    layer = Layer(rows, np.ones(len(alive), bool), keep)
    ((weights, passes),) = solve([layer], on_host)
    chosen, certificate = conclude(layer, weights, passes, [greedy[alive]])
    mask = np.zeros(len(before), bool)
    mask[alive[chosen]] = True
    return mask, certificate


@dataclasses.dataclass(frozen=True)
class Band:
    """The weights near the edge of a layer's choice, from one pass over the layer.

    parts: (B, G), of the weights in the band; base: (G,), what is retained without them; keep: how
    many of them are kept.
    """

    parts: np.ndarray
    base: np.ndarray
    keep: int

    def retained(self, weights: np.ndarray) -> np.ndarray:
        """A subgradient of D: what the K largest sums retain of every group, (G,).

        Only the band is chosen from: at most D, and D itself near where the band was found.
        """
        return self.base + self.parts[largest(self.parts @ weights, self.keep)].sum(axis=0)


Survey = Callable[[np.ndarray], Sequence[Band]]  # lambda (L, G) to the bands of L layers


def solve(
    layers: Sequence[Layer], prepare: Callable[[Sequence[Layer]], Survey]
) -> list[tuple[np.ndarray, int]]:
    """Minimise D of every layer: lambda (G,), and the passes over its weights.

    Small layers are searched as they are. Large ones start from the solution on a sample; then a
    pass over the whole brings the weights near the edge to sight, D is minimised as if only these
    could be exchanged, which bounds its minimum from below, and so on from there. prepare: makes
    the function that makes this pass over all large layers at once.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        searches = list(pool.map(Search, layers))
        large = [search for search in searches if search.layer.step > 1]
        if all(search.done for search in large):
            return [(search.best, math.ceil(search.passes)) for search in searches]
        survey = prepare([search.layer for search in large])
        for _ in range(ROUNDS):
            if all(search.done for search in large):
                break
            list(pool.map(Search.look, large, survey(np.stack([s.next for s in large]))))
    return [(search.best, math.ceil(search.passes)) for search in searches]


class Search:
    """Where the search in a layer stands: the best lambda, and where D is to be evaluated next."""

    def __init__(self, layer: Layer) -> None:
        self.layer, self.bundle, self.value = layer, Bundle(layer.active), np.inf
        self.bands: list[Band] = []
        self.best, self.passes = self.bundle.best, 0.0
        self.done = layer.step == 1 or not layer.active.any()
        if layer.step > 1:
            ((found, passes),) = solve([layer.sample()], on_host)
            self.passes = passes / layer.step
            if found.any():  # there was something to choose in the sample
                self.best = found
        elif layer.active.any():
            everyone = Band(layer.parts(np.flatnonzero(layer.alive)), np.zeros(1), layer.keep)
            self.bundle.explore(everyone.retained)
            self.bundle.refine(everyone.retained)
            self.best, self.passes = self.bundle.best, len(self.bundle.cuts)
        self.next = self.best

    def look(self, band: Band) -> None:
        """D at `next` is known: minimise it over the band, unless it is known well enough."""
        if self.done:
            return
        here, before = self.next, len(self.bundle.cuts)
        retained = band.retained(here)
        value = float(here @ retained)
        if value < self.value:
            self.value, self.best = value, here
        self.bands = [*self.bands[1 - BANDS :], band]
        self.bundle.restart(here, retained)
        floor = self.bundle.refine(self.model)
        self.done = reached(self.value, floor)
        self.next = self.bundle.best
        weights = sum(len(each.parts) for each in self.bands)
        seen = (len(self.bundle.cuts) - before) * weights / len(self.layer.alive)
        self.passes += 1 + seen

    def model(self, weights: np.ndarray) -> np.ndarray:
        """The highest of the cuts that the last bands give at a point."""
        return max((band.retained(weights) for band in self.bands), key=lambda cut: weights @ cut)


def on_host(layers: Sequence[Layer]) -> Survey:
    """The passes over one layer after the other, in float64."""

    def look(layer: Layer, weights: np.ndarray) -> Band:
        scores, (before, after) = layer.scores(weights), layer.near
        base = largest(scores, before)
        band = largest(scores, after) & ~base
        totals = np.where(layer.totals > 0, layer.totals, 1)
        return Band(
            layer.parts(np.flatnonzero(band)), layer.retained(base) / totals, layer.keep - before
        )

    return lambda weights: [look(*pair) for pair in zip(layers, weights, strict=True)]


def largest(scores: np.ndarray, keep: int) -> np.ndarray:
    """(n,) bool of the `keep` largest scores, ties to the lower index.

    >>> largest(np.array([1.0, 3.0, 2.0, 2.0]), 2)
    array([False,  True,  True, False])
    """
    if keep == 0:
        return np.zeros(len(scores), bool)
    threshold = np.partition(scores, len(scores) - keep)[len(scores) - keep]
    mask = scores > threshold
    ties = np.flatnonzero(scores == threshold)
    mask[ties[: keep - int(mask.sum())]] = True
    return mask


def conclude(
    layer: Layer, weights: np.ndarray, passes: int, greedy: Sequence[np.ndarray]
) -> tuple[np.ndarray, Certificate]:
    """Whole weights from lambda, greedy's where one of them is better, and the certificate.

    The bound is D(lambda), evaluated here in float64.
    """
    if not layer.active.any():
        whole = float(layer.keep == np.count_nonzero(layer.alive))
        return greedy[0], Certificate(whole, whole, 0)
    rounded, bound = round_primal(layer, weights)
    candidates = [*greedy, *rounded]
    retained = [
        float((layer.retained(mask) / np.where(layer.active, layer.totals, 1))[layer.active].min())
        for mask in candidates
    ]
    best = int(np.argmax(retained))  # greedy on ties: it comes first
    return candidates[best], Certificate(retained[best], max(bound, retained[best]), passes)


def round_primal(layer: Layer, weights: np.ndarray) -> tuple[list[np.ndarray], float]:
    """Choices of K whole weights from lambda, and D(lambda).

    The largest sums, and the best fractional choice among the weights at the boundary, which has at
    most G fractional weights; either with swaps across the boundary.
    """
    scores = layer.scores(weights)
    chosen = largest(scores, layer.keep)
    edge, bound = float(scores[chosen].min()), float(scores[chosen].sum())
    band = boundary(scores, chosen, edge, EDGE)
    parts, inner = layer.parts(band)[:, layer.active], chosen[band]
    base = layer.retained(chosen)[layer.active] / layer.totals[layer.active]
    exchanged = chosen.copy()
    exchanged[band] = fractional(parts, base - parts[inner].sum(axis=0), int(inner.sum()))
    return [swap(layer, mask, scores, edge) for mask in (chosen, exchanged)], bound


def swap(layer: Layer, chosen: np.ndarray, scores: np.ndarray, edge: float) -> np.ndarray:
    """Exchange weights nearest to the edge, and those that tie, while one lifts the worst group."""
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
    found = chosen.copy()
    found[band] = inner
    return found


def fractional(parts: np.ndarray, base: np.ndarray, keep: int) -> np.ndarray:
    """(B,) bool: the `keep` weights with the largest parts in the best fractional choice.

    parts: (B, G); base: (G,), what is retained without them. A linear program, in units of the
    largest part.
    """
    from scipy.optimize import linprog

    unit, count = parts.max() or 1.0, len(parts)
    found = linprog(
        np.r_[np.zeros(count), -1],
        A_ub=np.c_[-parts.T / unit, np.ones(len(base))],
        b_ub=(base - base.min()) / unit,
        A_eq=np.r_[np.ones(count), 0][None],
        b_eq=[keep],
        bounds=[(0, 1)] * count + [(None, None)],
        method="highs",
    )
    return largest(found.x[:-1], keep)


def boundary(scores: np.ndarray, chosen: np.ndarray, edge: float, near: int) -> np.ndarray:
    """Indices of the `near` weights on either side nearest to the edge, and of up to TIES ties."""
    distance = np.abs(scores - edge)
    found = [np.flatnonzero(distance <= 1e-9 * edge)[:TIES]]
    for side in (chosen, ~chosen & (scores >= 0)):
        members = np.flatnonzero(side)
        count = min(near, len(members))
        if count:
            found.append(members[np.argpartition(distance[members], count - 1)[:count]])
    return np.unique(np.concatenate(found))


def extremes(parts: np.ndarray, members: np.ndarray) -> np.ndarray:
    """The members with the largest parts of each group: eight a group, all if they are few."""
    groups = parts.shape[1]
    if len(members) <= 8 * groups:
        return members
    own = parts[members]
    best = [np.argpartition(-own[:, k], 7)[:8] for k in range(groups)]
    return members[np.unique(np.concatenate(best))]
