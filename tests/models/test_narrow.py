"""Linen networks of other widths: what a shrunk network is as a module, and in JSON."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import fairgrape_jax as fg
from fairgrape_jax import models
from fairgrape_jax.errors import UsageError
from fairgrape_jax.models import mobilenet
from fairgrape_jax.models.narrow import layer_widths, narrow
from fairgrape_jax.models.resnet import BasicBlock, Bottleneck, ResNet
from fairgrape_jax.structures import zero


def drawn(module, x):
    """Variables without zeros: biases and statistics too."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)
    rng = np.random.default_rng(0)
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: (
            rng.uniform(0.5, 1.5, leaf.shape)
            if path[-1].key in ("var", "scale")
            else rng.normal(0, 1 / np.sqrt(max(leaf.size // leaf.shape[-1], 1)), leaf.shape)
        ).astype(np.float32),
        shapes,
    )


# Of the table, and blocks of every kind of networks that are long to compile.
MODULES = {name: models.create(name, 3) for name in ("mlp", "cnn", "mobilenet_v2")} | {
    "resnet18": ResNet(BasicBlock, (1, 1), 3),
    "resnet50": ResNet(Bottleneck, (2, 1), 3),
}


def shrunk(module, keep):
    """The small network; keep: (group, rng) to a mask."""
    x = np.random.default_rng(1).normal(size=(2, 32, 32, 3)).astype(np.float32)
    variables = drawn(module, x)
    structures = fg.find_structures(module.apply, variables, x)
    rng = np.random.default_rng(2)
    masks = {group.name: keep(group, rng) for group in structures.groups}
    return x, variables, structures, fg.shrink(structures, variables, masks)


def half(group, rng):
    return rng.permutation(group.size) < max(group.size // 2, 1)


def four(group, rng):
    """So that stages without a shortcut have equal channels, as those with one do."""
    return rng.permutation(group.size) < 4


@pytest.mark.whole(but=2)
@pytest.mark.parametrize(
    ("name", "keep"),
    [("mlp", half), ("cnn", half), ("resnet18", half), ("resnet50", four), ("mobilenet_v2", four)],
)
def test_the_narrow_module_gives_what_the_masked_network_gives(name, keep):
    module = MODULES[name]
    x, variables, structures, small = shrunk(module, keep)
    widths = json.loads(json.dumps(layer_widths(small.params)))
    module_of_less = narrow(module, widths)
    masked = zero(structures, variables, small.masks)
    expected = jax.jit(module.apply)(masked, x)
    scale = float(jnp.abs(expected).max())
    for logits in (
        jax.jit(module_of_less.apply)(small.params, x),
        small.apply(small.params, x),
    ):
        assert float(jnp.abs(logits - expected).max()) <= 1e-5 * scale
    fresh = jax.eval_shape(module_of_less.init, jax.random.key(0), x)
    assert jax.tree.map(jnp.shape, dict(fresh)) == jax.tree.map(jnp.shape, small.params)
    assert hash(module_of_less) == hash(narrow(module, widths))


def test_retraining_goes_on_in_the_small_module(monkeypatch):
    """A step of its own optimizer, batch statistics and dropout among it."""
    monkeypatch.setattr(mobilenet, "STAGES", mobilenet.STAGES[:2])
    x, _, _, small = shrunk(MODULES["mobilenet_v2"], four)
    module = narrow(MODULES["mobilenet_v2"], layer_widths(small.params))

    @jax.jit
    def step(variables, x):
        def loss(params):
            logits, changed = module.apply(
                {**variables, "params": params},
                x,
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": jax.random.key(0)},
            )
            return (logits**2).mean(), changed

        (value, changed), gradient = jax.value_and_grad(loss, has_aux=True)(variables["params"])
        params = jax.tree.map(lambda w, g: w - 0.01 * g, variables["params"], gradient)
        return value, {"params": params, **changed}

    first, variables = step(small.params, x)
    second, _ = step(variables, x)
    assert float(second) < float(first)
    assert jax.tree.map(jnp.shape, dict(variables)) == jax.tree.map(jnp.shape, small.params)


def test_a_network_of_ones_own_and_one_within_another():
    class Inner(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Conv(8, (3, 3), feature_group_count=4, name="groups")(x)
            return nn.Dense(6, name="fc")(x.mean((1, 2)))

    class Outer(nn.Module):
        @nn.compact
        def __call__(self, x):
            inner = narrow(Inner(), {"groups": 4, "fc": 2})
            return nn.Dense(3, name="head")(inner.copy(name="inner")(x))

    x = jnp.zeros((1, 4, 4, 8))
    variables = narrow(Inner(), {"groups": 4}).init(jax.random.key(0), x)
    shapes = jax.tree.map(jnp.shape, variables["params"])
    assert shapes["groups"] == {"kernel": (3, 3, 4, 4), "bias": (4,)}
    assert shapes["fc"]["kernel"] == (4, 6)
    variables = Outer().init(jax.random.key(0), x)
    assert variables["params"]["inner"]["fc"]["kernel"].shape == (4, 2)
    assert variables["params"]["head"]["kernel"].shape == (2, 3)


@pytest.mark.parametrize("width", [0, -1, 1.5, True, "8"])
def test_widths_that_are_none(width):
    with pytest.raises(UsageError, match=r"width of layer fc1: .* no whole number of 1 or more"):
        narrow(models.create("mlp", 2), {"fc1": width})
    with pytest.raises(UsageError, match=r"is one of flax.linen"):
        narrow(lambda x: x, {})
