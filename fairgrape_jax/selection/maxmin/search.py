"""The search for lambda: a layer as it is, or by passes that bring weights at its edge to sight."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Float, Float64

from fairgrape_jax.selection.maxmin.bundle import Bundle, reached
from fairgrape_jax.selection.maxmin.layer import Layer, select_largest

ROUNDS, BANDS = 50, 3  # passes over a layer at most, and how many are remembered


@dataclasses.dataclass(frozen=True)
class Band:
    """The weights near the edge of a layer's choice, from one pass over the layer.

    Attributes:
        parts: of the weights in the band, I[k, w] / T_k.
        base: the part of every group that is retained without them.
        keep: how many of them are kept.
    """

    parts: Float[np.ndarray, "B G"]
    base: Float[np.ndarray, " G"]
    keep: int

    def retained(self, lambdas: Float64[np.ndarray, " G"]) -> Float64[np.ndarray, " G"]:
        """A subgradient of D: what the K largest sums retain of every group.

        Only the band is chosen from: at most D, and D itself near where the band was found.

        Args:
            lambdas: on the simplex, 0 for groups without importance.
        """
        return self.base + self.parts[select_largest(self.parts @ lambdas, self.keep)].sum(axis=0)


Survey = Callable[[np.ndarray], Sequence[Band]]  # lambda (L, G) to the bands of L layers


def minimise(
    layers: Sequence[Layer], prepare: Callable[[Sequence[Layer]], Survey]
) -> list[tuple[np.ndarray, int]]:
    """Minimise D of every layer.

    Small layers are searched as they are. Large ones start from the solution on a sample; then a
    pass over the whole brings the weights near the edge to sight, D is minimised as if only these
    could be exchanged, which bounds its minimum from below, and so on from there.

    Args:
        layers: what is chosen from.
        prepare: makes the function that makes this pass over all large layers at once.

    Returns:
        For each layer lambda, (G,) float64, and the passes over its weights.
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
            list(pool.map(Search.take_in, large, survey(np.stack([s.next for s in large]))))
    return [(search.best, math.ceil(search.passes)) for search in searches]


class Search:
    """Where the search in a layer stands: the best lambda, and where D is to be evaluated next."""

    def __init__(self, layer: Layer) -> None:
        self.layer, self.bundle, self.value = layer, Bundle(layer.active), np.inf
        self.bands: list[Band] = []
        self.best, self.passes = self.bundle.best, 0.0
        self.done = layer.step == 1 or not layer.active.any()
        if layer.step > 1:
            ((lambdas, passes),) = minimise([layer.sample()], survey_on_host)
            self.passes = passes / layer.step
            if lambdas.any():  # there was something to choose in the sample
                self.best = lambdas
        elif layer.active.any():
            everyone = Band(layer.parts(np.flatnonzero(layer.alive)), np.zeros(1), layer.keep)
            self.bundle.explore(everyone.retained)
            self.bundle.refine(everyone.retained)
            self.best, self.passes = self.bundle.best, len(self.bundle.cuts)
        self.next = self.best

    def take_in(self, band: Band) -> None:
        """D at `next` is known: minimise it over the band, unless it is known well enough.

        Args:
            band: the weights near the edge at `next`.
        """
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
        self.passes += 1 + (len(self.bundle.cuts) - before) * weights / len(self.layer.alive)

    def model(self, lambdas: Float64[np.ndarray, " G"]) -> Float64[np.ndarray, " G"]:
        """The highest of the cuts that the last bands give at a point.

        Args:
            lambdas: on the simplex, 0 for groups without importance.
        """
        return max((band.retained(lambdas) for band in self.bands), key=lambda cut: lambdas @ cut)


def survey_on_host(layers: Sequence[Layer]) -> Survey:
    """The passes over one layer after the other, in float64.

    Args:
        layers: what is chosen from.
    """

    def look(layer: Layer, lambdas: np.ndarray) -> Band:
        scores, (before, after) = layer.scores(lambdas), layer.near
        base = select_largest(scores, before)
        band = select_largest(scores, after) & ~base
        totals = np.where(layer.totals > 0, layer.totals, 1)
        return Band(
            layer.parts(np.flatnonzero(band)), layer.retained(base) / totals, layer.keep - before
        )

    return lambda lambdas: [look(layer, row) for layer, row in zip(layers, lambdas, strict=True)]
