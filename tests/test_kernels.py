"""What of a tree of parameters is a kernel, in whatever library made it."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fairgrape_jax.kernels import full_masks, is_kernel


class WithOthers(eqx.Module):
    table: eqx.nn.Embedding
    layers: list
    scales: eqx.nn.LayerNorm

    def __init__(self):
        key = jax.random.key(0)
        self.table = eqx.nn.Embedding(5, 3, key=key)
        self.layers = [eqx.nn.Linear(3, 4, key=key), eqx.nn.Conv2d(1, 2, 3, key=key)]
        self.scales = eqx.filter_vmap(lambda _: eqx.nn.LayerNorm(3))(jnp.arange(2))


class OthersOfNnx(nnx.Module):
    def __init__(self, rngs):
        self.layers = nnx.List([nnx.Linear(3, 4, rngs=rngs), nnx.Conv(1, 2, (3, 3), rngs=rngs)])
        self.table, self.scales = nnx.Embed(5, 3, rngs=rngs), nnx.BatchNorm(3, rngs=rngs)
        self.noise = nnx.Dropout(0.5, rngs=rngs)


F32 = np.float32
KINDS = {
    "equinox": (WithOthers, [(4, 3), (2, 1, 3, 3)]),
    "nnx state": (lambda: nnx.state(OthersOfNnx(nnx.Rngs(0))), [(3, 4), (3, 3, 1, 2)]),
    "nnx module": (lambda: OthersOfNnx(nnx.Rngs(0)), [(3, 4), (3, 3, 1, 2)]),
    "shapes": (lambda: {"w": jax.ShapeDtypeStruct((2, 3), jnp.bfloat16)}, [(2, 3)]),
    "stacked": (lambda: {"w": np.ones((2, 3, 4), F32), "b": np.ones((2, 4), F32)}, [(2, 3, 4)]),
    "integers": (lambda: [{"kernel": np.ones((2, 2), int)}, {"w": np.ones((2, 3))}], [(2, 3)]),
    "patches": (lambda: {"embedding": {"kernel": np.ones((3, 3, 1, 4))}}, [(3, 3, 1, 4)]),
    "norm": (lambda: {"norm1": {"weight": np.ones((2, 4))}, "w": np.ones((1, 2))}, [(1, 2)]),
    "other leaves": (lambda: {"w": np.ones((2, 2)), "f": jnp.tanh, "n": 3, "no": None}, [(2, 2)]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_kernels_alone_are_prunable(kind):
    make, shapes = KINDS[kind]
    params = make()
    found = full_masks(params)
    assert [mask.shape for mask in jax.tree.leaves(found)] == shapes
    assert all(mask.all() and mask.dtype == bool for mask in jax.tree.leaves(found))


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"bias": np.ones(3)},
        {"Embed_0": {"embedding": np.ones((5, 3))}},
        {"tok_embed": {"weight": np.ones((5, 3))}},
        [np.ones((3, 2)), np.ones(2)],
    ],
    ids=str,
)
def test_nothing_prunable_is_an_error_that_shows_the_leaves(params):
    with pytest.raises(ValueError, match="no leaf is prunable") as error:
        full_masks(params)
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        assert f"{jax.tree_util.keystr(path)} {leaf.dtype}{list(leaf.shape)}" in str(error.value)
    if params:
        full_masks(params, prunable=lambda path, leaf: True)


def test_kernels_of_two_dimensions_are_prunable_and_nothing_else_is():
    params = {
        "kernel": np.ones((2, 3)),
        "conv": {"kernel": np.ones((3, 3, 1, 2)), "bias": np.ones(2)},
        "line": {"kernel": np.ones(4)},
        "table": {"embedding": np.ones((5, 2))},
    }
    found = full_masks(params)
    there = jax.tree.map(lambda leaf: leaf is not None, found, is_leaf=lambda leaf: leaf is None)
    assert there == {
        "kernel": True,
        "conv": {"kernel": True, "bias": False},
        "line": {"kernel": False},
        "table": {"embedding": False},
    }
    assert all(leaf.all() and leaf.dtype == bool for leaf in jax.tree.leaves(found))


def path(*names):
    return tuple(
        jax.tree_util.SequenceKey(name) if isinstance(name, int) else jax.tree_util.DictKey(name)
        for name in names
    )


@pytest.mark.parametrize(
    "module", ["conv", "head", "blocks/attn", "number", "bnd", "lnk", "planet"]
)
def test_a_matrix_of_a_kernels_name_is_one(module):
    for name in ("kernel", "weight", "w"):
        for shape in ((2, 3), (3, 3, 1, 2)):
            for dtype in (jnp.float32, jnp.bfloat16, np.float64, np.float16):
                assert is_kernel(path(module, name), jax.ShapeDtypeStruct(shape, dtype))
            for dtype in (np.int32, bool, np.complex64):
                assert not is_kernel(path(module, name), jax.ShapeDtypeStruct(shape, dtype))
        for shape in ((), (3,)):
            assert not is_kernel(path(module, name), np.ones(shape))
    for name in ("bias", "scale", "embedding", "kernels", "W", "value", ""):
        assert not is_kernel(path(module, name), np.ones((2, 3)))


TABLES = ("embed", "Embed_0", "tok_emb", "emb", "emb_in", "embedding")
SCALES = ("layer_norm", "Norm1", "bn", "BN1", "ln12", "stem_bn", "attn_ln2")


@pytest.mark.parametrize("module", TABLES + SCALES)
def test_tables_and_scales_are_none_but_where_they_have_the_form_of_a_kernel(module):
    for name in ("weight", "w"):
        assert not is_kernel(path(module, name), np.ones((2, 3)))
        assert is_kernel(path(module, name), np.ones((2, 3, 4)))
        assert is_kernel(path(module, "proj", name), np.ones((2, 3)))  # the last module decides
        for outer in (path(module, 0, name), path("a", module, 1, "2", name)):
            assert not is_kernel(outer, np.ones((2, 3)))  # numbers are no modules
    assert is_kernel(path(module, "kernel"), np.ones((2, 3)))


def test_names_without_modules_and_leaves_without_shape():
    assert is_kernel(path("w"), np.ones((2, 3)))
    assert is_kernel(path("layer", "kernel", "value"), np.ones((2, 3)))  # NNX's variables
    assert not is_kernel(path("norm", "weight", "value"), np.ones((2, 3)))
    assert not is_kernel((), np.ones((2, 3)))
    assert not is_kernel(path(0), np.ones((2, 3)))
    assert is_kernel((jax.tree_util.GetAttrKey("weight"),), np.ones((2, 3)))
    for leaf in (3, None, "w", jnp.tanh):
        assert not is_kernel(path("w"), leaf)


class LayerNormLike(eqx.Module):
    weight: jax.Array


class Wrapped(eqx.Module):
    inner: LayerNormLike
    weight: jax.Array


def test_a_class_says_what_its_leaves_are_unless_a_rule_of_ones_own_does():
    params = {"a": [Wrapped(LayerNormLike(jnp.ones((2, 3))), jnp.ones((2, 3)))]}
    found = full_masks(params)["a"][0]
    assert found.inner.weight is None
    assert found.weight.shape == (2, 3)
    everything = full_masks(params, lambda path, leaf: True)["a"][0]
    assert everything.inner.weight.shape == (2, 3)
    seen = []
    full_masks(
        {"x": np.ones(3), "y": [1.0]},
        lambda path, leaf: seen.append((path, leaf)) or path[0].key == "x",
    )
    assert [jax.tree_util.keystr(path) for path, _ in seen] == ["['x']", "['y'][0]"]


@pytest.mark.parametrize(
    ("number", "more"), [(1, ""), (12, ""), (13, "; and 1 more"), (20, "; and 8 more")]
)
def test_an_error_shows_a_dozen_leaves(number, more):
    params = [np.ones(3, np.float32)] * (number - 1) + [7]
    with pytest.raises(ValueError, match="named kernel, weight, w; give prunable") as error:
        full_masks(params)
    shown = [f"[{i}] float32[3]" for i in range(number - 1)] + [f"[{number - 1}] int"]
    assert str(error.value).endswith("The leaves are: " + "; ".join(shown[:12]) + more)


def test_an_error_shows_that_there_is_nothing_or_one_leaf():
    with pytest.raises(ValueError, match="The leaves are: none"):
        full_masks({})
    with pytest.raises(ValueError, match=r"The leaves are: params float64\[2\]"):
        full_masks(np.ones(2))
