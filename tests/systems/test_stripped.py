"""Whole networks over the stripes that stay: equal outputs, no other weights, measured."""

import dataclasses
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fairgrape_jax as fg
from fairgrape_jax import models
from fairgrape_jax.cli.main import main
from fairgrape_jax.exporters.measure import measure
from fairgrape_jax.kernels import PRUNABLE
from fairgrape_jax.masks import apply_masks, full_masks
from fairgrape_jax.models.convolution import conv_general_dilated
from fairgrape_jax.systems.stripped import strip_network
from tests.helpers.ingredient_runs import TINY


class Odd(nn.Module):
    """Convolutions of every kind of stride, padding, group and dilation."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(6, (3, 3), strides=(2, 1), padding="VALID")(x)
        x = nn.Conv(4, (1, 3), padding=((0, 0), (2, 1)), use_bias=False)(x)
        x = nn.Conv(4, (5, 4), padding="SAME", conv_general_dilated=conv_general_dilated)(x)
        x = nn.Conv(4, (3, 3), feature_group_count=2)(x)
        x = nn.Conv(4, (3, 3), kernel_dilation=2)(x)
        x = nn.Conv(4, (3, 3), padding="CIRCULAR")(x)
        x = nn.Conv(3, (2, 2), strides=2)(x)
        return nn.Dense(2)(nn.Dense(5)(x)).mean(axis=(1, 2))


def network(name, size):
    module = Odd() if name == "odd" else models.create(name, 3)
    shape = (2, size, size, 1 if name in ("cnn", "mlp") else 3)
    x = jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)
    return module, jax.jit(module.init)(jax.random.key(0), x), x


def stripe_masks(params, share, seed=0):
    """Whole stripes drawn, every other layer with a filter that has none; the last one whole."""
    rng = np.random.default_rng(seed)
    masks = full_masks(params, PRUNABLE["kernels"])
    leaves, structure = jax.tree.flatten(masks)
    drawn = []
    for number, mask in enumerate(leaves):
        stays = rng.random((*mask.shape[:-2], 1, mask.shape[-1])) < share
        stays[..., 0] &= number % 2 == 0
        stays.reshape(-1)[-1] = True
        drawn.append(np.broadcast_to(stays, mask.shape).copy())
    drawn[-1][:] = True
    return jax.tree.unflatten(structure, drawn)


@pytest.mark.whole(but=2)
@pytest.mark.parametrize(
    ("name", "size", "left"),
    [("odd", 11, 3), ("cnn", 12, 0), ("mlp", 6, 0), ("resnet18", 32, 0), ("mobilenet_v2", 32, 17)],
)
def test_a_network_over_its_stripes_has_the_outputs_of_the_masked_one(name, size, left):
    """`left`: layers in groups, with dilations or another padding; they stay as they are."""
    module, variables, x = network(name, size)
    masks = stripe_masks(variables["params"], 0.3)
    stripped = strip_network(module, variables, masks, x)
    masked = dict(variables) | {"params": apply_masks(masks, variables["params"])}
    expected = np.asarray(jax.jit(module.apply)(masked, x))
    outputs = np.asarray(jax.jit(stripped.apply)(stripped.variables, x))
    assert np.abs(outputs - expected).max() <= 1e-5 * np.abs(expected).max()
    layers = [mask for mask in jax.tree.leaves(masks) if not mask.all()]
    assert len(stripped.layers) == len(layers) - left
    alive = sum(int(mask.sum()) for mask in layers)
    held = sum(w.size for w in jax.tree.leaves(stripped.variables["stripes"]))
    whole = sum(w.size for w in jax.tree.leaves(variables["params"]))
    rest = sum(w.size for w in jax.tree.leaves(stripped.variables["params"]))
    replaced = sum(int(np.prod(shape.shape)) for shape in stripped.shapes.values())
    assert rest == whole - replaced
    assert (held == alive) == (left == 0)
    assert held <= alive


def test_single_weights_that_are_cut_within_a_stripe_stay_zeros():
    module, variables, x = network("cnn", 12)
    masks = stripe_masks(variables["params"], 0.5)
    masks["conv2"]["kernel"][:, :, ::2] = False
    stripped = strip_network(module, variables, masks, x)
    expected = module.apply({"params": apply_masks(masks, variables["params"])}, x)
    np.testing.assert_allclose(stripped.apply(stripped.variables, x), expected, atol=1e-5)


def test_a_network_without_a_cut_stripe_is_as_it_was():
    module, variables, x = network("cnn", 12)
    stripped = strip_network(module, variables, full_masks(variables["params"]), x)
    assert stripped.layers == {}
    np.testing.assert_array_equal(stripped.apply(stripped.variables, x), module.apply(variables, x))


@pytest.mark.whole
def test_a_measure_without_the_stripes_has_fewer_parameters_and_operations(tmp_path, capsys):
    experiment = dataclasses.replace(TINY, methods=("stripes",), densities=(0.3,))
    finished = fg.run(experiment, tmp_path / "run")
    stage = str(tmp_path / "run" / finished.stages[-1])
    capsys.readouterr()
    assert main(["measure", stage, "--repeats", "1", "--strip"]) == 0
    text = capsys.readouterr().out
    assert "over its stripes" in text
    (line,) = re.findall(r"^parameters +(.*)$", text, re.MULTILINE)
    whole, left = (int(number.replace(",", "")) for number in line.split())
    assert left < 0.4 * whole
    path = tmp_path / "run" / finished.stages[-1]
    dense, stripped = (measure(path, 1, form=form) for form in ("as it is", "over its stripes"))
    assert stripped.parameters == left
    assert stripped.calls[1].flops < dense.calls[1].flops
    dense = str(tmp_path / "run/seed_0/dense")
    assert main(["measure", dense, "--repeats", "1", "--strip"]) == 2
    assert "no stripe of it is cut" in capsys.readouterr().err
