"""Quantisers and channels by activations against values of the authors' library, qsparse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fairgrape_jax.systems import channels, quantise
from tests.helpers.related import golden

WHAT = {
    "w_channel0": ("weights", 0),
    "w_tensor": ("weights", None),
    "a_tensor": ("activations", None),
}
# start, interval, repetitions, rampup, l0, steps between masks, the step after which none is set
PRUNING = {
    "layerwise": (1, 2, 1, False, False, 1, 2),
    "stepwise": (2, 2, 3, False, False, 1, None),
    "stepwise_rampup": (2, 2, 3, True, False, 1, None),
    "stepwise_l0_stop6": (2, 2, 3, False, True, 2, 6),
}


def running(measure, inputs):
    """The running measures after inputs 1, 2, ...; input 0 passes unchanged."""
    mean, found = None, []
    for count, x in enumerate(inputs[1:]):
        new = measure(jnp.asarray(x))
        mean = (
            new
            if mean is None
            else jax.tree.map(
                lambda m, n, count=count: quantise.running_mean(m, n, count), mean, new
            )
        )
        found.append(mean)
    return found


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("what", WHAT)
@pytest.mark.parametrize("name", ["scaler", "decimal"])
def test_scaler_and_decimal_are_the_librarys_and_clip_as_the_paper_says(name, what, bits):
    file, (key, axis) = golden("05_qsparse"), WHAT[what]
    prefix, inputs = f"quant.{name}.{bits}.{what}", file[f"quant.{key}"]
    scales = running(lambda x: quantise.measure_scale(x, bits, axis), inputs)
    stored = [np.ravel(s) for s in file[f"{prefix}.scale"]]
    for scale, expected in zip(scales, stored, strict=True):
        np.testing.assert_allclose(np.ravel(scale), expected, rtol=1e-6)
    truncate, last = name == "decimal", jnp.asarray(inputs[4])
    used = [quantise.power_of_two(s) if truncate else s for s in scales]
    released = quantise.quantise(last, used[3], bits, truncate, False)
    np.testing.assert_allclose(released, file[f"{prefix}.out_last"], rtol=1e-5, atol=1e-6)
    first = quantise.quantise(jnp.asarray(inputs[0]), used[3], bits, truncate, False)
    np.testing.assert_allclose(first, file[f"{prefix}.eval"], rtol=1e-5, atol=1e-6)
    out, pull = jax.vjp(lambda x: quantise.quantise(x, used[3], bits, truncate), last)
    np.testing.assert_allclose(out, file[f"{prefix}.out_last_intended"], rtol=1e-5, atol=1e-6)
    (gradient,) = pull(jnp.asarray(file[f"quant.grad_out_{key}"]))
    np.testing.assert_allclose(gradient, file[f"{prefix}.grad_last_intended"], rtol=1e-6)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("what", [*WHAT, "a_channel1"])
def test_the_adaptive_quantiser_is_the_librarys(what, bits):
    file, (key, axis) = golden("05_qsparse"), WHAT.get(what, ("activations", 1))
    prefix, inputs = f"quant.adaptive.{bits}.{what}", file[f"quant.{key}"]
    ranges = running(lambda x: quantise.measure_range(x, axis), inputs)
    for found, expected in zip(ranges, file[f"{prefix}.scale"], strict=True):
        both = np.stack([np.ravel(found.lower), np.ravel(found.upper)], axis=-1)
        np.testing.assert_allclose(both, expected.reshape(both.shape), rtol=1e-5, atol=1e-6)
    last, at = jnp.asarray(inputs[4]), ranges[3]
    out, pull = jax.vjp(lambda x: quantise.quantise_adaptive(x, *at, bits), last)
    np.testing.assert_allclose(out, file[f"{prefix}.out_last"], rtol=1e-4, atol=1e-5)
    (gradient,) = pull(jnp.asarray(file[f"quant.grad_out_{key}"]))
    np.testing.assert_allclose(gradient, file[f"{prefix}.grad_last_inside"], rtol=1e-6)
    whole = quantise.quantise_adaptive_whole(jnp.asarray(inputs[0]), *at, bits)
    np.testing.assert_allclose(whole, file[f"{prefix}.eval"], rtol=1e-4, atol=1e-5)


def library_mask(importance, sparsity):
    """Which channels the library keeps: at least one goes, ties at the threshold stay.

    Our rows keep exact counts; this is what the traces were made with.
    """
    place = max(int(np.float32(sparsity) * len(importance) - 1), 0) + 1
    return importance >= np.sort(importance)[place]


def test_the_mask_rule_is_the_librarys():
    file = golden("05_qsparse")
    for sparsity, mask in zip(file["mask_rule.sparsity"], file["mask_rule.mask"], strict=True):
        np.testing.assert_array_equal(library_mask(file["mask_rule.importance"], sparsity), mask)


@pytest.mark.parametrize("name", PRUNING)
def test_channels_are_those_of_the_library_step_by_step(name):
    """Importance, sparsity and masks of three layers over twelve batches."""
    file = golden("05_qsparse")
    start, interval, repetitions, rampup, l0, refresh, stop = PRUNING[name]
    measure = channels.share_active if l0 else channels.activity
    masks = [np.ones(len(file[f"prune.c{i}.bias"]), bool) for i in (1, 2, 3)]
    importance = [np.full(len(mask), np.nan, np.float32) for mask in masks]
    for step, images in enumerate(file["prune.x"]):
        x = jnp.moveaxis(jnp.asarray(images), 1, -1)
        for i in range(3):
            kernel, bias = file[f"prune.c{i + 1}.weight"], file[f"prune.c{i + 1}.bias"]
            x = jax.lax.conv_general_dilated(
                x,
                jnp.moveaxis(kernel, (0, 1), (3, 2)),
                (1, 1),
                "SAME",
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )
            x = jax.nn.relu(x + bias)
            begin = channels.layer_start(i, start, interval) if name == "layerwise" else start
            sparsity = channels.sparsity_at(
                step,
                float(file["prune.sparsity"]),
                begin=begin,
                interval=interval,
                repetitions=repetitions,
                rampup=rampup,
            )
            count = step - begin
            if count >= 0 and (stop is None or count < stop):
                new = np.asarray(measure(x))
                old = new if count == 0 else importance[i]
                importance[i] = np.asarray(quantise.running_mean(old, new, count))
            if count > 0 and count % refresh == 0 and (stop is None or count <= stop):
                masks[i] = library_mask(importance[i], sparsity)
            x = x * masks[i]
            prefix = f"prune.{name}.p{i + 1}"
            np.testing.assert_allclose(importance[i], file[f"{prefix}.importance"][step], rtol=1e-5)
            np.testing.assert_allclose(sparsity, file[f"{prefix}.sparsity"][step], rtol=1e-6)
            np.testing.assert_array_equal(masks[i], file[f"{prefix}.mask"][step])
    np.testing.assert_allclose(
        jnp.moveaxis(x, -1, 1), file[f"prune.{name}.last_output"], rtol=1e-4, atol=1e-5
    )
