"""The fixed point's programs as XLA makes them with all its passes: bits, devices, memory."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from fairgrape_jax import masks, models
from fairgrape_jax.selection import select_greedy, select_threshold, select_tree
from fairgrape_jax.selection.network import solve_leaves
from tests.helpers.datasets import GOLDEN_FILES
from tests.helpers.layers import drawn, share_error, tree

GOLDEN = GOLDEN_FILES / "selection_official.npz"
SLOW_NONE = ["greedy", pytest.param("none", marks=pytest.mark.slow)]


def padded(importance, previous):
    """A golden layer among dead weights and groups of nothing: nine layers are of two shapes.

    One is walked as a whole, the other is not.
    """
    more = (3456 if len(previous) <= 4096 else 6912) - len(previous)
    rows = np.pad(importance, [(0, 14 - len(importance)), (0, more)])
    return rows, np.pad(previous, (0, more))


@pytest.mark.parametrize("case", range(9))
@pytest.mark.parametrize("finish", SLOW_NONE)
def test_the_golden_layers(case, finish):
    with np.load(GOLDEN) as golden:
        importance = golden[f"c{case}_importance"].astype(np.float32)
        n, density = len(importance), float(golden[f"c{case}_keep"])
        importance = importance.T  # kept as (n, G)
        previous = np.unpackbits(golden[f"c{case}_previous"], count=n).astype(bool)
    keep = int(n * (1 - (1 - density)))
    mask = np.asarray(select_threshold(*padded(importance, previous), keep, finish=finish))
    assert not mask[n:].any()
    mask = mask[:n]
    reference = select_greedy(importance, previous, keep)
    assert mask.sum() == keep
    assert (reference & ~mask).sum() <= max(
        2 * len(importance), (1e-4 if finish == "greedy" else 0.02) * keep
    )
    found, weight = share_error(importance, previous, mask)
    assert found <= share_error(importance, previous, reference)[0] + weight


@pytest.mark.parametrize(
    ("allocation", "finish", "count"),
    [
        pytest.param(allocation, finish, count, marks=[pytest.mark.slow] * (i > 0))
        for i, (allocation, finish, count) in enumerate(
            itertools.product(("uniform", "global"), ("greedy", "none"), (2, 4, 8))
        )
    ],
)
def test_identical_on_any_number_of_devices(allocation, finish, count):
    importance, mask = tree(seed=1)
    how = {"allocation": allocation, "finish": finish}
    reference = select_tree(importance, mask, 0.3, **how)
    devices = jax.local_devices()[:count]
    placed = jax.device_put(importance, devices[0])  # as the sums of a run are
    chosen = select_tree(placed, mask, 0.3, **how, devices=devices)
    jax.tree.map(np.testing.assert_array_equal, chosen, reference)


def test_one_device_has_the_program_of_none_and_two_add_up():
    importance, mask = tree()
    rows, alive = (tuple(jax.tree.leaves(each)) for each in (importance, mask))
    keep, layers = np.zeros(len(rows), np.int32), tuple(range(len(rows)))
    none, alone, two = (
        solve_leaves.trace(
            rows, alive, keep, segments=layers, finish="greedy", devices=tuple(some)
        ).jaxpr
        for some in ([], jax.local_devices()[:1], jax.local_devices()[:2])
    )
    assert str(alone) == str(none)
    assert "psum" not in str(alone)
    assert "psum" in str(two)
    chosen = two.jaxpr.outvars[0]  # whole on both, so that the host of either can read it
    (last,) = (eqn.primitive.name for eqn in two.eqns if chosen in eqn.outvars)
    assert last == "sharding_constraint"


@pytest.mark.parametrize("finish", SLOW_NONE)
def test_a_layer_cut_over_devices_is_never_gathered(finish):
    importance, previous, keep = drawn(n=60_000, groups=7)
    reference = select_threshold(importance, previous, keep, finish=finish)
    mesh, cut = Mesh(np.asarray(jax.local_devices()), ("data",)), PartitionSpec("data")
    select = jax.jit(
        jax.shard_map(
            partial(select_threshold, finish=finish, axis="data"),
            mesh=mesh,
            in_specs=(PartitionSpec(None, "data"), cut, PartitionSpec()),
            out_specs=cut,
            check_vma=False,
        )
    )
    np.testing.assert_array_equal(select(importance, previous, keep), reference)
    ties = np.round(importance / np.median(importance))
    alone = jax.jit(partial(select_threshold, finish=finish))(ties, previous, keep)
    np.testing.assert_array_equal(select(ties, previous, keep), alone)
    half = len(previous) // 2  # every weight twice, on different devices: the first comes first
    pairs, alive = np.tile(importance[:, :half], 2), np.tile(previous[:half], 2)
    for few in (keep, keep + 1):
        first, second = np.split(np.asarray(select(pairs, alive, few)), 2)
        assert first.sum() + second.sum() == few
        assert not (second & ~first).any()
        assert (first & ~second).any()
    compiled = select.lower(importance, previous, keep).compile().as_text()
    candidates = 8 * 4096 * len(importance)  # all that a walk may take, from every device
    for line in compiled.splitlines():
        if " all-gather(" in line or " all-to-all(" in line:
            shape = line.split("[")[1].split("]")[0]
            assert np.prod([int(size) for size in shape.split(",")]) <= candidates, line


@pytest.mark.whole
def test_memory_beside_the_importance_is_at_most_one_and_a_half_times_it():
    module = models.create("resnet34", 7)
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    alive = tuple(jax.tree.leaves(masks.full_masks(shapes["params"])))
    rows = tuple(jax.ShapeDtypeStruct((7, *leaf.shape), jnp.float32) for leaf in alive)
    layers = tuple(range(len(alive)))
    keep = np.zeros(len(alive), np.int32)
    compiled = solve_leaves.lower(
        rows, alive, keep, segments=layers, finish="greedy", devices=()
    ).compile()
    importance = sum(np.prod(leaf.shape) * 4 for leaf in rows)
    assert compiled.memory_analysis().temp_size_in_bytes <= 1.5 * importance
