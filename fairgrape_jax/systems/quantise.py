"""Uniform quantisers with straight-through gradients, and the running scales that they use.

Source: Zhang, Colbert, Das, "Learning Low-Precision Structured Subnetworks Using Joint Layerwise
Channel Pruning and Uniform Quantization" (Applied Sciences 2022), and its library qsparse, whose
ScalerQuantizer, DecimalQuantizer and AdaptiveQuantizer these are. There scaler and decimal do not
clip, and their gradient is clamped in place of being stopped outside of the range; here they do
what the paper says. `clip=False` gives the values of the library.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

Values = Float[jax.Array, "..."]


class Range(NamedTuple):
    """The least and the largest value that is quantised.

    Attributes:
        lower: broadcasts with the values.
        upper: likewise.
    """

    lower: jax.Array
    upper: jax.Array


def running_mean(mean: jax.Array, new: jax.Array, count: int | jax.Array) -> jax.Array:
    """The mean of count + 1 values from that of count.

    Args:
        mean: of the values before.
        new: the next one.
        count: how many were before.

    Example:
        >>> float(running_mean(jnp.float32(1.0), jnp.float32(4.0), 2))
        2.0
    """
    return (count * mean + new) / (count + 1)


def measure_scale(values: Values, bits: int, axis: int | None = None) -> jax.Array:
    """max |x| / 2^(bits - 1), of all values or of each place along an axis.

    Args:
        values: weights or activations.
        bits: of the quantiser.
        axis: that of the channels; None for one scale.
    """
    return jnp.abs(values).max(axis=_others(values, axis), keepdims=True) / 2 ** (bits - 1)


def measure_range(values: Values, axis: int | None = None) -> Range:
    """The least and the largest value, of all or of each place along an axis.

    Args:
        values: weights or activations.
        axis: that of the channels; None for one range.
    """
    axes = _others(values, axis)
    return Range(values.min(axis=axes, keepdims=True), values.max(axis=axes, keepdims=True))


def power_of_two(scale: jax.Array) -> jax.Array:
    """2^-round(log2(1 / scale)), the scale of the decimal quantiser.

    Args:
        scale: of `measure_scale`.

    Example:
        >>> float(power_of_two(jnp.float32(0.3)))
        0.25
    """
    return 2 ** -jnp.round(jnp.log2(1 / scale))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def quantise(
    values: Values, scale: jax.Array, bits: int, truncate: bool = False, clip: bool = True
) -> Values:
    """Whole multiples of a scale, from -2^(bits - 1) to 2^(bits - 1) - 1 of it.

    Args:
        values: weights or activations.
        scale: broadcasts with them.
        bits: of the quantiser.
        truncate: towards 0 (decimal) in place of rounding half to even (scaler).
        clip: to the range; the library does not.

    Returns:
        As `values`; the gradient passes where the whole number is within the range before clipping.

    Example:
        >>> quantise(jnp.array([-9.0, 0.4, 0.6, 9.0]), jnp.float32(1), 4).tolist()
        [-8.0, 0.0, 1.0, 7.0]
    """
    whole = _whole(values, scale, truncate)
    if clip:
        whole = jnp.clip(whole, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return whole * scale


def _quantise_forward(
    values: Values, scale: jax.Array, bits: int, truncate: bool, clip: bool
) -> tuple[Values, tuple[jax.Array, jax.Array]]:
    whole = _whole(values, scale, truncate)
    inside = (whole >= -(2 ** (bits - 1))) & (whole <= 2 ** (bits - 1) - 1)
    return quantise(values, scale, bits, truncate, clip), (inside, jnp.zeros_like(scale))


def _quantise_backward(
    bits: int, truncate: bool, clip: bool, kept: tuple[jax.Array, jax.Array], gradient: Values
) -> tuple[Values, jax.Array]:
    inside, zeros = kept
    return jnp.where(inside, gradient, 0), zeros


quantise.defvjp(_quantise_forward, _quantise_backward)


def _whole(values: Values, scale: jax.Array, truncate: bool) -> Values:
    return (jnp.trunc if truncate else jnp.round)(values / scale)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def quantise_adaptive(values: Values, lower: jax.Array, upper: jax.Array, bits: int) -> Values:
    """2^bits even steps from lower to upper, as in training.

    Args:
        values: weights or activations.
        lower: broadcasts with them.
        upper: likewise.
        bits: of the quantiser.

    Returns:
        As `values`; the gradient passes where lower <= x <= upper (the library's passes always).

    Example:
        >>> quantise_adaptive(jnp.array([-1.0, 0.3, 5.0]), jnp.float32(0), jnp.float32(4), 2)
        Array([0., 0., 3.], dtype=float32)
    """
    step = (upper - lower) / 2**bits
    whole = jnp.round((jnp.clip(values, lower, upper) - lower) / step)
    return jnp.clip(whole, 0, 2**bits - 1) * step + lower


def _adaptive_forward(
    values: Values, lower: jax.Array, upper: jax.Array, bits: int
) -> tuple[Values, tuple[jax.Array, jax.Array]]:
    inside = (values >= lower) & (values <= upper)
    return quantise_adaptive(values, lower, upper, bits), (inside, jnp.zeros_like(lower))


def _adaptive_backward(
    bits: int, kept: tuple[jax.Array, jax.Array], gradient: Values
) -> tuple[Values, jax.Array, jax.Array]:
    inside, zeros = kept
    return jnp.where(inside, gradient, 0), zeros, zeros


quantise_adaptive.defvjp(_adaptive_forward, _adaptive_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def quantise_adaptive_whole(
    values: Values, lower: jax.Array, upper: jax.Array, bits: int
) -> Values:
    """The same with a zero point that is a whole number of steps, as in evaluation.

    Args:
        values: weights or activations.
        lower: broadcasts with them.
        upper: likewise.
        bits: of the quantiser.

    Returns:
        As `values`, with the gradient of `quantise_adaptive`.
    """
    step = (upper - lower) / 2**bits
    zero = jnp.round(lower / step)
    return (jnp.clip(jnp.round(values / step) - zero, 0, 2**bits - 1) + zero) * step


def _whole_forward(
    values: Values, lower: jax.Array, upper: jax.Array, bits: int
) -> tuple[Values, tuple[jax.Array, jax.Array]]:
    inside = (values >= lower) & (values <= upper)
    return quantise_adaptive_whole(values, lower, upper, bits), (inside, jnp.zeros_like(lower))


quantise_adaptive_whole.defvjp(_whole_forward, _adaptive_backward)


def _others(values: Values, axis: int | None) -> tuple[int, ...]:
    return tuple(i for i in range(values.ndim) if axis is None or i != axis % values.ndim)
