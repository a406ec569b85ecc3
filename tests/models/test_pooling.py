"""Max pooling: flax's values and gradients to the bit, and no scatter on a GPU."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from fairgrape_jax.models.pooling import max_pool, max_pool_by_shifts

# Side of a window, stride, padding.
WINDOWS = [(3, 2, 1), (2, 2, 0), (3, 1, 1), (5, 2, 2), (2, 3, 0), (1, 2, 0)]


def flax_pool(x, size, stride, padding):
    return nn.max_pool(x, (size, size), (stride, stride), padding=((padding, padding),) * 2)


def pictures(shape, dtype=jnp.float32, seed=0, digits=1):
    """Rounded to few digits many windows have several equal maxima."""
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape).round(digits), dtype)


POOLS = pytest.mark.parametrize("pool", [max_pool, max_pool_by_shifts])


@POOLS
@pytest.mark.parametrize(
    ("window", "dtype"), [*((window, "float32") for window in WINDOWS), ((3, 2, 1), "bfloat16")]
)
def test_values_and_gradients_are_flaxs_to_the_bit(window, dtype, pool):
    @functools.partial(jax.jit, static_argnums=0)
    def both(pool, x, cotangent):
        values, back = jax.vjp(lambda x: pool(x, *window), x)
        return values, back(cotangent)[0]

    x = pictures((2, 7, 8, 3), dtype)
    shape = jax.eval_shape(lambda x: flax_pool(x, *window), x).shape
    cotangent = jnp.asarray(np.random.default_rng(1).normal(size=shape), dtype)
    for ours, flaxs in zip(both(pool, x, cotangent), both(flax_pool, x, cotangent), strict=True):
        np.testing.assert_array_equal(ours, flaxs)
        assert ours.dtype == dtype


@pytest.mark.parametrize("window", [(3, 2, 1), (3, 1, 1), (17, 2, 8)], ids=str)
@pytest.mark.parametrize("numbers", [[0.0, 1.0], [-np.inf, -1, np.inf, np.nan], [-np.inf]], ids=str)
def test_gradients_are_flaxs_to_the_bit_whatever_the_numbers(window, numbers):
    x = jnp.asarray(np.random.default_rng(0).choice(numbers, (3, 18, 19, 2)), jnp.float32)
    shape = jax.eval_shape(lambda x: flax_pool(x, *window), x).shape
    cotangent = jnp.asarray(np.random.default_rng(1).normal(size=shape), jnp.float32)
    ours, flaxs = (
        jax.jit(lambda x, p=pool: jax.vjp(lambda x: p(x, *window), x)[1](cotangent)[0])(x)
        for pool in (max_pool, flax_pool)
    )
    np.testing.assert_array_equal(ours, flaxs)


@POOLS
@pytest.mark.parametrize("window", [(3, 2, 1), (2, 1, 0)], ids=str)
def test_tangents_are_flaxs(window, pool):
    x, tangent = pictures((2, 7, 8, 3), digits=9), pictures((2, 7, 8, 3), seed=2)
    pushed, expected = (
        jax.jvp(lambda x, p=p: p(x, *window), (x,), (tangent,))[1] for p in (pool, flax_pool)
    )
    np.testing.assert_array_equal(pushed, expected)


def second_order(pool, x, direction):
    """A product with the Hessian of something that is not linear behind the pooling."""
    return jax.jvp(jax.grad(lambda x: (pool(jnp.sin(x), 3, 2, 1) ** 3).sum()), (x,), (direction,))


def test_second_order_mapped():
    x, direction = pictures((2, 3, 7, 6, 2)), pictures((2, 3, 7, 6, 2), seed=3)
    each = [
        jax.jit(jax.vmap(functools.partial(second_order, pool)))(x, direction)
        for pool in (max_pool, flax_pool)
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), *each)


@pytest.mark.parametrize("axes", [(0, None), (None, 0), (2, 1)], ids=str)
def test_either_argument_may_be_mapped(axes):
    x, cotangent = pictures((2, 3, 3, 6, 2)), pictures((2, 3, 3, 3, 2), seed=1)
    x, cotangent = (a[0] if axis is None else jnp.moveaxis(a, 0, axis)
                    for a, axis in zip((x, cotangent), axes, strict=True))  # fmt: skip

    def gradient(pool):
        def one(x, cotangent):
            return jax.vjp(lambda x: pool(x, 2, 2, 0), x)[1](cotangent[:, :1])[0]

        return jax.jit(jax.vmap(one, axes))(x, cotangent)

    np.testing.assert_array_equal(gradient(max_pool), gradient(flax_pool))


def test_what_is_not_a_number_stays_visible():
    x = pictures((1, 6, 6, 1)).at[0, 2, 2, 0].set(jnp.nan)
    np.testing.assert_array_equal(max_pool(x, 3, 2, 1), flax_pool(x, 3, 2, 1))
    np.testing.assert_array_equal(max_pool_by_shifts(x, 3, 2, 1), flax_pool(x, 3, 2, 1))


@pytest.mark.parametrize(("platform", "scatters"), [("tpu", 1), ("cpu", 0), ("cuda", 0)])
def test_each_platform_has_the_form_that_is_fast_there(platform, scatters):
    x = jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32)
    step = jax.jit(jax.grad(lambda x: (max_pool(x, 3, 2, 1) ** 2).sum()))
    text = step.trace(x).lower(lowering_platforms=(platform,)).as_text()
    assert text.count("stablehlo.select_and_scatter") == scatters
    assert "stablehlo.scatter" not in text
