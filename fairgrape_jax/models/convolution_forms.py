"""A convolution as matrix products or sums of shifts: the forms that are fast on a CPU."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

Lists = Sequence[int]


class Plain(NamedTuple):
    """A convolution with batch first and channels last: lhs (N, *S, C), rhs (*K, C, O).

    Attributes:
        lhs: the input.
        rhs: the kernel.
        out: the sides of the result.
        strides: of each spatial axis the step of the window.
        low: zeros before the input (negative: what is left out).
        spread: the distance of two neighbours of the input.
        reach: the distance of two neighbours of the kernel.
    """

    lhs: jax.Array
    rhs: jax.Array
    out: Lists
    strides: Lists
    low: Lists
    spread: Lists
    reach: Lists

    def taps(self) -> list[tuple[int, ...]]:
        """The places of the kernel, in the order of its memory."""
        return list(itertools.product(*map(range, self.rhs.shape[: len(self.out)])))

    def padded(self) -> jax.Array:
        """The input with its zeros, as long as the window reaches."""
        sides = self.lhs.shape[1:-1]
        config = [(0, 0, 0)]
        for axis, side in enumerate(sides):
            length = (self.out[axis] - 1) * self.strides[axis] + 1
            length += (self.rhs.shape[axis] - 1) * self.reach[axis]
            held = (side - 1) * self.spread[axis] + 1 + self.low[axis]
            config.append((self.low[axis], length - held, self.spread[axis] - 1))
        return lax.pad(self.lhs, jnp.zeros((), self.lhs.dtype), [*config, (0, 0, 0)])

    def seen_by(self, padded: jax.Array, tap: Lists) -> jax.Array:
        """What a place of the kernel sees, for all of the result.

        Args:
            padded: the input with its zeros.
            tap: a place of the kernel.

        Returns:
            (N, *out, C).
        """
        return _every(
            padded, [t * r for t, r in zip(tap, self.reach, strict=True)], self.strides, self.out
        )

    def seen_from(self, padded: jax.Array, place: Lists) -> jax.Array:
        """What a place of the result sees, by all of the kernel.

        Args:
            padded: the input with its zeros.
            place: of the result.

        Returns:
            (N, *K, C).
        """
        sides = self.rhs.shape[: len(self.out)]
        return _every(
            padded, [p * s for p, s in zip(place, self.strides, strict=True)], self.reach, sides
        )

    def placed(self, values: jax.Array, tap: Lists) -> jax.Array:
        """Values put at the places of the result that see them by a place of the kernel.

        Args:
            values: (N, *S, O).
            tap: a place of the kernel.

        Returns:
            (N, *out, O).
        """
        config = [(0, 0, 0)]
        for axis, side in enumerate(values.shape[1:-1]):
            low = self.low[axis] - tap[axis] * self.reach[axis]
            held = (side - 1) * self.spread[axis] + 1 + low
            config.append((low, self.out[axis] - held, self.spread[axis] - 1))
        return lax.pad(values, jnp.zeros((), values.dtype), [*config, (0, 0, 0)])


def _product(conv: Plain, dot: Callable[..., jax.Array]) -> jax.Array:
    """One matrix product of what all places of the kernel see, side by side."""
    padded = conv.padded()
    windows = jnp.concatenate([conv.seen_by(padded, tap) for tap in conv.taps()], axis=-1)
    return dot(windows, conv.rhs.reshape(-1, conv.rhs.shape[-1]))


def _spread_product(conv: Plain, dot: Callable[..., jax.Array]) -> jax.Array:
    """One matrix product for each pixel of the input, its columns added up where they are seen.

    For an input whose neighbours lie apart: most of what the window sees of it are zeros.
    """
    taps, features = conv.taps(), conv.rhs.shape[-1]
    columns = jnp.moveaxis(conv.rhs, -2, 0).reshape(conv.lhs.shape[-1], -1)
    parts = jnp.split(dot(conv.lhs, columns), len(taps), axis=-1)
    assert parts[0].shape[-1] == features
    return _sum(conv.placed(part, tap) for part, tap in zip(parts, taps, strict=True))


def _contraction(conv: Plain, dot: Callable[..., jax.Array]) -> jax.Array:
    """One matrix product over all that is seen, where the result is one pixel.

    So is the gradient of a kernel of one place: its sum over the pixels of the batch comes first.
    """
    windows = conv.seen_from(conv.padded(), [0] * len(conv.out))
    windows = jnp.moveaxis(windows, (-1, 0), (0, -1))
    lhs = windows.reshape(-1, windows.shape[-1])
    rhs = jnp.moveaxis(conv.rhs, -2, 0).reshape(len(lhs), -1)
    return dot(lhs, rhs, contracted=0).reshape(-1, *conv.out, rhs.shape[-1])


def _depthwise(conv: Plain, dot: Callable[..., jax.Array]) -> jax.Array:
    """A sum of shifted products, a kernel of its own for each channel."""
    dtype = _accumulated(conv)
    repeats = conv.rhs.shape[-1] // conv.lhs.shape[-1]
    padded = jnp.repeat(conv.padded(), repeats, axis=-1)
    return _sum(
        conv.seen_by(padded, tap).astype(dtype) * conv.rhs[tap][0].astype(dtype)
        for tap in conv.taps()
    )


def _spread_depthwise(conv: Plain, dot: Callable[..., jax.Array]) -> jax.Array:
    """The same for an input whose neighbours lie apart: products put where they are seen."""
    dtype = _accumulated(conv)
    repeats = conv.rhs.shape[-1] // conv.lhs.shape[-1]
    lhs = jnp.repeat(conv.lhs, repeats, axis=-1).astype(dtype)
    return _sum(conv.placed(lhs * conv.rhs[tap][0].astype(dtype), tap) for tap in conv.taps())


def _depthwise_kernel(conv: Plain, dot: Callable[..., jax.Array]) -> jax.Array:
    """The gradient for a depthwise kernel: for each of its places a sum over all pixels.

    Here the input is (C, *S, B), its "batch" being the channels, the kernel (*K, B, C), and the
    result (1, *out, C).
    """
    dtype = _accumulated(conv)
    conv = conv._replace(lhs=jnp.swapaxes(conv.lhs, 0, -1))
    padded, rhs = conv.padded(), jnp.moveaxis(conv.rhs, -2, 0).astype(dtype)
    sides = [(n - 1) * r + 1 for n, r in zip(rhs.shape[1:-1], conv.reach, strict=True)]

    def sum_at(start: jax.Array) -> jax.Array:
        window = lax.dynamic_slice(padded, [0, *start, 0], (len(rhs), *sides, rhs.shape[-1]))
        return sum_pixels(
            window[:, *(slice(None, None, r) for r in conv.reach)].astype(dtype) * rhs
        )

    # One place after the other: written out, each sum would compute the gradient that it reads
    # anew, fused into it, and be compiled anew.
    places = list(itertools.product(*map(range, conv.out)))
    starts = jnp.asarray(places) * jnp.asarray(conv.strides)
    return lax.map(sum_at, starts).reshape(1, *conv.out, -1)


def sum_pixels(x: jax.Array) -> jax.Array:
    """The sum over all but the last axis, as XLA:CPU does it fast.

    Its own reduction to the last axis goes through memory channel by channel, in up to 14 times the
    seconds. Here eighths of the batch are added up element by element and the rest by a matrix
    product with ones.

    Args:
        x: (..., C).

    Returns:
        (C,).

    Example:
        >>> sum_pixels(jnp.ones((6, 2, 2, 3))).tolist()
        [24.0, 24.0, 24.0]
    """
    parts = next(n for n in range(8, 0, -1) if len(x) % n == 0)
    rows = _sum(jnp.split(x, parts)).reshape(-1, x.shape[-1])
    return lax.dot(jnp.ones((1, len(rows)), x.dtype), rows, precision="highest")[0]


def _every(array: jax.Array, start: Lists, steps: Lists, counts: Lists) -> jax.Array:
    """(N, *counts, C): so many pixels of (N, *S, C), from `start` on by `steps`."""
    ends = [a + (n - 1) * s + 1 for a, n, s in zip(start, counts, steps, strict=True)]
    stop = (array.shape[0], *ends, array.shape[-1])
    return lax.slice(array, (0, *start, 0), stop, (1, *steps, 1))


def _sum(terms: Any) -> jax.Array:
    terms = iter(terms)
    return sum(terms, start=next(terms))


def _accumulated(conv: Plain) -> Any:
    return jnp.promote_types(conv.lhs.dtype, jnp.float32)


FORMS = {
    "product": _product,
    "spread product": _spread_product,
    "contraction": _contraction,
    "depthwise": _depthwise,
    "spread depthwise": _spread_depthwise,
    "depthwise kernel": _depthwise_kernel,
}
