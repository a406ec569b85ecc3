"""What every row of METHODS promises; a new method is covered by being in the table."""

import dataclasses

import chex
import jax
import numpy as np
import pytest

from fairgrape_jax import masks
from fairgrape_jax.methods import METHODS, Problem
from fairgrape_jax.selection import shares

GROUPS = 3


def problem(seed=0, alive=1.0):
    """A network of three layers with lognormal importance, a part of it pruned."""
    rng = np.random.default_rng(seed)
    shapes = {"conv": (3, 3, 2, 4), "dense": (40, 7), "head": (7, 3)}
    params, mask, grouped = {}, {}, {}
    for name, shape in shapes.items():
        keep = rng.random(shape) < alive
        weights = np.where(keep, rng.normal(size=shape), 0).astype(np.float32)
        scores = rng.lognormal(0, 2, (GROUPS, *shape))
        params[name] = {"kernel": weights, "bias": np.zeros(shape[-1], np.float32)}
        mask[name] = {"kernel": keep, "bias": None}
        grouped[name] = {"kernel": (scores * keep).astype(np.float32), "bias": None}
    together = jax.tree.map(lambda leaf: leaf.sum(axis=0, keepdims=True), grouped)
    return Problem(params, mask, lambda by_group: grouped if by_group else together)


@pytest.mark.parametrize("density", [0.5, 0.1, 0.05])
@pytest.mark.parametrize("name", METHODS)
def test_exact_count_in_every_layer_and_new_within_old(name, density):
    given = problem(alive=0.7)
    chosen = METHODS[name].prune(given, density)
    chex.assert_trees_all_equal_structs(chosen, given.masks)
    masks.check_nested(chosen, given.masks)
    for row in masks.sparsity_table(chosen):
        assert row["alive"] == masks.kept(row["weights"], density), row


@pytest.mark.parametrize("density", [0.5, 0.05])
@pytest.mark.parametrize("name", METHODS)
def test_global_scope_keeps_an_exact_count_of_the_network(name, density):
    given = dataclasses.replace(problem(alive=0.7), scope="global")
    chosen = METHODS[name].prune(given, density)
    masks.check_nested(chosen, given.masks)
    table = masks.sparsity_table(chosen)
    weights, alive = (sum(row[key] for row in table) for key in ("weights", "alive"))
    assert alive == masks.kept(weights, density)
    if density == 0.5:  # and it is not the same choice as layer by layer
        assert any(row["alive"] != masks.kept(row["weights"], density) for row in table)


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_fairgrape_by_the_fixed_point_and_by_greedy_steps_is_the_same(scope):
    given = dataclasses.replace(problem(6), scope=scope)
    greedy = dataclasses.replace(given, select="greedy")
    chosen = METHODS["fairgrape"].prune(given, 0.3)
    chex.assert_trees_all_equal(chosen, METHODS["fairgrape"].prune(greedy, 0.3))
    names = masks.layer_names(given.masks) if scope == "layer" else ["network"]
    assert list(given.details) == names
    assert all(found["converged"] for found in given.details.values())


def test_maxmin_tells_how_good_its_choice_is():
    given = problem(7)
    METHODS["fairgrape-maxmin"].prune(given, 0.3)
    assert list(given.details) == masks.layer_names(given.masks)
    for found in given.details.values():
        assert 0 < found["achieved"] <= found["bound"]
        assert found["gap"] == pytest.approx(found["bound"] - found["achieved"])


@pytest.mark.parametrize("name", METHODS)
def test_same_input_same_masks_and_the_input_is_left_alone(name):
    given, twin = problem(1), problem(1)
    chex.assert_trees_all_equal(METHODS[name].prune(given, 0.3), METHODS[name].prune(twin, 0.3))
    chex.assert_trees_all_equal(given.masks, twin.masks)
    chex.assert_trees_all_equal(given.params, twin.params)


@pytest.mark.parametrize("name", METHODS)
def test_keeping_everything_changes_nothing(name):
    given = problem(2)
    chex.assert_trees_all_equal(METHODS[name].prune(given, 1.0), given.masks)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_line_for_the_user(name):
    assert METHODS[name].summary


def test_magnitude_keeps_the_largest_weights():
    given = problem(3)
    chosen = METHODS["magnitude"].prune(given, 0.25)
    for layer, weights in given.params.items():
        kept = chosen[layer]["kernel"]
        size = np.abs(weights["kernel"])
        assert size[kept].min() > size[~kept].max()


def test_taylor_keeps_the_largest_importance():
    given = problem(4)
    chosen = METHODS["taylor"].prune(given, 0.25)
    for layer, leaf in given.importance(False).items():
        kept = chosen[layer]["kernel"]
        assert leaf["kernel"][0][kept].min() > leaf["kernel"][0][~kept].max()


def test_fairgrape_keeps_each_groups_share_in_every_layer():
    given = problem(5)
    chosen = METHODS["fairgrape"].prune(given, 0.25)
    for layer, leaf in given.importance(True).items():
        scores = leaf["kernel"].reshape(GROUPS, -1).T
        target = shares(scores, np.ones(len(scores), bool))
        found = shares(scores, chosen[layer]["kernel"].reshape(-1))
        largest = scores.max(axis=0) / scores.sum(axis=0)  # what a single weight can weigh
        assert np.all(np.abs(found - target) <= 4 * largest), layer
