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
from jaxtyping import Float, Float32, Int32

from fairgrape_jax.scoring.parts import Batch, Part
from fairgrape_jax.scoring.sample_loss import Arrays, SampleNetwork, on_device, square, widen


class Sums(NamedTuple):
    """Sums of each weight.

    Attributes:
        rows: (G, *w.shape) of each layer.
        lost: what rounding lost of them, likewise.
        part: (*w.shape) of each layer, of a micro-batch that is not at its end.
    """

    rows: list[jax.Array]
    lost: list[jax.Array]
    part: list[jax.Array]


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


class Place(NamedTuple):
    """Where the terms of one group belong.

    Attributes:
        group: its number.
        start: whether a micro-batch begins with them.
        end: whether it ends with them.
    """

    group: Int32[JaxArray, ""]
    start: Int32[JaxArray, ""]
    end: Int32[JaxArray, ""]


class Adder:
    """Adds parts up on one device.

    Attributes:
        load: the samples that were added.
        arrays: the network's, on the device.
        sums: so far.
    """

    def __init__(
        self, summand: Summand, arrays: Arrays, groups: int, device: jax.Device | None
    ) -> None:
        """Begin with nothing, on a device; None for where the arrays are."""
        self.device, self.load, self._summand = device, 0, summand
        self.arrays = arrays if device is None else jax.device_put(arrays, device)
        self.sums = zeros(self.arrays.weights, groups)

    def add(self, part: Part) -> None:
        """Add a part to the sums.

        Args:
            part: samples of one group, or of all.
        """
        self.load += part.scale.shape[-1]
        terms = Terms(*on_device((part.batch, part.scale), self.device))
        if part.group is None:
            self.sums = add_all(self._summand, self.sums, self.arrays, terms)
        else:
            numbers = np.array([part.group, part.start, part.end], np.int32)
            place = Place(*on_device(tuple(numbers), self.device))
            self.sums = add_group(self._summand, self.sums, self.arrays, terms, place)


@functools.partial(jax.jit, static_argnums=1)
def zeros(weights: Sequence[jax.Array], groups: int) -> Sums:
    """Empty sums in float32, or float64 for weights of float64.

    Args:
        weights: of each layer.
        groups: how many there are.
    """
    dtypes = [widen(w.dtype) for w in weights]
    rows = [jnp.zeros((groups, *w.shape), t) for w, t in zip(weights, dtypes, strict=True)]
    part = [jnp.zeros(w.shape, t) for w, t in zip(weights, dtypes, strict=True)]
    return Sums(rows, [jnp.zeros_like(row) for row in rows], part)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def add_group(summand: Summand, sums: Sums, arrays: Arrays, terms: Terms, place: Place) -> Sums:
    """The sums with a part of one group's micro-batch in them.

    Args:
        summand: what is summed.
        sums: so far; the result takes over their buffers.
        arrays: the network's.
        terms: samples of the group.
        place: which group, and where its micro-batch begins and ends.
    """
    gradients = summand.network.gradient(arrays, terms.batch, terms.scale)
    part = [
        jnp.where(place.start, jnp.zeros_like(p), p) + g
        for p, g in zip(sums.part, gradients, strict=True)
    ]
    new = [
        square(w, p) if summand.squares else p for w, p in zip(arrays.weights, part, strict=True)
    ]
    new = [jnp.where(place.end, t, jnp.zeros_like(t)) for t in new]
    rows, lost = zip(
        *[
            add_with_remainder(row[place.group], rest[place.group], term)
            for row, rest, term in zip(sums.rows, sums.lost, new, strict=True)
        ],
        strict=True,
    )
    return Sums(
        [all_.at[place.group].set(row) for all_, row in zip(sums.rows, rows, strict=True)],
        [all_.at[place.group].set(row) for all_, row in zip(sums.lost, lost, strict=True)],
        part,
    )


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
    new = [
        square(w, g) if summand.squares else g
        for w, g in zip(arrays.weights, gradients, strict=True)
    ]
    rows, lost = zip(*map(add_with_remainder, sums.rows, sums.lost, new), strict=True)
    return Sums(list(rows), list(lost), sums.part)


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
    pairs = [(adder.sums.rows, adder.sums.lost) for adder in busy]
    weights = busy[0].arrays.weights
    if len(pairs) > 1:
        pairs = jax.device_put(pairs, adders[0].device)
        weights = adders[0].arrays.weights
    return mean_of_sums(pairs, on_device(counts.astype(np.float32)), weights, squares)


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
