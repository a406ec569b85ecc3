"""Convolutions in the form that is fast on the platform: XLA's own, or matrix products on a CPU.

`conv_general_dilated` is `jax.lax`'s, and lowers to it on GPUs and TPUs. On a CPU the form follows
from the shapes (`choose_form`): XLA:CPU takes up to 50 times as long as one matrix product where
the input is smaller than the kernel, and as long again for the gradient. The gradients of a
convolution are convolutions, so each takes the form of its own shapes.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from fairgrape_jax.models.convolution_forms import FORMS, Plain


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


PADDED = "padded"  # the form that is XLA's own with more channels
LARGE = 2**20  # products below which a convolution gains less than padding costs to compile

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


def choose_form(lhs: Any, rhs: Any, result: Any, params: Any) -> str:
    """The form of a convolution on a CPU: "xla", `PADDED`, or a row of `FORMS`.

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
    images = len(image) == 2 and numbers.lhs_spec[0] == 0 and lhs.dtype == jnp.float32
    dense = not spread and math.prod(params["rhs_dilation"]) == 1
    products = lhs.shape[0] * math.prod(out) * math.prod(rhs.shape)
    widths = rhs.shape[numbers.rhs_spec[1]], rhs.shape[numbers.rhs_spec[0]]
    worth = images and dense and products >= LARGE and padded_widths(*widths) != widths
    return PADDED if worth else "xla"


def padded_widths(channels: int, features: int) -> tuple[int, int]:
    """Numbers of channels and features at which XLA's convolution of images is fast on a CPU.

    Rules of thumb from some two thousand shapes on a CPU with AVX-512
    (`experiments/benchmarks/channels.py`): few features take as long as 20 and longer; a number of
    channels that is no multiple of four costs up to 14 times as much, by how far the features go
    beyond what the matrix product takes at a time.

    Args:
        channels: of the input.
        features: of the result.

    Returns:
        Both, as they are or larger. What is added is zero, and features beyond are cut off.

    Example:
        >>> padded_widths(3, 32), padded_widths(1, 16), padded_widths(3, 64)
        ((4, 32), (1, 20), (3, 64))
    """
    odd, fours = channels % 2 == 1, channels + -channels % 4
    if channels < 8 and features <= 16:
        return fours if odd and channels > 1 else channels, 20
    beyond = features % 64
    if channels < 14:
        slow = odd and channels > 1 and 17 <= features % 48 <= 32
    else:
        slow = channels < 96 and (odd or not 17 <= beyond <= 32)
    return fours if slow and 0 < beyond <= 48 else channels, features


def _padded(lhs: jax.Array, rhs: jax.Array, **params: Any) -> jax.Array:
    """XLA's convolution of wider arrays: zeros up to `padded_widths`, cut off again."""
    lhs_spec, rhs_spec, out_spec = params["dimension_numbers"]
    channels, features = rhs.shape[rhs_spec[1]], rhs.shape[rhs_spec[0]]
    wide = padded_widths(channels, features)
    lhs = _widened(lhs, {lhs_spec[1]: wide[0]})
    rhs = _widened(rhs, {rhs_spec[1]: wide[0], rhs_spec[0]: wide[1]})
    return lax.slice_in_dim(_xla.bind(lhs, rhs, **params), 0, features, axis=out_spec[1])


def _widened(array: jax.Array, lengths: dict[int, int]) -> jax.Array:
    sides = enumerate(array.shape)
    return jnp.pad(array, [(0, lengths.get(axis, side) - side) for axis, side in sides])


def _on_a_cpu(lhs: jax.Array, rhs: jax.Array, **params: Any) -> jax.Array:
    result = jax.eval_shape(functools.partial(_xla.bind, **params), lhs, rhs)
    form = choose_form(lhs, rhs, result, params)
    if form in ("xla", PADDED):
        return (_padded if form == PADDED else _xla.bind)(lhs, rhs, **params)
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
