"""Stripes and the filter skeleton against values of SWP's public code."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fairgrape_jax.systems import stripes
from fairgrape_jax.systems.stripes import Skeleton
from tests.helpers.related import golden, to_ours

LAYERS = [f"k{k}.s{s}.hw{n}" for k in (1, 3, 5) for s in (1, 2) for n in (7, 8)]


def skeleton(values):
    """(outputs, H, W) to ours."""
    return np.moveaxis(values, 0, -1)


@pytest.mark.parametrize("name", LAYERS)
def test_shifted_convolutions_over_the_stripes_give_the_authors_outputs(name):
    file, prefix = golden("06_swp"), f"layer.{name}"
    size, stride, _ = map(int, re.findall(r"\d+", name))
    factors = skeleton(file[f"{prefix}.skeleton"])
    stays = np.abs(factors) > 0.01
    weights = to_ours(file[f"{prefix}.w"]) * np.where(stays, factors, 0)[:, :, None]
    layer = stripes.strip(weights, stays)
    np.testing.assert_array_equal(layer.outputs, np.flatnonzero(file[f"{prefix}.filter_kept"]))
    x = jnp.moveaxis(jnp.asarray(file[f"{prefix}.x"]), 1, -1)
    found = jnp.moveaxis(
        stripes.convolve_stripped(layer, x, (stride, stride), [(size // 2, size // 2)] * 2), -1, 1
    )
    np.testing.assert_allclose(found, file[f"{prefix}.out_stripped"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found, file[f"{prefix}.out"][:, layer.outputs], rtol=1e-4, atol=1e-5)
    assert sum(shift.weights.size for shift in layer.shifts) == stays.sum() * weights.shape[2]


def normalise(x, file, name, left, empty):
    """A batch norm in evaluation; weight and bias of filters without a stripe are zero."""
    weight, bias, mean, var = (
        np.where(empty, 0, file[f"param.{name}.{key}"])[left]
        if key in ("weight", "bias")
        else file[f"param.{name}.{key}"][left]
        for key in ("weight", "bias", "running_mean", "running_var")
    )
    return (x - mean) / jnp.sqrt(var + 1e-5) * weight + bias


def test_the_stripped_network_gives_the_authors_logits():
    """Three convolutions with batch norm, of the stripes that the threshold leaves."""
    file = golden("06_swp")
    x = jnp.moveaxis(jnp.asarray(file["x"]), 1, -1)
    inputs, count, sizes = np.arange(3), 0, []
    for conv, norm in (
        ("features.0", "features.1"),
        ("features.4", "features.5"),
        ("features.7", "features.8"),
    ):
        factors = skeleton(file[f"param.{conv}.FilterSkeleton"])
        stays = np.abs(factors) > float(file["threshold"])
        weights = to_ours(file[f"param.{conv}.weight"]) * factors[:, :, None]
        layer = stripes.strip(weights[:, :, inputs], stays)
        count += sum(shift.weights.size for shift in layer.shifts)
        x = stripes.convolve_stripped(layer, x, (1, 1), [(1, 1), (1, 1)])
        empty = ~stays.any(axis=(0, 1))
        x = jax.nn.relu(normalise(x, file, norm, layer.outputs, empty))
        if conv == "features.0":
            x = x.reshape(len(x), 5, 2, 5, 2, -1).max(axis=(2, 4))
        inputs = layer.outputs
        sizes.append(len(inputs))
    weight = file["param.classifier.weight"][:, inputs]
    logits = x.mean(axis=(1, 2)) @ weight.T + file["param.classifier.bias"]
    np.testing.assert_allclose(logits, file["thresholded.logits_stripped"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(logits, file["thresholded.logits_masked"], rtol=1e-4, atol=1e-5)
    rest = sum(2 * size for size in sizes) + weight.size + len(weight)  # batch norm and head
    assert count + rest == file["thresholded.n_params_stripped"]


@pytest.mark.parametrize("step", [1, 2])
def test_a_step_of_the_skeleton_is_the_authors(step):
    file = golden("06_swp")
    for conv in ("features.0", "features.4", "features.7"):
        name = f"{conv}.FilterSkeleton"
        before = file[f"param.{name}"] if step == 1 else file[f"step1.value_after_sgd.{name}"]
        part = Skeleton(jnp.asarray(before), jnp.asarray(file[f"step{step}.grad_before.{name}"]))
        after = stripes.penalise(part, float(file["sr"]), float(file["threshold"]))
        np.testing.assert_allclose(
            after.values, file[f"step{step}.value_after_threshold.{name}"], rtol=1e-6
        )
        np.testing.assert_allclose(
            after.gradient, file[f"step{step}.grad_after.{name}"], rtol=1e-5, atol=1e-8
        )
