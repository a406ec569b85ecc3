"""ViT-S/16 and ConvNeXt-T: positions, small variants in training, structures, what they refuse."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import fairgrape_jax as fg
from fairgrape_jax import models
from fairgrape_jax.errors import UsageError
from fairgrape_jax.masks import apply_masks, full_masks, layer_names, select_prunable
from fairgrape_jax.models.convnext import ConvNeXt
from fairgrape_jax.models.narrow import layer_widths, narrow
from fairgrape_jax.models.timm_keys import vit_keys
from fairgrape_jax.models.vit import VisionTransformer, resize_positions
from fairgrape_jax.structures import zero_masks
from tests.helpers.golden_networks import golden_state, shapes_of, zeros_of

SMALL = {
    "vit": partial(VisionTransformer, 128, 1, patch=8, grid=4),
    "convnext": partial(ConvNeXt, (1, 1), (8, 16)),
}


@pytest.mark.parametrize("network", SMALL)
def test_training_is_like_evaluation_and_every_weight_counts(network):
    module = SMALL[network](num_classes=5)
    images = jax.random.normal(jax.random.key(1), (4, 32, 32, 1))
    variables = jax.jit(module.init)(jax.random.key(0), images)
    assert list(variables) == ["params"]

    def loss(params, train):
        logits = module.apply({"params": params}, images, train=train)
        return (logits**2).sum(), logits

    (_, logits), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True), static_argnums=1)(
        variables["params"], True
    )
    assert (logits.shape, logits.dtype) == ((4, 5), jnp.float32)
    assert_array_equal(logits, jax.jit(loss, static_argnums=1)(variables["params"], False)[1])
    assert all(leaf.any() for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize("network", SMALL)
def test_init_depends_on_nothing_but_the_seed(network):
    module = SMALL[network](num_classes=5)
    init = jax.jit(lambda key: module.init(key, jnp.zeros((1, 32, 32, 1))))
    first, again, other = (init(jax.random.key(seed, impl="rbg")) for seed in (0, 0, 1))
    jax.tree.map(assert_array_equal, first, again)
    kernels = (select_prunable(full_masks(first), tree) for tree in (first, other))
    assert not any(map(np.array_equal, *map(jax.tree.leaves, kernels)))


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("vit_s_16", {"patch_embed/proj", "blocks_0/attn/qkv", "blocks_11/mlp/fc2", "head"}),
        ("convnext_tiny", {"stem_0", "stages_0/blocks_0/conv_dw", "stages_3/downsample_1"}),
    ],
)
def test_kernels_are_prunable_and_nothing_else(name, layers):
    shapes = shapes_of(name)["params"]
    names = set(layer_names(full_masks(shapes)))
    assert names >= layers
    assert not any(word in name for name in names for word in ("norm", "pos_embed", "cls_token"))
    count = {"vit_s_16": 2 + 12 * 4, "convnext_tiny": 2 + 18 * 3 + 3}[name]
    assert len(names) == count
    parameters = {"vit_s_16": 21_668_359, "convnext_tiny": 27_825_511}  # timm's, of 7 classes
    assert sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)) == parameters[name]


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (14, 13), (14, 14), (24, 24)])
def test_positions_of_one_value_stay_and_a_line_stays_one(shape):
    """A ramp is a ramp in the middle; at the ends weights are cut off and made up for."""
    rows = np.arange(14.0).repeat(14).reshape(1, -1, 1)
    table = np.concatenate([np.full((1, 1, 1), 7.0), rows], axis=1).astype(np.float32)
    resized = np.asarray(resize_positions(jnp.asarray(table), shape))
    assert resized.shape == (1, 1 + shape[0] * shape[1], 1)
    assert resized[0, 0, 0] == 7
    grid = resized[0, 1:, 0].reshape(shape)
    assert_allclose(grid, np.broadcast_to(grid[:, :1], shape), atol=1e-4)
    assert_allclose(grid.mean(), 6.5, atol=1e-4)
    assert (np.diff(grid[:, 0]) > 0).all()


@pytest.mark.parametrize("side", [1, 4, 14, 16, 24])
def test_positions_of_a_checkpoint_for_other_pictures_are_interpolated(side):
    state = golden_state("vit_s_16")
    table = np.random.default_rng(0).normal(size=(1, 1 + side**2, 384)).astype(np.float32)
    loaded = models.from_torchvision("vit_s_16", state | {"pos_embed": table})
    expected = resize_positions(jnp.asarray(table), (14, 14))
    assert_array_equal(loaded["params"]["pos_embed"], expected)


@pytest.mark.parametrize(
    "shape", [(1, 196, 384), (1, 1, 384), (197, 384), (1, 17, 192), (2, 197, 384)]
)
def test_positions_that_are_none_are_named(shape):
    state = golden_state("vit_s_16") | {"pos_embed": np.ones(shape)}
    with pytest.raises(UsageError, match=r"'pos_embed' has the shape .*\(1, 197, 384\)"):
        models.from_torchvision("vit_s_16", state)


@pytest.mark.parametrize("name", ["vit_s_16", "convnext_tiny"])
def test_another_head_stays_fresh(name):
    fresh = zeros_of(name, 2)
    loaded = models.fit_pretrained(name, golden_state(name), fresh, "here")
    assert jax.tree.structure(loaded) == jax.tree.structure(fresh)
    head = loaded["params"]["head"].get("fc", loaded["params"]["head"])
    assert not any(leaf.any() for leaf in jax.tree.leaves(head))
    again = models.fit_pretrained(name, golden_state(name), zeros_of(name), "here")
    assert all(leaf.any() for leaf in jax.tree.leaves(again))


@pytest.mark.parametrize(("part", "shape"), [("query", None), ("value", (3,)), ("key", ())])
def test_parts_of_attention_that_do_not_fit_are_named(part, shape):
    prefix = "vit.encoder.layer.0.attention.attention"
    state = {f"{prefix}.{name}.bias": np.ones(4) for name in ("query", "key", "value")}
    state["vit.embeddings.patch_embeddings.projection.bias"] = np.ones(4)
    assert vit_keys(state)["blocks.0.attn.qkv.bias"].shape == (12,)
    if shape is None:
        del state[f"{prefix}.{part}.bias"]
    else:
        state[f"{prefix}.{part}.bias"] = np.ones(shape)
    with pytest.raises(UsageError, match=r"blocks\.0"):
        vit_keys(state)


@pytest.mark.parametrize("shape", [(31, 64), (64, 31), (28, 28), (1, 1)])
def test_pictures_too_small_for_a_convnext_are_one_line(shape):
    module = models.create("convnext_tiny", 3)
    with pytest.raises(UsageError, match=rf"these are {shape[0]} x {shape[1]}: give") as error:
        jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, *shape, 3)))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("network", "groups"),
    [
        ("vit", {"params/blocks_0/attn/qkv": 2, "params/blocks_0/mlp/fc1": 512}),
        ("convnext", {f"params/stages_{i}/blocks_0/mlp/fc1": 32 << i for i in (0, 1)}),
    ],
)
def test_heads_and_hidden_units_are_structures_and_the_small_network_gives_the_same(
    network, groups
):
    module = SMALL[network](num_classes=5)
    images = np.random.default_rng(1).normal(size=(2, 32, 32, 3)).astype(np.float32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), images)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(  # biases that are not 0, of pruned channels too
        lambda leaf: rng.normal(0.1, 0.2, leaf.shape).astype(np.float32), shapes
    )
    structures = fg.find_structures(module.apply, variables, images)
    assert {group.name: group.size for group in structures.groups} == groups
    assert "reduce_sum over channels" in structures.whole.values()
    keep = {name: np.arange(size) % 2 == 0 for name, size in groups.items()}
    masks = zero_masks(structures, full_masks(variables), keep)
    expected = jax.jit(module.apply)(apply_masks(masks, variables), images)
    small = fg.shrink(structures, variables, keep)
    narrowed = narrow(module, layer_widths(small.params))
    scale = float(jnp.abs(expected).max())
    for apply in (small.apply, jax.jit(narrowed.apply)):
        assert float(jnp.abs(apply(small.params, images) - expected).max()) <= 1e-5 * scale
    sizes = [sum(leaf.size for leaf in jax.tree.leaves(t)) for t in (small.params, variables)]
    assert sizes[0] < 0.8 * sizes[1]
