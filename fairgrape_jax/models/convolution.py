"""Convolutions in the form that is fast on the platform: XLA's own, or matrix products on a CPU.

`conv_general_dilated` is `jax.lax`'s, and lowers to it on GPUs and TPUs. On a CPU the form follows
from the shapes (`choose_form`): XLA:CPU takes up to 50 times as long as one matrix product where
the input is smaller than the kernel, and as long again for the gradient. The gradients of a
convolution are convolutions, so each takes the form of its own shapes.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

Lists = Sequence[int]
UNROLLED = 9  # places of a depthwise kernel for which its gradient is written out


def conv_general_dilated(lhs: Any, rhs: Any, *args: Any, **options: Any) -> jax.Array:
    """`jax.lax.conv_general_dilated` in the form that is fast on the platform it is compiled for.

    Its gradients of any order, by `jvp`, `vjp` and under `vmap`, likewise. A network of one's own
    has it by `flax.linen.Conv(..., conv_general_dilated=conv_general_dilated)`.

    Args:
        lhs: the input, of any rank, layout and floating type.
        rhs: the kernel.
        args: the strides and the padding, as `jax.lax.conv_general_dilated` takes them.
        options: all else that it takes.

    Returns:
        Its result, up to the rounding of another order of a sum.

    Example:
        >>> x, kernel = jnp.ones((1, 2, 2, 1)), jnp.ones((3, 3, 1, 1))
        >>> numbers = ("NHWC", "HWIO", "NHWC")
        >>> conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers).sum()
        Array(16., dtype=float32)
    """
    return _substituted(lambda x, k: lax.conv_general_dilated(x, k, *args, **options), lhs, rhs)


# It has the name and the parameters of XLA's, so what reads a program reads this one alike.
_convolution = Primitive("conv_general_dilated")
_xla = lax.conv_general_dilated_p


def _substituted(function: Callable[..., Any], *args: Any) -> Any:
    """The function's result, with every convolution of XLA's replaced by this one."""
    closed = jax.make_jaxpr(function)(*args)
    return _evaluate(closed.jaxpr, closed.consts, args)[0]


def _evaluate(jaxpr: Any, consts: Sequence[Any], args: Sequence[Any]) -> list[Any]:
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))

    def read(atom: Any) -> Any:
        return atom.val if hasattr(atom, "val") else values[atom]

    for eqn in jaxpr.eqns:
        inputs = list(map(read, eqn.invars))
        if eqn.primitive is _xla:
            outputs = _convolution.bind(*inputs, **eqn.params)
        elif "jaxpr" in eqn.params:
            outputs = _evaluate(eqn.params["jaxpr"].jaxpr, eqn.params["jaxpr"].consts, inputs)
        else:
            outputs = eqn.primitive.bind(*inputs, **eqn.params)
        several = isinstance(outputs, (list, tuple))
        values.update(zip(eqn.outvars, outputs if several else [outputs], strict=True))
    return list(map(read, jaxpr.outvars))


def _transpose_lhs(cotangent: Any, lhs: Any, rhs: Any, **params: Any) -> Any:
    def transposed(cotangent: Any, rhs: Any) -> Any:
        return jax.linear_transpose(lambda x: _xla.bind(x, rhs, **params), lhs.aval)(cotangent)[0]

    return _substituted(transposed, cotangent, rhs)


def _transpose_rhs(cotangent: Any, lhs: Any, rhs: Any, **params: Any) -> Any:
    def transposed(cotangent: Any, lhs: Any) -> Any:
        return jax.linear_transpose(lambda x: _xla.bind(lhs, x, **params), rhs.aval)(cotangent)[0]

    return _substituted(transposed, cotangent, lhs)


def _batch(args: Sequence[Any], axes: Sequence[Any], **params: Any) -> tuple[Any, int]:
    # An axis that is not mapped is None here, as `vmap` takes it.
    return _substituted(jax.vmap(functools.partial(_xla.bind, **params), axes), *args), 0


@functools.cache
def _compiled(**params: Any) -> Callable[..., Any]:
    return jax.jit(functools.partial(_convolution.bind, **params))


_convolution.def_impl(lambda lhs, rhs, **params: _compiled(**params)(lhs, rhs))
_convolution.def_effectful_abstract_eval(_xla.abstract_eval)
ad.defbilinear(_convolution, _transpose_lhs, _transpose_rhs)
batching.primitive_batchers[_convolution] = _batch


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
    places = list(itertools.product(*map(range, conv.out)))
    if len(places) > UNROLLED and math.prod((*conv.strides, *conv.reach)) == 1:
        # Written out, each sum would compute the gradient that it reads anew, fused into it.
        def window(place: jax.Array) -> jax.Array:
            return lax.dynamic_slice(padded, [0, *place, 0], rhs.shape).astype(dtype)

        sums = lax.map(lambda place: sum_pixels(window(place) * rhs), jnp.asarray(places))
        return sums.reshape(1, *conv.out, -1)
    sums = [sum_pixels(conv.seen_from(padded, place).astype(dtype) * rhs) for place in places]
    return jnp.stack(sums).reshape(1, *conv.out, -1)


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


def choose_form(lhs: Any, rhs: Any, result: Any, params: Any) -> str:
    """The form of a convolution on a CPU: "xla", or a row of FORMS.

    Args:
        lhs: the input, an array or its shape and type.
        rhs: the kernel.
        result: what the convolution gives, likewise.
        params: of `jax.lax.conv_general_dilated_p`.
    """
    numbers = params["dimension_numbers"]
    shapes = (*lhs.shape, *rhs.shape, *result.shape)
    if not all(isinstance(side, int) for side in shapes) or 0 in shapes or len(lhs.shape) < 3:
        return "xla"
    if not jnp.issubdtype(lhs.dtype, jnp.floating) or lhs.dtype != rhs.dtype:
        return "xla"
    groups, batch_groups = params["feature_group_count"], params["batch_group_count"]
    image, kernel, out = (
        [array.shape[axis] for axis in spec[2:]]
        for array, spec in zip((lhs, rhs, result), numbers, strict=True)
    )
    spread, strided = (math.prod(params[x]) > 1 for x in ("lhs_dilation", "window_strides"))
    if spread and (strided or batch_groups > 1):
        return "xla"
    if batch_groups > 1:
        single = batch_groups == lhs.shape[numbers.lhs_spec[0]] == rhs.shape[numbers.rhs_spec[0]]
        return "depthwise kernel" if single else "xla"
    if groups > 1:
        single = groups == lhs.shape[numbers.lhs_spec[1]]
        return ("spread depthwise" if spread else "depthwise") if single else "xla"
    if math.prod(out) == 1 and not spread:
        return "contraction"
    if math.prod(kernel) == 1 or any(a < b for a, b in zip(image, kernel, strict=True)):
        return "spread product" if spread else "product"
    return "xla"


def _on_a_cpu(lhs: jax.Array, rhs: jax.Array, **params: Any) -> jax.Array:
    result = jax.eval_shape(functools.partial(_xla.bind, **params), lhs, rhs)
    form = choose_form(lhs, rhs, result, params)
    if form == "xla":
        return _xla.bind(lhs, rhs, **params)
    numbers = params["dimension_numbers"]
    numbers = params["dimension_numbers"]
    (batch, feature, *image), (features, channels, *kernel), (n, o, *sides) = numbers
    conv = Plain(
        lhs=lhs.transpose(batch, *image, feature),
        rhs=rhs.transpose(*kernel, channels, features),
        out=[result.shape[axis] for axis in sides],
        strides=params["window_strides"],
        low=[low for low, _ in params["padding"]],
        spread=params["lhs_dilation"],
        reach=params["rhs_dilation"],
    )

    def dot(a: jax.Array, b: jax.Array, contracted: int = -1) -> jax.Array:
        numbers = (((contracted % a.ndim,), (0,)), ((), ()))
        return lax.dot_general(
            a,
            b,
            numbers,
            precision=params["precision"],
            preferred_element_type=params["preferred_element_type"],
        )

    plain = FORMS[form](conv, dot).astype(result.dtype)
    order = [n, *sides, o]
    return plain.transpose([order.index(axis) for axis in range(len(order))])


mlir.register_lowering(_convolution, mlir.lower_fun(_xla.bind, multiple_results=False))
mlir.register_lowering(
    _convolution, mlir.lower_fun(_on_a_cpu, multiple_results=False), platform="cpu"
)
