"""Sums of importance on one device, with what rounding lost of them, and the mean of several.

`accumulate` keeps float32 from drifting in another way, by blocks. A run knows beforehand in which
order a device meets the groups, so one block does for all of them; here batches come as the user
gives them, a block would be needed for every group, as large as the remainders and less exact. And
for a run the remainders would double the memory of its sums. So there are both.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array as JaxArray
from jaxtyping import Float, Float32

from fairgrape_jax.scoring.parts import Batch, Part
from fairgrape_jax.scoring.sample_loss import Arrays, SampleNetwork, on_device, square, widen

TOGETHER = 4  # gradients of a group that are added in one pass over its sums
WAITING_BYTES = 2**28  # of all gradients that wait for that


class Sums(NamedTuple):
    """Sums of each weight: of one group (*w.shape), or of all (G, *w.shape).

    Attributes:
        rows: of each layer.
        lost: what rounding lost of them, likewise.
    """

    rows: list[jax.Array]
    lost: list[jax.Array]


class Summand(NamedTuple):
    """What is summed: the gradient of a network's loss, times w and squared, or as it is."""

    network: SampleNetwork
    squares: bool


class Terms(NamedTuple):
    """The samples of one call, on the device.

    Attributes:
        batch: a pytree of arrays of B samples.
        scale: of each sample in the sum of the losses, of one group or of all.
    """

    batch: Batch
    scale: Float[JaxArray, "*G B"]


class Adder:
    """Adds parts up on one device.

    The sums of each group are buffers of their own: XLA for CPUs copies an array of all groups
    whole when one row of it is changed. Of a network that is small enough, a few gradients of a
    group wait for each other: beside a dense layer's pass, one over its sums is not cheap.

    Attributes:
        load: the samples that were added.
        together: how many gradients of a group are added in one pass over its sums.
        arrays: the network's, on the device.
    """

    def __init__(
        self, summand: Summand, arrays: Arrays, groups: int, device: jax.Device | None
    ) -> None:
        """Begin with nothing, on a device; None for where the arrays are."""
        self.device, self.load, self._summand, self._groups = device, 0, summand, groups
        self.arrays = arrays if device is None else jax.device_put(arrays, device)
        self._of_all: Sums | None = None
        self._of_group: dict[int, Sums] = {}
        self._part: list[jax.Array] | None = None  # of a micro-batch that is not at its end
        self._waiting: dict[int, list[list[jax.Array]]] = {}
        size = sum(w.nbytes for w in arrays.weights) * groups
        self.together = max(1, min(TOGETHER, WAITING_BYTES // max(1, size)))

    def add(self, part: Part) -> None:
        """Add a part to the sums.

        Args:
            part: samples of one group, or of all.
        """
        self.load += part.scale.shape[-1]
        terms = Terms(*on_device((part.batch, part.scale), self.device))
        if part.group is None:
            sums = self._of_all or zeros(self.arrays.weights, self._groups)
            self._of_all = add_all(self._summand, sums, self.arrays, terms)
            return
        gradients = gradient_of(self._summand.network, self.arrays, terms)
        if not part.start and self._part is not None:
            gradients = plus(self._part, gradients)
        self._part = None if part.end else gradients
        if part.end:
            waiting = self._waiting.setdefault(part.group, [])
            waiting.append(gradients)
            if len(waiting) == self.together:
                self._add_waiting(part.group)

    def _add_waiting(self, group: int) -> None:
        sums = self._of_group.get(group) or zeros(self.arrays.weights, None)
        gradients = self._waiting.pop(group)
        new = add_gradients(sums, self.arrays.weights, gradients, self._summand.squares)
        self._of_group[group] = new

    @property
    def sums(self) -> Sums | list[Sums]:
        """So far: of all groups, (G, *w.shape) of each layer, or those of every group."""
        for group in tuple(self._waiting):
            self._add_waiting(group)
        if self._of_all is not None or not self._of_group:
            return self._of_all or zeros(self.arrays.weights, self._groups)
        return [
            self._of_group.get(k) or zeros(self.arrays.weights, None) for k in range(self._groups)
        ]


@functools.partial(jax.jit, static_argnums=1)
def zeros(weights: Sequence[jax.Array], groups: int | None) -> Sums:
    """Empty sums in float32, or float64 for weights of float64.

    Args:
        weights: of each layer.
        groups: how many there are; None for the sums of one.
    """
    first = () if groups is None else (groups,)
    rows = [jnp.zeros((*first, *w.shape), widen(w.dtype)) for w in weights]
    return Sums(rows, [jnp.zeros_like(row) for row in rows])


@functools.partial(jax.jit, static_argnums=0)
def gradient_of(network: SampleNetwork, arrays: Arrays, terms: Terms) -> list[jax.Array]:
    """The gradient of the scaled sum of the losses of some samples, of each layer.

    Args:
        network: whose loss it is.
        arrays: the network's.
        terms: the samples.
    """
    return network.gradient(arrays, terms.batch, terms.scale)


@functools.partial(jax.jit, donate_argnums=0)
def plus(part: list[jax.Array], gradients: list[jax.Array]) -> list[jax.Array]:
    """The gradient of a micro-batch with one more part of it.

    Args:
        part: so far; the result takes over its buffers.
        gradients: of the part, of each layer.
    """
    return jax.tree.map(operator.add, part, gradients)


@functools.partial(jax.jit, static_argnums=3, donate_argnums=0)
def add_gradients(
    sums: Sums, weights: Sequence[jax.Array], gradients: Sequence[list[jax.Array]], squares: bool
) -> Sums:
    """The sums of a group with some micro-batches in them.

    Args:
        sums: so far; the result takes over their buffers.
        weights: of each layer.
        gradients: of each micro-batch.
        squares: whether the squares of w times them are summed.
    """
    new = [
        functools.reduce(operator.add, (square(w, g) if squares else g for g in of_layer))
        for w, of_layer in zip(weights, zip(*gradients, strict=True), strict=True)
    ]
    rows, lost = zip(*map(add_with_remainder, sums.rows, sums.lost, new), strict=True)
    return Sums(list(rows), list(lost))


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def add_all(summand: Summand, sums: Sums, arrays: Arrays, terms: Terms) -> Sums:
    """The sums with a micro-batch of all groups in them: a gradient for each.

    Args:
        summand: what is summed.
        sums: so far; the result takes over their buffers.
        arrays: the network's.
        terms: samples of all groups.
    """
    gradient = functools.partial(summand.network.gradient, arrays, terms.batch)
    gradients = jax.vmap(gradient)(terms.scale)
    return add_gradients(sums, arrays.weights, [gradients], summand.squares)


def add_with_remainder(
    total: Float[JaxArray, "*s"], lost: Float[JaxArray, "*s"], term: Float[JaxArray, "*s"]
) -> tuple[Float[JaxArray, "*s"], Float[JaxArray, "*s"]]:
    """A sum and what rounding lost of it, one term later.

    The error of the sum minus the remainder does not grow with the number of terms.

    Args:
        total: the sum.
        lost: what rounding lost of it.
        term: what is added.

    Source:
        Kahan, "Further remarks on reducing truncation errors" (1965).

    Example:
        >>> total, lost = jnp.float32(1e8), jnp.float32(0)
        >>> for _ in range(100):
        ...     total, lost = add_with_remainder(total, lost, jnp.float32(1))
        >>> float(total - lost)
        100000096.0
    """
    new = term - lost
    added = total + new
    return added, (added - total) - new


def combine(adders: Sequence[Adder], counts: np.ndarray, squares: bool) -> list[jax.Array]:
    """Means of all devices' sums, on the first one.

    Args:
        adders: of every device; those that added nothing are left out.
        counts: (G,) int, the micro-batches, or samples, that were added of each group.
        squares: whether squares were added.

    Returns:
        (G, *w.shape) of each layer.
    """
    busy = [adder for adder in adders if adder.load] or [adders[0]]
    sums = [adder.sums for adder in busy]
    weights = busy[0].arrays.weights
    if len(sums) > 1:
        sums = jax.device_put(sums, adders[0].device)
        weights = adders[0].arrays.weights
    return mean_of_stacked(sums, on_device(counts.astype(np.float32)), weights, squares)


@functools.partial(jax.jit, static_argnums=3)
def mean_of_stacked(
    sums: Sequence[Sums | list[Sums]],
    counts: Float32[JaxArray, " G"],
    weights: Sequence[jax.Array],
    squares: bool,
) -> list[jax.Array]:
    """As `mean_of_sums`, of sums that may be those of every group.

    Args:
        sums: of each device.
        counts: the terms of each group.
        weights: of each layer.
        squares: whether squares were summed.
    """
    stacked = [
        each if isinstance(each, Sums) else jax.tree.map(lambda *rows: jnp.stack(rows), *each)
        for each in sums
    ]
    pairs = [(each.rows, each.lost) for each in stacked]
    return mean_of_sums(pairs, counts, weights, squares)


@functools.partial(jax.jit, static_argnums=3)
def mean_of_sums(
    pairs: Sequence[tuple[Sequence[jax.Array], Sequence[jax.Array]]],
    counts: Float32[JaxArray, " G"],
    weights: Sequence[jax.Array],
    squares: bool,
) -> list[jax.Array]:
    """The means of sums, each with its remainder, and of gradients the square of w times them.

    Args:
        pairs: of each device the sums and remainders, (G, *w.shape) of each layer.
        counts: the terms of each group.
        weights: of each layer.
        squares: whether squares were summed.
    """
    means = []
    for i, w in enumerate(weights):
        total = functools.reduce(operator.add, (rows[i] - lost[i] for rows, lost in pairs))
        mean = total / jnp.maximum(counts, 1).astype(total.dtype).reshape(-1, *[1] * w.ndim)
        means.append(mean if squares else square(w, mean))
    return means
