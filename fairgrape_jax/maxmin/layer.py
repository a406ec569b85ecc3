"""One layer: the dual on the host, and the choice of whole weights with its certificate."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np

from fairgrape_jax.maxmin.bundle import Bundle, Evaluate, minimise
from fairgrape_jax.selection import check_layer, select_greedy

SAMPLE = 100_000  # weights of a layer in the coarse solution
SWAPS, BAND = 1000, 20_000  # of the rounding: swaps at most, and weights that tie at the edge


@dataclasses.dataclass(frozen=True)
class Certificate:
    """How good a choice is: the worst group's retained part, and what no choice can exceed.

    Both are sums in float64. passes: evaluations of D, a sample's for its part of the layer.
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
    def step(self) -> int:
        """Every which weight is in a sample; 1 for a layer that is small enough as it is."""
        n = len(self.alive)
        return n // SAMPLE if n > 2 * SAMPLE else 1

    def sample(self) -> Layer:
        """Every so many of the weights, and as large a part of them to keep."""
        alive = self.alive[:: self.step]
        share = self.keep / max(1, np.count_nonzero(self.alive))
        count = int(np.count_nonzero(alive))
        keep = min(count, max(1, round(share * count)))
        return Layer(self.rows[:, :: self.step], alive, keep)


def select_maxmin(importance: np.ndarray, previous: np.ndarray, keep: int) -> np.ndarray:
    """The `keep` weights of a layer that retain most importance for the worst group.

    importance: (n, G), non-negative; previous: (n,) bool, the weights alive. Returns (n,) bool of
    the exact count, nested in `previous`. Never below `select_greedy` on the worst group's retained
    part. Groups without importance take no part. Raises ValueError as `select_greedy` does.

    >>> importance = np.array([[5.0, 0.0], [0.0, 5.0], [4.0, 4.0], [1.0, 1.0]])
    >>> select_maxmin(importance, np.ones(4, bool), 1)
    array([False, False,  True, False])
    """
    return certified_maxmin(importance, previous, keep)[0]


def certified_maxmin(
    importance: np.ndarray, previous: np.ndarray, keep: int
) -> tuple[np.ndarray, Certificate]:
    """As `select_maxmin`, with the certificate of its choice.

    >>> importance = np.array([[5.0, 0.0], [0.0, 5.0], [4.0, 4.0], [1.0, 1.0]])
    >>> mask, certificate = certified_maxmin(importance, np.ones(4, bool), 1)
    >>> certificate.achieved, certificate.bound
    (0.4, 0.4)
    """
    importance, previous = np.asarray(importance), np.asarray(previous)
    check_layer(importance, previous, keep)
    greedy = select_greedy(importance, previous, keep)
    alive = np.flatnonzero(previous)
    rows = np.ascontiguousarray(importance[alive].T)
    layer = Layer(rows, np.ones(len(alive), bool), keep)
    ((weights, passes),) = solve([layer], on_host)
    chosen, certificate = conclude(layer, weights, passes, greedy[alive])
    mask = np.zeros(len(previous), bool)
    mask[alive[chosen]] = True
    return mask, certificate


def solve(
    layers: Sequence[Layer], prepare: Callable[[Sequence[Layer]], Evaluate]
) -> list[tuple[np.ndarray, int]]:
    """Minimise D of every layer: lambda (G,), and the passes over its weights.

    prepare: makes the function that evaluates D for all layers. Large layers start from the
    solution on a sample of their weights, so that most passes are made over a small part of them.
    """
    coarse, steps = [Bundle(layer.active) for layer in layers], [layer.step for layer in layers]
    if max(steps) == 1:
        minimise(coarse, prepare(layers))
        return [(bundle.best, len(bundle.cuts)) for bundle in coarse]
    minimise(coarse, prepare([layer if layer.step == 1 else layer.sample() for layer in layers]))
    fine = [
        bundle if step == 1 or not bundle.cuts else Bundle(layer.active, bundle.support())
        for layer, bundle, step in zip(layers, coarse, steps, strict=True)
    ]
    minimise(fine, prepare(layers))
    return [
        (last.best, len(last.cuts) + (0 if last is first else math.ceil(len(first.cuts) / step)))
        for last, first, step in zip(fine, coarse, steps, strict=True)
    ]


def on_host(layers: Sequence[Layer]) -> Evaluate:
    """D of one layer at a time, in float64."""
    everyone = [layer.parts(np.flatnonzero(layer.alive)) for layer in layers]

    def evaluate(weights: np.ndarray) -> np.ndarray:
        found = [
            parts[largest(parts @ own, layer.keep)].sum(axis=0)
            for parts, layer, own in zip(everyone, layers, weights, strict=True)
        ]
        return np.stack(found)

    return evaluate


def largest(scores: np.ndarray, keep: int) -> np.ndarray:
    """(n,) bool of the `keep` largest scores, ties to the lower index.

    >>> largest(np.array([1.0, 3.0, 2.0, 2.0]), 2)
    array([False,  True,  True, False])
    """
    threshold = np.partition(scores, len(scores) - keep)[len(scores) - keep]
    mask = scores > threshold
    ties = np.flatnonzero(scores == threshold)
    mask[ties[: keep - int(mask.sum())]] = True
    return mask


def conclude(
    layer: Layer, weights: np.ndarray, passes: int, greedy: np.ndarray
) -> tuple[np.ndarray, Certificate]:
    """Whole weights from lambda, greedy's where they are better, and the certificate.

    The bound is D(lambda), evaluated here in float64.
    """
    if not layer.active.any():
        whole = float(layer.keep == np.count_nonzero(layer.alive))
        return greedy, Certificate(whole, whole, 0)
    rounded, bound = round_primal(layer, weights)
    candidates = [greedy, rounded]
    retained = [
        float((layer.retained(mask) / np.where(layer.active, layer.totals, 1))[layer.active].min())
        for mask in candidates
    ]
    best = int(np.argmax(retained))  # greedy on ties: it comes first
    return candidates[best], Certificate(retained[best], max(bound, retained[best]), passes)


def round_primal(layer: Layer, weights: np.ndarray) -> tuple[np.ndarray, float]:
    """K whole weights from lambda, and D(lambda): the largest sums, then swaps at the boundary.

    An optimal fractional solution has at most G fractional weights, all at the boundary; swaps
    among the weights nearest to it, and among all that tie with it, are made while one lifts the
    worst group.
    """
    scores = layer.scores(weights)
    chosen = largest(scores, layer.keep)
    bound = float(scores[chosen].sum())
    band = boundary(scores, chosen, 8 * len(weights))
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
    chosen[band] = inner
    return chosen, bound


def boundary(scores: np.ndarray, chosen: np.ndarray, near: int) -> np.ndarray:
    """Indices of the `near` weights on either side nearest to the edge, and of up to BAND ties."""
    edge = scores[chosen].min()
    distance = np.abs(scores - edge)
    found = [np.flatnonzero(distance <= 1e-9 * edge)[:BAND]]
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
