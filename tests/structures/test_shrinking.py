"""Smaller networks: what they give is what the masked ones give, and so is their gradient."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fairgrape_jax import models
from fairgrape_jax.masks import apply_masks
from fairgrape_jax.models import mobilenet
from fairgrape_jax.models.resnet import BasicBlock, ResNet
from fairgrape_jax.structures import find_structures, remove, shrink, zero, zero_masks
from tests.helpers.small_networks import NETWORKS

FOLLOWED = [name for name in NETWORKS if NETWORKS[name]().groups]


def some(structures, seed, share=0.5):
    """Masks that keep about so much of every group, but neither all nor nothing."""
    rng = np.random.default_rng(seed)
    masks = {}
    for group in structures.groups:
        masks[group.name] = rng.random(group.size) < share
        kept, gone = rng.permutation(group.size)[:2]
        masks[group.name][[kept, gone]] = [True, False]
    return masks


def close(small, large):
    small, large = np.asarray(small), np.asarray(large)
    assert small.shape == large.shape
    assert np.abs(small - large).max() <= 1e-5 * max(np.abs(large).max(), 1e-3)


class Case:
    """A network, its structures, and its jitted gradient with its outputs."""

    def __init__(self, name):
        self.network = NETWORKS[name]()
        self.structures = find_structures(self.network.apply, self.network.params, self.network.x)
        self.gradient = jax.jit(jax.grad(self.loss, has_aux=True))

    def loss(self, params, x):
        outputs = self.network.apply(params, x)
        return (outputs**2).sum() + sum((w**2).sum() for w in params.values()), outputs


case_of = cache(Case)


@pytest.mark.whole(but=10)
@pytest.mark.parametrize("name", FOLLOWED)
@pytest.mark.parametrize(("seed", "share"), [(0, 0.5), (1, 0.0)])
def test_the_small_network_gives_what_the_masked_one_gives(name, seed, share):
    case = case_of(name)
    network, structures = case.network, case.structures
    masks = some(structures, seed, share)
    masked = zero(structures, network.params, masks)
    small = shrink(structures, network.params, masks)
    large, little = (sum(w.size for w in jax.tree.leaves(p)) for p in (masked, small.params))
    assert little < large
    gradient, expected = case.gradient(masked, network.x)
    close(small.apply(small.params, network.x), expected)
    if network.reads_shapes:
        close(jax.jit(network.apply)(small.params, network.x), expected)
    shrunk = jax.jit(jax.grad(small.function(case.loss), has_aux=True))
    found, outputs = shrunk(small.params, network.x)
    close(outputs, expected)
    whole = remove(structures, gradient, masks)
    for key in whole:
        close(found[key], whole[key])


@pytest.mark.parametrize("name", FOLLOWED)
def test_biases_of_pruned_channels_change_nothing(name):
    """A run masks kernels alone, and its outputs are those of the small network all the same."""
    case = case_of(name)
    network, structures = case.network, case.structures
    params = {k: w if w.ndim > 1 else w + 1 for k, w in network.params.items()}
    masks = some(structures, 2)
    kernels = jax.tree.map(lambda w: np.ones(w.shape, bool) if w.ndim > 1 else None, params)
    pruned = apply_masks(zero_masks(structures, kernels, masks), params)
    small = shrink(structures, params, masks)
    close(small.apply(small.params, network.x), case.gradient(pruned, network.x)[1])


@pytest.mark.parametrize("name", FOLLOWED)
def test_masks_of_weights_are_false_where_the_masked_network_is_zero(name):
    network, structures = case_of(name).network, case_of(name).structures
    masks = some(structures, 2)
    weights = {k: None if w.ndim < 2 else np.ones(w.shape, bool) for k, w in network.params.items()}
    chosen = zero_masks(structures, weights, masks)
    ones = {key: np.ones_like(w) for key, w in network.params.items()}
    masked = zero(structures, ones, masks)
    for key, mask in chosen.items():
        assert (mask is None) == (network.params[key].ndim < 2)
        if mask is not None:
            np.testing.assert_array_equal(mask, masked[key] != 0)


def test_another_batch_size_and_nothing_pruned():
    network = NETWORKS["residual"]()
    structures = find_structures(network.apply, network.params, network.x)
    small = shrink(structures, network.params, some(structures, 0))
    more = np.concatenate([network.x] * 3)
    close(small.apply(small.params, more)[:2], small.apply(small.params, network.x))
    same = shrink(structures, network.params, structures.full_masks())
    close(same.apply(same.params, network.x), network.apply(network.params, network.x))


@pytest.mark.whole(but=1)
@pytest.mark.parametrize("name", ["cnn", "resnet", "mobilenet_v2"])
def test_training_mode_of_a_linen_network(name, monkeypatch):
    """Batch statistics and dropout: the new statistics are small too.

    Of blocks of every kind; a whole network has more of them, as models/test_narrow.py.
    """
    monkeypatch.setattr(mobilenet, "STAGES", mobilenet.STAGES[:2])
    module = ResNet(BasicBlock, (1, 1), 3) if name == "resnet" else models.create(name, 3)
    x = np.random.default_rng(0).normal(size=(4, 32, 32, 3)).astype(np.float32)
    variables = jax.tree.map(np.asarray, jax.jit(module.init)(jax.random.key(0), x))
    structures = find_structures(module.apply, variables, x)
    masks = some(structures, 0)
    small = shrink(structures, variables, masks)

    def train(variables, x, key):
        return module.apply(
            variables, x, train=True, mutable=["batch_stats"], rngs={"dropout": key}
        )

    def statistics(variables, x):
        return train(variables, x, jax.random.key(0))[1]

    masked = zero(structures, variables, masks)
    logits, new = jax.jit(small.function(train))(small.params, x, jax.random.key(1))
    assert logits.shape == (4, 3)
    expected = {"params": variables["params"], **jax.jit(statistics)(masked, x)}
    if name == "cnn":
        assert new == {}
        return
    kept = remove(structures, expected, masks)["batch_stats"]
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(new["batch_stats"]), jax.tree.leaves(kept), strict=True
    ):
        assert a.shape == b.shape
        scale = max(float(np.abs(b).max()), 1e-3)
        assert np.abs(a - b).max() <= 1e-4 * scale, path


# -- what is refused -------------------------------------------------------------------------------
def case():
    network = NETWORKS["mlp"]()
    return network, find_structures(network.apply, network.params, network.x)


@pytest.mark.parametrize(
    ("masks", "words"),
    [
        ({}, "masks: are of nothing; the groups of structures are a, b"),
        ({"a": np.ones(6, bool)}, "masks: are of a; the groups"),
        ({"a": np.ones(6), "b": np.ones(4, bool)}, "masks of group a: float64"),
        ({"a": np.ones(5, bool), "b": np.ones(4, bool)}, r"masks of group a: bool \(5,\)"),
        ({"a": np.zeros(6, bool), "b": np.ones(4, bool)}, "masks of group a: keep no structure"),
    ],
)
def test_masks_that_do_not_fit(masks, words):
    network, structures = case()
    with pytest.raises(ValueError, match=words):
        shrink(structures, network.params, masks)


def test_params_that_do_not_fit():
    network, structures = case()
    masks = structures.full_masks()
    with pytest.raises(ValueError, match=r"params: b is \(5, 4\), of the network \(6, 4\)"):
        shrink(structures, network.params | {"b": np.ones((5, 4))}, masks)
    with pytest.raises(ValueError, match="params: e differs"):
        shrink(structures, network.params | {"e": np.ones(1)}, masks)
    small = shrink(structures, network.params, masks | {"a": np.arange(6) < 2})
    with pytest.raises(ValueError, match=r"params: a is \(3, 6\); with these masks .* 2 places"):
        small.apply(network.params, network.x)


def test_a_function_that_cannot_be_run_on_fewer_channels():
    network, structures = case()
    masks = structures.full_masks() | {"a": np.arange(6) < 2}
    small = shrink(structures, network.params, masks)
    for function, words in (
        (lambda p: jnp.fft.fft(p["a"]), "because of fft, which cannot be followed"),
        (lambda p: p["a"][:, 0] + p["b"][:3, 0], "which it joins with others"),
        (lambda p: p["a"][:, :3] + p["a"][:, 3:], "which it joins with others"),
    ):
        with pytest.raises(ValueError, match=words):
            small.function(function)(small.params)
