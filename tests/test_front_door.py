"""The names of `import fairgrape_jax as fg`, and one small problem through every library."""

import doctest
import importlib
import inspect
import itertools
import pkgutil
import re
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import fairgrape_jax as fg
from fairgrape_jax.methods import METHODS, library

NAMES = [name for name in fg.__all__ if not name.startswith("__")]
GROUPS = 3


def test_every_name_is_there_whatever_was_imported_before():
    """A folder or file of the package must not hide a function of its name."""
    for module in pkgutil.walk_packages(fg.__path__, "fairgrape_jax."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    assert not {module.name for module in pkgutil.iter_modules(fg.__path__)} & set(NAMES)
    for name in NAMES:
        assert callable(getattr(fg, name)), name
        assert not inspect.ismodule(getattr(fg, name))
        assert name in dir(fg)
    with pytest.raises(AttributeError, match="'purne'"):
        fg.purne  # noqa: B018


@pytest.mark.parametrize("name", [n for n in NAMES if inspect.isfunction(getattr(fg, n))])
def test_every_function_has_an_example(name):
    """A doctest of its file, or what takes a run on the page whose code is run."""
    function = getattr(fg, name)
    page = (Path(__file__).parents[1] / "docs" / "library.md").read_text()
    on_page = any(f"fg.{name}(" in code for code in re.findall(r"```python\n(.*?)```", page, re.S))
    assert doctest.DocTestFinder(recurse=False).find(function, name)[0].examples or on_page


def test_importing_the_package_is_light():
    heavy = [
        "jax",
        "flax",
        "tensorflow",
        "tensorflow_datasets",
        "matplotlib",
        "pyarrow",
        "orbax",
        "scipy",
        "numba",
    ]
    code = f"import sys, fairgrape_jax; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
    code = code.replace("; print", "; fairgrape_jax.prune; print").replace("'jax', 'flax',", "")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


# -- one problem through every library -------------------------------------------------------------
rng = np.random.default_rng(0)
SIZES = (6, 16, 3)
KERNELS = [rng.normal(size=s).astype(np.float32) for s in itertools.pairwise(SIZES)]
BIASES = [rng.normal(size=n).astype(np.float32) * 0.1 for n in SIZES[1:]]
DATA = [
    (
        (rng.normal(size=(32, 6)).astype(np.float32), rng.integers(0, 3, 32)),
        rng.integers(0, GROUPS, 32),
    )
    for _ in range(3)
]


def cross_entropy(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


class Linen(nn.Module):
    dtype: type = jnp.float32

    @nn.compact
    def __call__(self, x, train=False):
        first, second = (
            nn.Dense(n, dtype=self.dtype, name=name) for name, n in (("first", 16), ("second", 3))
        )
        return second(nn.tanh(first(x)))


class OfNnx(nnx.Module):
    def __init__(self, rngs):
        self.first, self.second = nnx.Linear(6, 16, rngs=rngs), nnx.Linear(16, 3, rngs=rngs)

    def __call__(self, x):
        return self.second(jnp.tanh(self.first(x)))


Layer = namedtuple("Layer", "w b")


def by_linen():
    params = {
        name: {"kernel": k, "bias": b}
        for name, k, b in zip(("first", "second"), KERNELS, BIASES, strict=True)
    }
    return params, lambda params, x: Linen().apply({"params": params}, x)


def by_nnx():
    definition, state = nnx.split(OfNnx(nnx.Rngs(0)))
    for name, kernel, bias in zip(("first", "second"), KERNELS, BIASES, strict=True):
        state[name]["kernel"].set_value(jnp.asarray(kernel))
        state[name]["bias"].set_value(jnp.asarray(bias))
    return state, lambda state, x: nnx.merge(definition, state)(x)


def by_equinox():
    model = eqx.nn.MLP(6, 3, 16, 1, activation=jnp.tanh, key=jax.random.key(0))
    model = eqx.tree_at(
        lambda m: [x for layer in m.layers for x in (layer.weight, layer.bias)],
        model,
        [x for k, b in zip(KERNELS, BIASES, strict=True) for x in (k.T, b)],
    )
    return model, lambda model, x: jax.vmap(model)(x)


def by_haiku():
    def forward(x):
        return hk.Linear(3, name="second")(jnp.tanh(hk.Linear(16, name="first")(x)))

    params = {
        name: {"w": k, "b": b}
        for name, k, b in zip(("first", "second"), KERNELS, BIASES, strict=True)
    }
    return params, lambda params, x: hk.without_apply_rng(hk.transform(forward)).apply(params, x)


def plain(layers, x):
    (first, b1), (second, b2) = layers
    return jnp.tanh(x @ first + b1) @ second + b2


def by_lists():
    layers = [{"kernel": k, "bias": b} for k, b in zip(KERNELS, BIASES, strict=True)]
    return layers, lambda p, x: plain([(q["kernel"], q["bias"]) for q in p], x)


def by_named_tuples():
    return tuple(Layer(k, b) for k, b in zip(KERNELS, BIASES, strict=True)), plain


LIBRARIES = {
    function.__name__.removeprefix("by_"): function
    for function in (by_linen, by_nnx, by_equinox, by_haiku, by_lists, by_named_tuples)
}


def kernels(name, tree):
    """The two kernels of a tree with None elsewhere, in one layout."""
    leaves = jax.tree.leaves(tree)
    return [np.swapaxes(leaf, -1, -2) for leaf in leaves] if name == "equinox" else leaves


ALLOCATIONS = ("uniform", "global", "lamp")


@pytest.fixture(scope="module")
def reference():
    """Importance of plain arrays, and the masks of each allocation."""

    def loss_fn(params, batch):
        return cross_entropy(plain(params, batch[0]), batch[1])

    params = by_named_tuples()[0]
    masks = fg.full_masks(params)
    scores = fg.average_importance(loss_fn, params, masks, DATA, num_groups=GROUPS)
    chosen = {a: fg.prune(params, masks, 0.3, scores=scores, allocation=a)[0] for a in ALLOCATIONS}
    return scores, chosen


@pytest.mark.whole(but=2)
@pytest.mark.parametrize("name", LIBRARIES)
def test_the_same_problem_has_the_same_masks_in_every_library(name, reference):
    params, apply = LIBRARIES[name]()

    def loss_fn(params, batch):
        return cross_entropy(apply(params, batch[0]), batch[1])

    masks = fg.full_masks(params)
    assert [m.shape for m in kernels(name, masks)] == [k.shape for k in KERNELS]
    scores = fg.average_importance(loss_fn, params, masks, DATA, num_groups=GROUPS)
    for found, expected in zip(kernels(name, scores), kernels("", reference[0]), strict=True):
        np.testing.assert_allclose(found, expected, rtol=2e-4, atol=1e-9)
    for allocation in ALLOCATIONS:
        chosen, info = fg.prune(params, masks, 0.3, scores=scores, allocation=allocation)
        expected = kernels("", reference[1][allocation])
        for one, other in zip(kernels(name, chosen), expected, strict=True):
            np.testing.assert_array_equal(one, other)
        assert sum(row["alive"] for row in info["layers"]) == sum(
            map(np.sum, kernels(name, chosen))
        )
    pruned = fg.apply_masks(chosen, params)
    assert jax.tree.structure(pruned) == jax.tree.structure(params)
    for weights, mask in zip(
        kernels(name, fg.apply_masks(chosen, masks)), kernels(name, chosen), strict=True
    ):
        np.testing.assert_array_equal(weights, mask)


@pytest.mark.parametrize("name", LIBRARIES)
def test_every_library_has_the_same_smaller_network(name):
    params, apply = LIBRARIES[name]()
    x = DATA[0][0][0]
    structures = fg.find_structures(apply, params, x)
    (group,) = structures.groups
    assert (group.size, len(group.members), len(structures.whole)) == (16, 3, 1)
    whole = structures.full_masks()
    masks, info = fg.prune_structures(structures, params, whole, 0.5, method="magnitude")
    assert info["groups"] == {group.name: 8}
    small = fg.shrink(structures, params, masks)
    assert sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(small.params, eqx.is_array))) == 83
    (first, second), (kept,) = KERNELS, masks.values()
    np.testing.assert_array_equal(
        np.sort(np.argsort(-np.abs(first).sum(0) - np.abs(second).sum(1))[:8]), np.flatnonzero(kept)
    )
    hidden = np.tanh(x @ first + BIASES[0]) * kept
    np.testing.assert_allclose(
        small.apply(small.params, x), hidden @ second + BIASES[1], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("name", LIBRARIES)
def test_every_library_has_the_same_network_in_int8(name):
    params, apply = LIBRARIES[name]()
    x = DATA[0][0][0]
    made = fg.quantize_int8(params, apply=apply, inputs=x)
    held = [weights for _, weights in sorted(made.params["int8"].items())]
    for weights, kernel in zip(held, KERNELS, strict=True):
        scale = np.abs(kernel).max(0) / np.float32(127)
        whole = np.rint(kernel / scale)
        np.testing.assert_array_equal(weights if weights.shape == whole.shape else weights.T, whole)
    exact = np.tanh(x @ KERNELS[0] + BIASES[0]) @ KERNELS[1] + BIASES[1]
    outputs = made.apply(made.params, x)
    assert np.abs(outputs - exact).max() < 0.03 * np.abs(exact).max()
    simulated = fg.simulate_int8(params, apply=apply, inputs=x)
    np.testing.assert_allclose(simulated(params, x), outputs, atol=1e-5)


# -- every method ---------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def problem():
    params, apply = by_linen()

    def loss_fn(params, batch):
        return cross_entropy(apply(params, batch[0]), batch[1])

    masks = fg.full_masks(params)
    scores = fg.average_importance(loss_fn, params, masks, DATA, num_groups=GROUPS)
    return (
        params,
        masks,
        {
            "scores": {"scores": scores},
            "a loss": {"loss_fn": lambda params: loss_fn(params, DATA[0][0])},
            "a module": {"module": Linen(), "shape": (6,)},
            "a key": {"key": jax.random.key(0)},
            "a minority": {"minority": (1, 2)},
        },
    )


@pytest.mark.parametrize("name", METHODS)
def test_every_method_prunes_with_what_it_needs_and_names_it_else(name, problem):
    params, masks, offers = problem
    needs = METHODS[name].needs
    for need in needs:
        rest = {k: v for n in needs if n != need for k, v in offers.get(n, {}).items()}
        with pytest.raises(ValueError, match=f"method '{name}' needs {need}: give"):
            fg.prune(params, masks, 0.4, method=name, **rest)
    if "a run" in needs:
        return
    options = {k: v for need in needs for k, v in offers[need].items()}
    chosen, info = fg.prune(params, masks, 0.4, method=name, order=("first", "second"), **options)
    assert set(library.ARGUMENTS) >= set(needs)
    expected = {"first": int(0.4 * 96), "second": int(0.4 * 48)}
    if METHODS[name].counts:  # whole filters, and all of the head
        expected = {"first": 6 * int(0.4 * 16), "second": 48}
    assert {row["layer"]: row["alive"] for row in info["layers"]} == expected
    again, _ = fg.prune(params, chosen, 0.2, method=name, order=("first", "second"), **options)
    for late, early in zip(jax.tree.leaves(again), jax.tree.leaves(chosen), strict=True):
        assert not (late & ~early).any()


def test_prune_names_what_is_wrong(problem):
    params, masks, offers = problem
    for message, options in {
        "method: 'fair' is none of fairgrape": {"method": "fair"},
        "density: 1.5": {"density": 1.5, **offers["scores"]},
        "allocation: 'even' is none of": {"allocation": "even", **offers["scores"]},
        "importance has 1 arrays": {"scores": {"first": np.ones((3, 6, 16))}},
        "masks: not of the structure": {"masks": {"first": masks["first"]}},
        "masks of layer first: float32": {"masks": jax.tree.map(lambda m: np.float32(m), masks)},
    }.items():
        arguments = {"masks": masks, "density": 0.5, **options}
        with pytest.raises(ValueError, match=message):
            fg.prune(params, **arguments)
    weights = {"layer": {"weight": np.ones((3, 2), np.float32)}}
    with pytest.raises(ValueError, match="last axis"):
        fg.prune(weights, fg.full_masks(weights), 0.5, method="structured")


# -- the whole loop -------------------------------------------------------------------------------
def test_a_loop_of_ones_own_prunes_and_trains():
    """Score, prune, set the masks, train on; one program for all rounds."""
    params, apply = by_lists()

    def loss_fn(params, batch):
        return cross_entropy(apply(params, batch[0]), batch[1])

    traces = []

    @jax.jit
    def step(params, state, batch):
        traces.append(1)
        gradients = jax.grad(lambda p: loss_fn(p, batch).mean())(params)
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    masks = fg.full_masks(params)
    optimizer = fg.masked(optax.adamw(1e-2), masks)
    params = jax.tree.map(jnp.asarray, params)
    state = optimizer.init(params)
    densities = fg.densities(sparsity=0.9, rounds=3)
    for density in densities:
        scores = fg.average_importance(loss_fn, params, masks, DATA, num_groups=GROUPS)
        masks, info = fg.prune(params, masks, density, scores=scores, minimum=2)
        assert info["density"] == pytest.approx(density, abs=2 / 144)
        state = fg.set_masks(state, masks)
        for batch, _ in DATA:
            params, state = step(params, state, batch)
        for weights, mask in zip(
            (p["kernel"] for p in params), jax.tree.leaves(masks), strict=True
        ):
            assert (np.asarray(weights)[~mask] == 0).all()
    assert len(traces) == 1
    labels = np.concatenate([batch[1] for batch, _ in DATA])
    groups = np.concatenate([groups for _, groups in DATA])
    predictions = np.concatenate([apply(params, batch[0]).argmax(-1) for batch, _ in DATA])
    result = fg.group_metrics(labels, predictions, groups, replicates=20)
    for k in range(GROUPS):
        accuracy = 100 * (labels == predictions)[groups == k].mean()
        assert result.by_group[k]["accuracy"].value == pytest.approx(accuracy)
