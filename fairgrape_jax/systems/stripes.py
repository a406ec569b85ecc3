"""Stripes: the weights of all inputs at one place of one filter, 1x1xC, and how they are pruned.

Source: Meng et al., "Pruning Filter in Filter" (NeurIPS 2020), whose filter skeleton learns what a
stripe matters, and its public code; "A statistical approach for neural network pruning with
application to internet of things" (EURASIP JWCN 2023:44), which ranks stripes within a filter by
statistics of their weights. The formula of the second could not be found, nor code; here it is the
part that a stripe has in the mean magnitudes of its filter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float


class Skeleton(NamedTuple):
    """A filter skeleton and its gradient, (H, W, outputs).

    Attributes:
        values: by which the stripes are multiplied.
        gradient: of the loss, with that of the L1 norm.
    """

    values: jax.Array
    gradient: jax.Array


class Shift(NamedTuple):
    """The stripes that stay at one place of the filters: a 1x1 convolution, shifted.

    Attributes:
        row: of the place.
        column: likewise.
        outputs: the filters that have a stripe there, as numbers among those that stay.
        weights: (inputs, filters).
    """

    row: int
    column: int
    outputs: np.ndarray
    weights: np.ndarray


class Stripped(NamedTuple):
    """A convolution without the stripes that are cut.

    Attributes:
        shifts: of every place at which some stripe stays.
        outputs: the filters that stay, as numbers among all.
        size: (H, W) of the filters.
    """

    shifts: tuple[Shift, ...]
    outputs: np.ndarray
    size: tuple[int, int]


def stripe_shares(weights: Float[np.ndarray, "h w i o"]) -> Float[np.ndarray, "h w o"]:
    """The part that each stripe has in the mean magnitudes of its filter.

    Args:
        weights: (H, W, inputs, outputs).

    Source:
        Ours, a reading of EURASIP JWCN 2023:44: the scale of a filter drops out.

    Example:
        >>> stripe_shares(np.array([[[[3.0]], [[-1.0]]]]))[0, :, 0].tolist()
        [0.75, 0.25]
    """
    mean = np.abs(np.asarray(weights, np.float64)).mean(axis=2)
    total = mean.sum(axis=(0, 1), keepdims=True)
    return np.divide(mean, total, out=np.zeros_like(mean), where=total > 0)


def penalise(skeleton: Skeleton, weight: float, threshold: float) -> Skeleton:
    """Add the subgradient of weight ||FS||_1; what is at most the threshold is zero and stays.

    Args:
        skeleton: and the gradient of the loss.
        weight: of the L1 norm.
        threshold: at which a stripe is cut.

    Example:
        >>> one = Skeleton(jnp.array([1.0, -0.01]), jnp.array([0.5, 0.5]))
        >>> [part.tolist() for part in penalise(one, 0.25, 0.01)]
        [[1.0, 0.0], [0.75, 0.0]]
    """
    values, gradient = skeleton
    cut = jnp.abs(values) <= threshold
    gradient = gradient + weight * jnp.sign(values)
    return Skeleton(jnp.where(cut, 0, values), jnp.where(cut, 0, gradient))


def strip(
    weights: Float[np.ndarray, "h w i o"], stays: Bool[np.ndarray, "h w o"], *, whole: bool = False
) -> Stripped:
    """A convolution as shifted 1x1 convolutions over the stripes that stay.

    Args:
        weights: (H, W, inputs, outputs), with their skeleton multiplied in.
        stays: which stripes do; a filter without any goes.
        whole: such a filter stays and gives zeros.
    """
    outputs = np.arange(stays.shape[-1]) if whole else np.flatnonzero(stays.any(axis=(0, 1)))
    shifts = []
    for row, column in np.ndindex(*weights.shape[:2]):
        here = np.flatnonzero(stays[row, column][outputs])
        if here.size:
            kept = np.asarray(weights)[row, column][:, outputs[here]]
            shifts.append(Shift(row, column, here, kept))
    return Stripped(tuple(shifts), outputs, weights.shape[:2])


def convolve_stripped(
    layer: Stripped,
    inputs: Float[jax.Array, "b h w i"],
    strides: Sequence[int] = (1, 1),
    padding: Sequence[tuple[int, int]] = ((0, 0), (0, 0)),
) -> Float[jax.Array, "b h2 w2 o"]:
    """The outputs of the filters that stay: each shift reads its part of the input, and is added.

    Args:
        layer: of `strip`.
        inputs: (B, H, W, inputs).
        strides: of the convolution.
        padding: zeros before and behind, of each side.

    Returns:
        (B, H2, W2, filters that stay), of the inputs' type. Without strides one matrix product
        makes all stripes at all places of the input, which is the fastest of the forms tried on a
        CPU; with them each shift has one over the places that it reads.
    """
    padded = jnp.pad(inputs, ((0, 0), *padding, (0, 0)))
    sides = zip(padded.shape[1:3], layer.size, strides, strict=True)
    height, width = ((n - k) // s + 1 for n, k, s in sides)
    filters = len(layer.outputs)
    total = jnp.zeros((len(inputs), height, width, filters), inputs.dtype)
    if not layer.shifts:
        return total

    def part(values: jax.Array, shift: Shift) -> jax.Array:
        rows = slice(shift.row, shift.row + strides[0] * (height - 1) + 1, strides[0])
        columns = slice(shift.column, shift.column + strides[1] * (width - 1) + 1, strides[1])
        return values[:, rows, columns]

    weights = [jnp.asarray(shift.weights, inputs.dtype) for shift in layer.shifts]
    at_once = tuple(strides) == (1, 1)
    if at_once:
        every = _with_zero(padded @ jnp.concatenate(weights, axis=1))
    begins = np.cumsum([0, *(w.shape[1] for w in weights)])
    for number, shift in enumerate(layer.shifts):
        if at_once:
            values, begin, last = part(every, shift), begins[number], begins[-1]
        else:
            values, begin = _with_zero(part(padded, shift) @ weights[number]), 0
            last = weights[number].shape[1]
        column = np.full(filters, last)  # the zero, for filters without a stripe here
        column[shift.outputs] = begin + np.arange(len(shift.outputs))
        total += jnp.take(values, column, axis=-1)
    return total


def _with_zero(values: jax.Array) -> jax.Array:
    """The values with a last column of zeros."""
    return jnp.concatenate([values, jnp.zeros((*values.shape[:-1], 1), values.dtype)], axis=-1)
