"""Convolutions give what XLA's own do, in every form, and are XLA's own on GPUs and TPUs."""

import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from fairgrape_jax.models import convolution, convolution_forms
from fairgrape_jax.models.convolution import conv_general_dilated

NHWC = ("NHWC", "HWIO", "NHWC")


def case(image, kernel, strides, padding, **options):
    """Shapes of input and kernel, and the arguments."""
    options = {"dimension_numbers": NHWC} | options
    return image, kernel, {"window_strides": strides, "padding": padding} | options


# What a layer is -> the forms of it, of the gradient for its input, and for its kernel.
CASES = {
    "large": (case((2, 8, 8, 8), (3, 3, 8, 20), (1, 1), "SAME"), "xla", "xla", "xla"),
    "few": (case((3, 64, 64, 3), (3, 3, 3, 4), (1, 1), "SAME"), "padded", "padded", "xla"),
    "stem": (case((8, 32, 32, 3), (7, 7, 3, 4), (2, 2), ((3, 3), (3, 3))), "padded", "xla", "xla"),
    "odd channels": (
        case((3, 32, 32, 3), (3, 3, 3, 20), (1, 1), ((0, 2), (1, -1))),
        *("padded", "xla", "xla"),
    ),
    "odd channels and features": (
        case((10, 17, 16, 19), (3, 2, 19, 15), (2, 2), "SAME"),
        *("padded", "xla", "xla"),
    ),
    "odd features": (
        case((4, 17, 16, 8), (3, 3, 8, 15), (1, 1), "SAME"),
        *("xla", "padded", "xla"),
    ),
    "odd channels first": (
        case(
            (8, 5, 13, 12),
            (20, 5, 3, 3),
            (1, 1),
            "SAME",
            dimension_numbers=("NCHW", "OIHW", "NCHW"),
        ),
        *("padded", "xla", "xla"),
    ),
    "odd channels, dilated": (
        case((2, 32, 32, 5), (3, 3, 5, 20), (1, 1), "SAME", rhs_dilation=(2, 2)),
        *["xla"] * 3,
    ),
    "odd channels, small": (
        case((2, 8, 8, 3), (3, 3, 3, 20), (1, 1), "SAME"),
        *["xla"] * 3,
    ),
    "2x2": (case((3, 2, 2, 5), (3, 3, 5, 4), (1, 1), "SAME"), "product", "product", "xla"),
    "1x1": (
        case((3, 1, 1, 5), (3, 3, 5, 4), (1, 1), "SAME"),
        "contraction",
        "contraction",
        "product",
    ),
    "4x4 strided": (
        case((2, 4, 4, 5), (3, 3, 5, 4), (2, 2), ((1, 1), (1, 1))),
        *("xla", "spread product", "xla"),
    ),
    "2x2 strided": (
        case((2, 2, 2, 5), (3, 3, 5, 4), (2, 2), ((1, 1), (1, 1))),
        *("contraction", "spread product", "product"),
    ),
    "2x3 cut": (
        case((2, 2, 3, 5), (3, 2, 5, 4), (1, 2), ((2, 1), (-1, 3))),
        *("product", "xla", "xla"),
    ),
    "dilated": (
        case((2, 2, 2, 5), (3, 3, 5, 4), (1, 1), ((2, 2), (2, 2)), rhs_dilation=(2, 2)),
        *("product", "product", "xla"),
    ),
    "spread": (
        case((2, 2, 2, 5), (3, 3, 5, 4), (1, 1), ((1, 2), (1, 2)), lhs_dilation=(2, 2)),
        *("spread product", "xla", "spread product"),
    ),
    "spread, strided": (
        case((2, 2, 2, 5), (3, 3, 5, 4), (3, 3), ((1, 2), (1, 2)), lhs_dilation=(2, 2)),
        *("xla", "xla", "xla"),
    ),
    "pointwise": (case((2, 5, 5, 3), (1, 1, 3, 4), (1, 1), "VALID"), "product", "product", None),
    "pointwise, strided": (
        case((2, 5, 4, 3), (1, 1, 3, 4), (2, 3), "SAME"),
        *("product", "spread product", None),
    ),
    "pointwise, padded": (
        case((2, 5, 4, 3), (1, 1, 3, 4), (2, 2), ((1, 2), (0, -1))),
        *("product", "spread product", None),
    ),
    "depthwise": (
        case((16, 5, 4, 6), (3, 3, 1, 6), (1, 1), "SAME", feature_group_count=6),
        *("depthwise", "depthwise", "depthwise kernel"),
    ),
    "depthwise, 7x7": (
        case((4, 5, 4, 6), (7, 7, 1, 6), (1, 1), ((3, 3), (3, 3)), feature_group_count=6),
        *("depthwise", "depthwise", "depthwise kernel"),
    ),
    "depthwise, 2x5": (
        case((3, 2, 6, 4), (2, 5, 1, 4), (1, 1), "VALID", feature_group_count=4),
        *("depthwise", "depthwise", "depthwise kernel"),
    ),
    "depthwise, 5x5 strided": (
        case((2, 6, 5, 4), (5, 5, 1, 4), (2, 2), "SAME", feature_group_count=4),
        *("depthwise", "spread depthwise", "depthwise kernel"),
    ),
    "depthwise, strided": (
        case((3, 5, 4, 6), (3, 2, 1, 6), (2, 2), ((1, 1), (1, 1)), feature_group_count=6),
        *("depthwise", "spread depthwise", "depthwise kernel"),
    ),
    "depthwise, dilated, one picture": (
        case(
            (1, 7, 6, 6), (3, 3, 1, 6), (1, 2), "SAME", feature_group_count=6, rhs_dilation=(2, 1)
        ),
        *("depthwise", "spread depthwise", "depthwise kernel"),
    ),
    "depthwise, two kernels a channel": (
        case((2, 5, 5, 3), (3, 3, 1, 6), (2, 2), "SAME", feature_group_count=3),
        *("depthwise", "xla", "xla"),
    ),
    "groups": (
        case((2, 2, 2, 6), (3, 3, 3, 4), (1, 1), "SAME", feature_group_count=2),
        *["xla"] * 3,
    ),
    "batch groups": (
        case((6, 4, 4, 3), (3, 3, 3, 4), (1, 1), "SAME", batch_group_count=2),
        *["xla"] * 3,
    ),
    "channels first": (
        case(
            (2, 5, 2, 2), (4, 5, 3, 3), (1, 1), "SAME", dimension_numbers=("NCHW", "OIHW", "NHWC")
        ),
        *("product", "product", "xla"),
    ),
    "one axis": (
        case((2, 3, 5), (4, 5, 6), (2,), "SAME", dimension_numbers=("NWC", "WIO", "NWC")),
        *("product", "spread product", "xla"),
    ),
    "three axes": (
        case(
            (2, 2, 3, 3, 2),
            (3, 3, 3, 2, 4),
            (1,) * 3,
            "SAME",
            dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
        ),
        *("product", "product", "xla"),
    ),
    "no pixel": (case((2, 1, 1, 3), (3, 3, 3, 4), (1, 1), "VALID"), *["xla"] * 3),
}


def arrays(shapes, dtype=jnp.float32):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.standard_normal(shape), dtype) for shape in shapes]


def both(function):
    """The function of a convolution, jitted, for XLA's and for ours."""
    return [
        jax.jit(functools.partial(function, f))
        for f in (lax.conv_general_dilated, conv_general_dilated)
    ]


def value_and_gradients(convolve, x, kernel, options):
    value, pull = jax.vjp(lambda x, kernel: convolve(x, kernel, **options), x, kernel)
    return value, *pull(jnp.cos(value))


BFLOAT16 = (
    "2x2",
    "2x2 strided",
    "pointwise, strided",
    "depthwise",
    "depthwise, 7x7",
    "depthwise, strided",
)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [*((name, jnp.float32) for name in CASES), *((name, jnp.bfloat16) for name in BFLOAT16)],
)
def test_value_and_gradients_are_those_of_xla(name, dtype):
    (image, kernel, options), *_ = CASES[name]
    x, k = arrays((image, kernel), dtype)
    expected, ours = (f(x, k) for f in both(lambda f, x, k: value_and_gradients(f, x, k, options)))
    tolerance = 1e-5 if dtype == jnp.float32 else 3e-2
    for a, b in zip(expected, ours, strict=True):
        assert a.dtype == b.dtype
        a, b = np.float32(a), np.float32(b)
        np.testing.assert_allclose(
            b, a, rtol=tolerance, atol=tolerance * max(1, np.abs(a).max(initial=0))
        )


@pytest.mark.parametrize("name", CASES)
def test_each_pass_takes_the_form_of_its_own_shapes(name, monkeypatch):
    (image, kernel, options), value, *gradients = CASES[name]
    chosen = []
    choose = convolution.choose_form

    def noted(*args):
        chosen.append(choose(*args))
        return chosen[-1]

    monkeypatch.setattr(convolution, "choose_form", noted)
    x, k = arrays((image, kernel))
    jax.jit(lambda x, k: value_and_gradients(conv_general_dilated, x, k, options)).lower(x, k)
    expected = [value, *(form or "contraction" for form in gradients)]
    assert sorted(set(chosen)) == sorted(set(expected))


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize("name", ["2x2", "4x4 strided", "pointwise, strided", "depthwise, strided"])
def test_on_gpus_and_tpus_the_program_is_that_of_xla(name, platform):
    (image, kernel, options), *_ = CASES[name]
    x, k = arrays((image, kernel))

    def operations(function):
        lowered = function.trace(x, k).lower(lowering_platforms=(platform,))
        return re.findall(r"stablehlo\.(\w+)", lowered.as_text())

    texts = [operations(f) for f in both(lambda f, x, k: value_and_gradients(f, x, k, options))]
    assert texts[0] == texts[1]
    assert texts[0].count("convolution") == 3
    assert "case" not in texts[1]


@pytest.mark.parametrize("name", ["few", "2x2", "4x4 strided", "pointwise", "depthwise, 7x7"])
def test_derivatives_of_every_kind_and_batches_are_those_of_xla(name, monkeypatch):
    (image, kernel, options), *_ = CASES[name]
    if name == "few":  # XLA's own second derivatives of its pictures take seconds
        image = (3, 8, 8, 3)
        monkeypatch.setattr(convolution, "LARGE", 0)
    x, k, dx, dk = arrays((image, kernel, image, kernel))

    def derivatives(convolve, x, k, dx, dk):
        def loss(x, k):
            return jnp.sin(convolve(x, k, **options)).sum()

        gradient = jax.grad(loss, (0, 1))
        of_samples = jax.vmap(lambda x: jax.grad(loss, 1)(x[None], k))(x)  # as scores per sample
        kernels = jnp.stack([k, dk])
        of_groups = jax.vmap(gradient, (None, 0))(x, kernels)
        return {
            "forward": jax.jvp(loss, (x, k), (dx, dk)),
            "forward over reverse": jax.jvp(gradient, (x, k), (dx, dk))[1],
            "reverse over reverse": jax.grad(lambda x, k: (gradient(x, k)[1] * dk).sum(), (0, 1))(
                x, k
            ),
            "of samples": of_samples,
            "of groups": of_groups,
            "of a batch": jax.grad(lambda ks: jax.vmap(loss, (None, 0))(x, ks).sum())(kernels),
        }

    expected, ours = (f(x, k, dx, dk) for f in both(derivatives))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-4 * np.abs(a).max()),
        expected,
        ours,
    )


@pytest.mark.parametrize("pixels", [14, 28])
@pytest.mark.parametrize("features", [2, 8, 16])
def test_pictures_of_one_channel_have_the_bits_of_xla(pixels, features):
    """Runs of handwriting stay as they were to the last digit."""
    x, k = arrays([(300, pixels, pixels, 1), (3, 3, 1, features)])
    options = {"window_strides": (1, 1), "padding": "SAME", "dimension_numbers": NHWC}
    expected, ours = (f(x, k) for f in both(lambda f, x, k: f(x, k, **options)))
    np.testing.assert_array_equal(ours, expected)


def test_padded_widths_are_the_same_or_larger_and_stay_when_padded():
    for channels in range(1, 130):
        for features in range(1, 130):
            wide = convolution.padded_widths(channels, features)
            assert channels <= wide[0] < channels + 4
            assert features <= wide[1] <= max(features, 20)
            assert convolution.padded_widths(*wide) == wide


def test_it_runs_outside_of_a_program_and_with_other_types():
    (image, kernel, options), *_ = CASES["2x2"]
    x, k = arrays((image, kernel))
    np.testing.assert_allclose(
        conv_general_dilated(x, k, **options),
        lax.conv_general_dilated(x, k, **options),
        rtol=1e-5,
        atol=1e-5,
    )
    for dtype in (jnp.int32, jnp.complex64, jnp.float16):
        a, b = (2 * x).astype(dtype), (2 * k).astype(dtype)
        expected = lax.conv_general_dilated(a, b, **options)
        value = conv_general_dilated(a, b, **options)
        assert value.dtype == expected.dtype
        np.testing.assert_allclose(value, expected, rtol=1e-2, atol=1e-2)
    wide = conv_general_dilated(
        x.astype(jnp.bfloat16),
        k.astype(jnp.bfloat16),
        preferred_element_type=jnp.float32,
        **options,
    )
    assert wide.dtype == jnp.float32


def test_a_network_of_ones_own_takes_it():
    class Network(nn.Module):
        convolve: object = None

        @nn.compact
        def __call__(self, x):
            return nn.Conv(4, (3, 3), strides=2, conv_general_dilated=self.convolve)(x)

    (x,) = arrays([(2, 4, 4, 3)])
    variables = Network().init(jax.random.key(0), x)
    ours = Network(conv_general_dilated)
    expected, value = (
        jax.jit(jax.grad(lambda v, n=n: n.apply(v, x).sum()))(variables) for n in (Network(), ours)
    )
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), expected, value
    )


@pytest.mark.parametrize(
    "shape", [(1, 3), (7, 5), (8, 2, 3), (12, 3, 2, 4), (16, 1, 1, 2), (11, 1)]
)
def test_the_sum_of_pixels_is_the_sum(shape):
    (x,) = arrays([shape])
    np.testing.assert_allclose(
        convolution_forms.sum_pixels(x), x.reshape(-1, shape[-1]).sum(0), rtol=1e-5, atol=1e-5
    )
