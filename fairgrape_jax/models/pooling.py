"""Max pooling whose gradient is no scatter on GPUs and CPUs, with the scatter's bits.

XLA's own gradient of a window's maximum is a scatter. Where every run is to give the same bits a
GPU sorts all its places first, and a CPU adds up one number at a time, in 30 times the seconds. For
both it is a sum of shifted arrays here, added up in the order of the scatter. TPUs have an
instruction for the scatter.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2, 3))
def max_pool(x: jax.Array, size: int, stride: int, padding: int) -> jax.Array:
    """The maximum of each window, as `flax.linen.max_pool` gives it.

    It has gradients of any order, by `jvp`, `vjp` and under `vmap`. Of equal places in a window the
    first has the gradient.

    Args:
        x: (B, H, W, C).
        size: Side of a window.
        stride: Of both axes.
        padding: Places on each side that are never the maximum; fewer than `size`.

    Returns:
        (B, (H + 2 padding - size) // stride + 1, ..., C), the same of W.

    Example:
        >>> x = jnp.arange(16.0).reshape(1, 4, 4, 1)
        >>> max_pool(x, 3, 2, 1)[0, :, :, 0].tolist()
        [[5.0, 7.0], [13.0, 15.0]]
        >>> jax.grad(lambda x: max_pool(x, 2, 1, 0).sum())(x)[0, :, :, 0].tolist()[3]
        [0.0, 1.0, 1.0, 1.0]
    """
    return _by_window(x, size, stride, padding)


def _by_window(x: jax.Array, size: int, stride: int, padding: int) -> jax.Array:
    places = ((padding, padding), (padding, padding))
    return nn.max_pool(x, (size, size), (stride, stride), padding=places)


def max_pool_by_shifts(x: jax.Array, size: int, stride: int, padding: int) -> jax.Array:
    """`max_pool` as choices, one after the other, between what each place of a window sees.

    Args:
        x: (B, H, W, C).
        size: Side of a window.
        stride: Of both axes.
        padding: Places on each side that are never the maximum; fewer than `size`.

    Returns:
        As `max_pool`, to the bit, and so is its gradient.
    """
    whole, cut = (0, 0, 0), (padding, padding, 0)
    x = lax.pad(x, jnp.asarray(-jnp.inf, x.dtype), (whole, cut, cut, whole))
    batch, height, width, channels = x.shape
    down, right = (((side - size) // stride) * stride + 1 for side in (height, width))
    shifts = (
        lax.slice(x, (0, i, j, 0), (batch, i + down, j + right, channels), (1, stride, stride, 1))
        for i, j in itertools.product(range(size), repeat=2)
    )
    # What is not a number stands above all numbers, as in XLA's maximum.
    return functools.reduce(lambda a, b: jnp.where((b > a) | jnp.isnan(b), b, a), shifts)


# The values of an array where another has its maxima, which is linear in the first; its transpose.
_choose, _spread = Primitive("choose_at_maxima"), Primitive("spread_to_maxima")


@max_pool.defjvp
def _jvp(size: int, stride: int, padding: int, primals: Any, tangents: Any) -> Any:
    window = {"size": size, "stride": stride, "padding": padding}
    (x,), (tangent,) = primals, tangents
    return max_pool(x, size, stride, padding), _choose.bind(tangent, x, **window)


def _chosen(pool: Any, values: jax.Array, x: jax.Array, **window: int) -> jax.Array:
    return jax.jvp(lambda x: pool(x, **window), (x,), (values,))[1]


def _spread_out(pool: Any, values: jax.Array, x: jax.Array, **window: int) -> jax.Array:
    return jax.vjp(lambda x: pool(x, **window), x)[1](values)[0]


def _batch(primitive: Primitive, args: Any, axes: Any, **window: int) -> tuple[jax.Array, int]:
    """A mapped axis goes into the batch."""
    count = next(x.shape[axis] for x, axis in zip(args, axes, strict=True) if axis is not None)
    args = [
        jnp.broadcast_to(x, (count, *x.shape)) if axis is None else jnp.moveaxis(x, axis, 0)
        for x, axis in zip(args, axes, strict=True)
    ]
    result = primitive.bind(*(x.reshape(-1, *x.shape[2:]) for x in args), **window)
    return result.reshape(count, -1, *result.shape[1:]), 0


def _register(primitive: Primitive, function: Any, transposed: Primitive) -> None:
    shifted, native = (
        functools.partial(function, pool) for pool in (max_pool_by_shifts, _by_window)
    )

    def abstract(values: Any, x: Any, **window: int) -> Any:
        result = jax.eval_shape(functools.partial(native, **window), values, x)
        return values.update(shape=result.shape)

    def transpose(cotangent: Any, values: Any, x: Any, **window: int) -> Any:
        return transposed.bind(cotangent, x, **window), None

    compiled = jax.jit(primitive.bind, static_argnames=("size", "stride", "padding"))
    primitive.def_impl(compiled)
    primitive.def_abstract_eval(abstract)
    ad.defjvp(primitive, lambda t, values, x, **window: primitive.bind(t, x, **window), None)
    ad.primitive_transposes[primitive] = transpose
    batching.primitive_batchers[primitive] = functools.partial(_batch, primitive)
    mlir.register_lowering(primitive, mlir.lower_fun(native, multiple_results=False))
    mlir.register_lowering(primitive, mlir.lower_fun(shifted, multiple_results=False), "cuda")


def _spread_on_a_cpu(
    values: jax.Array, x: jax.Array, *, size: int, stride: int, padding: int
) -> jax.Array:
    """As `_spread_out`, from the number of each maximum's place in its window."""
    whole, cut = (0, 0, 0), (padding, padding, 0)
    places = list(itertools.product(range(size), repeat=2))
    dtype = np.uint8 if len(places) <= 1 << 8 else np.int32
    _, height, width, channels = values.shape
    down, right = (height - 1) * stride + 1, (width - 1) * stride + 1

    def number_of_maximum(x: jax.Array) -> jax.Array:
        padded = lax.pad(x, jnp.asarray(-jnp.inf, x.dtype), (cut, cut, whole))

        def shift(i: int, j: int) -> jax.Array:
            return lax.slice(
                padded, (i, j, 0), (i + down, j + right, channels), (stride, stride, 1)
            )

        best, number = shift(0, 0), jnp.zeros((height, width, channels), dtype)
        for index, place in enumerate(places[1:], 1):
            shifted = shift(*place)
            larger = ~(best >= shifted)  # also where either is not a number
            best = jnp.where(larger, shifted, best)
            number = jnp.where(larger, dtype(index), number)
        return number

    # In a loop, or XLA would find the numbers anew for each shift, fused into it.
    numbers = lax.map(number_of_maximum, x)
    total = jnp.zeros_like(x)
    for index, (i, j) in reversed(list(enumerate(places))):
        rows = (i - padding, x.shape[1] - down - i + padding, stride - 1)
        columns = (j - padding, x.shape[2] - right - j + padding, stride - 1)
        here = jnp.where(numbers == index, values, 0)
        zero = jnp.zeros((), values.dtype)
        total = total + lax.pad(here, zero, (whole, rows, columns, whole))
    return total


_register(_choose, _chosen, _spread)
_register(_spread, _spread_out, _choose)
mlir.register_lowering(
    _spread, mlir.lower_fun(_spread_on_a_cpu, multiple_results=False), platform="cpu"
)
