"""Whole numbers of eight bits: borders of the range, every float type, and qwix's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import qwix

from fairgrape_jax.quantize import numbers
from fairgrape_jax.quantize.numbers import Scale

ONE = Scale(jnp.float32(1), jnp.float32(0))
ABSMAX_127 = f"absmax,{127.5 / 127}"  # qwix divides by 127.5


@pytest.mark.parametrize("axes", [(), (0,), (1,), (3,), (0, 3), (0, 1, 2, 3)])
def test_weights_are_those_of_qwix(axes):
    weights = jnp.asarray(np.random.default_rng(0).normal(size=(3, 3, 4, 5)), jnp.float32)
    expected = qwix.quantize(
        weights, jnp.int8, channelwise_axes=axes, calibration_method=ABSMAX_127
    )
    scale = numbers.weight_scale(weights, axes)
    whole = numbers.to_int8(weights, scale)
    np.testing.assert_array_equal(whole, expected.qvalue)
    np.testing.assert_allclose(scale.scale, expected.scale, rtol=1e-6)
    np.testing.assert_allclose(
        numbers.from_int8(whole, scale), qwix.dequantize(expected), rtol=1e-6
    )


@pytest.mark.parametrize(
    ("value", "whole", "gradient"),
    [
        (-200.0, -128, 0),
        (-128.51, -128, 0),
        (-128.5, -128, 1),
        (-0.5, 0, 1),
        (0.0, 0, 1),
        (1.5, 2, 1),
        (2.5, 2, 1),
        (127.49, 127, 1),
        (127.5, 127, 0),
        (1e30, 127, 0),
    ],
)
def test_rounding_is_half_to_even_and_the_gradient_passes_within_the_range(value, whole, gradient):
    x = jnp.float32(value)
    assert int(numbers.to_int8(x, ONE)) == whole
    assert float(numbers.round_to_int8(x, ONE)) == whole
    assert float(jax.grad(lambda x: numbers.round_to_int8(x, ONE))(x)) == gradient


@pytest.mark.parametrize(
    ("lower", "upper"), [(0, 255), (-1, 1), (-3, 0), (-0.001, 7), (2, 5), (-5, -2), (0, 0)]
)
def test_a_range_holds_zero_exactly_and_its_ends_to_half_a_step(lower, upper):
    scale = numbers.range_scale(jnp.float32(lower), jnp.float32(upper))
    assert float(scale.zero) == round(float(scale.zero))
    assert -128 <= float(scale.zero) <= 127
    assert float(numbers.round_to_int8(jnp.float32(0), scale)) == 0
    ends = jnp.asarray([min(lower, 0), max(upper, 0)], jnp.float32)
    off = np.abs(numbers.round_to_int8(ends, scale) - ends)
    assert (off <= 0.5001 * float(scale.scale)).all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_every_type_keeps_itself_and_its_zeros(dtype):
    weights = jnp.asarray(np.random.default_rng(1).normal(size=(8, 6)), dtype)
    weights = weights.at[::2].set(0).at[:, 2].set(0)
    scale = numbers.weight_scale(weights, (1,))
    rounded = numbers.round_to_int8(weights, scale)
    assert rounded.dtype == weights.dtype
    assert scale.scale.dtype == jnp.float32
    assert not np.asarray(rounded[::2], np.float32).any()
    assert not np.asarray(rounded[:, 2], np.float32).any()
    step = np.asarray(scale.scale)
    off = np.abs(np.asarray(rounded, np.float32) - np.asarray(weights, np.float32))
    assert (off <= 0.5 * step + 0.01 * np.abs(np.asarray(weights, np.float32))).all()
    assert np.abs(numbers.to_int8(weights, scale)).max() == 127
