"""Whole numbers of eight bits for arrays: scales, rounding, and gradients that pass through it.

Weights are symmetric, -127 to 127 with zero at 0, one scale for each output channel, so that a
pruned weight stays exactly zero; activations have one scale and a whole zero point, -128 to 127.
qwix has the first and rounds alike; its providers know the parameters of Flax alone, by identity,
and not where they were masked, so that what is int8 is found here from the program.

Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference" (CVPR 2018); the ranges are those of LiteRT's 8-bit
specification.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int8

LEAST, MOST = -128, 127


class Scale(NamedTuple):
    """How whole numbers are read: value = scale * (number - zero).

    Attributes:
        scale: float32, broadcasts with the values.
        zero: float32, the whole number that means 0, of the shape of `scale`.
    """

    scale: jax.Array
    zero: jax.Array


def weight_scale(weights: Float[jax.Array, ...], axes: Sequence[int]) -> Scale:
    """max |w| / 127 of each output channel; 1 where all weights of a channel are 0.

    Args:
        weights: of a layer.
        axes: those of its output channels.

    Returns:
        The scale, of size 1 along all other axes.

    Example:
        >>> weight_scale(jnp.array([[-127.0, 0.0], [1.0, 0.0]]), axes=[1]).scale
        Array([[1., 1.]], dtype=float32)
    """
    others = tuple(axis for axis in range(weights.ndim) if axis not in axes)
    largest = jnp.abs(weights.astype(jnp.float32)).max(axis=others, keepdims=True)
    return Scale(_positive(largest / MOST), jnp.zeros_like(largest))


def range_scale(lower: jax.Array, upper: jax.Array) -> Scale:
    """The scale and zero point of activations between two bounds, widened to hold 0.

    Args:
        lower: () the least activation.
        upper: () the largest one.

    Example:
        >>> scale = range_scale(jnp.float32(0), jnp.float32(51))
        >>> float(scale.scale), float(scale.zero)
        (0.20000000298023224, -128.0)
    """
    lower, upper = jnp.minimum(lower, 0.0), jnp.maximum(upper, 0.0)
    scale = _positive((upper - lower) / (MOST - LEAST))
    return Scale(scale, jnp.clip(jnp.round(LEAST - lower / scale), LEAST, MOST))


def to_int8(values: Float[jax.Array, ...], scale: Scale) -> Int8[jax.Array, ...]:
    """Values as whole numbers, rounded half to even and cut to the range.

    Args:
        values: weights or activations.
        scale: of them.

    Example:
        >>> to_int8(jnp.array([-9.0, 0.5, 0.6, 9.0]), Scale(jnp.float32(1), jnp.float32(0)))
        Array([-9,  0,  1,  9], dtype=int8)
    """
    return _whole(values, scale).astype(jnp.int8)


def from_int8(whole: Int8[jax.Array, ...], scale: Scale) -> Float[jax.Array, ...]:
    """The values that whole numbers mean.

    Args:
        whole: of `to_int8`.
        scale: as there.
    """
    return (whole.astype(jnp.float32) - scale.zero) * scale.scale


@jax.custom_vjp
def round_to_int8(values: Float[jax.Array, ...], scale: Scale) -> Float[jax.Array, ...]:
    """What is left of values as int8, in their dtype; the gradient passes through the rounding.

    Args:
        values: weights or activations.
        scale: of them; it gets no gradient.

    Returns:
        `from_int8(to_int8(values))`. Where a value is cut its gradient is 0, elsewhere it passes.

    Example:
        >>> scale = Scale(jnp.float32(1), jnp.float32(0))
        >>> jax.grad(lambda x: round_to_int8(x, scale).sum())(jnp.array([0.6, 300.0])).tolist()
        [1.0, 0.0]
    """
    return from_int8(to_int8(values, scale), scale).astype(values.dtype)


def _forward(values: jax.Array, scale: Scale) -> tuple[jax.Array, tuple[jax.Array, Scale]]:
    whole = jnp.round(values.astype(jnp.float32) / scale.scale) + scale.zero
    inside = (whole >= LEAST) & (whole <= MOST)
    return round_to_int8(values, scale), (inside, jax.tree.map(jnp.zeros_like, scale))


def _backward(kept: tuple[jax.Array, Scale], gradient: jax.Array) -> tuple[jax.Array, Scale]:
    inside, none = kept
    return jnp.where(inside, gradient, jnp.zeros_like(gradient)), none


round_to_int8.defvjp(_forward, _backward)


def _whole(values: jax.Array, scale: Scale) -> jax.Array:
    whole = jnp.round(values.astype(jnp.float32) / scale.scale) + scale.zero
    return jnp.clip(whole, LEAST, MOST)


def _positive(scale: jax.Array) -> jax.Array:
    """1 in place of 0: of what is zero everywhere any scale is right."""
    return jnp.where(scale > 0, scale, jnp.ones_like(scale))
