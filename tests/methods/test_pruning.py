"""What all methods share, with plain arrays and a selector of one's own."""

import itertools
import math
import os
import threading

import jax
import numpy as np
import pytest

from fairgrape_jax import masks
from fairgrape_jax.errors import TrainingError
from fairgrape_jax.methods import Method, Problem
from fairgrape_jax.methods.pruning import (
    check_finite,
    choose_by_groups,
    counts,
    prune,
    prune_layers,
    with_minimum,
)
from fairgrape_jax.selection import allocate, select_first, select_top

SHAPES = {"a": (2, 5), "b": (30,), "c": (3, 4)}


def tree_of(make):
    return {name: {"bias": None, "kernel": make(shape)} for name, shape in SHAPES.items()}


def problem(seed=0, alive=0.8, **fields):
    rng = np.random.default_rng(seed)
    alive = tree_of(lambda shape: rng.random(shape) < alive)
    params = tree_of(lambda shape: rng.normal(size=shape))
    return Problem(params, alive, layers=("c", "b", "a"), **fields)


def leaves(tree):
    return {name: layer["kernel"].reshape(-1) for name, layer in tree.items()}


def by_score(seed=1):
    rng = np.random.default_rng(seed)
    scores = tree_of(lambda shape: rng.permutation(np.arange(np.prod(shape)) + 0.5).reshape(shape))
    return Method("plain", lambda problem: scores), scores


@pytest.mark.parametrize("minimum", [0, 1, 5])
@pytest.mark.parametrize("allocation", ["uniform", "erk", "lamp", "uniform+", {"b": 0.5}])
def test_every_layer_keeps_its_highest_scores(allocation, minimum):
    new = problem(allocation=allocation, minimum=minimum)
    method, scores = by_score()
    chosen = leaves(prune(method, new, 0.5))
    keep = counts(new, 0.5)
    options = {"minimum": minimum, "weights": new.params, "order": new.layers}
    assert keep == allocate(new.masks, 0.5, allocation, **options)
    for name, before in leaves(new.masks).items():
        expected = select_top(leaves(scores)[name], before, keep[name])
        np.testing.assert_array_equal(chosen[name], expected)


@pytest.mark.parametrize("minimum", [0, 1, 3, 6])
@pytest.mark.parametrize("density", [0.1, 0.4, 0.6])
def test_the_network_keeps_its_highest_scores_and_each_layer_its_least(density, minimum):
    new = problem(allocation="global", minimum=minimum)
    method, scores = by_score()
    chosen, before, ranks = (
        leaves(tree) for tree in (prune(method, new, density), new.masks, scores)
    )
    total = max(
        masks.kept(sum(x.size for x in before.values()), density),
        sum(min(minimum, int(x.sum())) for x in before.values()),
    )
    assert sum(x.sum() for x in chosen.values()) == total
    for name, its in chosen.items():
        assert its.sum() >= min(minimum, before[name].sum())
        assert not (its & ~before[name]).any()
        # Its own highest scores, by whatever number.
        np.testing.assert_array_equal(its, select_top(ranks[name], before[name], int(its.sum())))
    if not minimum:
        flat, alive = (np.concatenate(list(x.values())) for x in (ranks, before))
        expected = select_top(flat, alive, total)
        np.testing.assert_array_equal(np.concatenate(list(chosen.values())), expected)


def test_a_method_that_chooses_itself_is_asked_once_and_scores_only_fill_up():
    calls = []
    _, scores = by_score()
    nothing_of_c = tree_of(lambda shape: np.zeros(shape, bool))
    nothing_of_c["b"]["kernel"] = problem().masks["b"]["kernel"]

    def choose(problem, density):
        calls.append(density)
        return nothing_of_c

    def score(problem):
        calls.append("score")
        return scores

    method = Method("plain", score, choose=choose)
    assert prune(method, problem(), 0.4) is nothing_of_c
    assert prune(method, problem(minimum=2), 0.4) is nothing_of_c
    assert prune(method, problem(allocation="global"), 0.4) is nothing_of_c
    assert calls == [0.4] * 3
    filled = prune(method, problem(allocation="global", minimum=2), 0.4)
    assert calls[3:] == ["score", 0.4]
    assert [int(x.sum()) for x in leaves(filled).values()][::2] == [2, 2]


@pytest.mark.parametrize("density", [-0.1, 1.1, float("nan")])
def test_a_density_is_checked_before_anything_is_scored(density):
    method = Method("plain", lambda problem: pytest.fail("scored"))
    with pytest.raises(ValueError, match="not between 0 and 1"):
        prune(method, problem(), density)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", SHAPES)
def test_scores_that_are_not_finite_name_their_layer(name, bad):
    method, scores = by_score()
    fine = check_finite(jax.tree.map(jax.numpy.asarray, scores), problem().masks)
    assert all(type(leaf) is np.ndarray for leaf in jax.tree.leaves(fine))
    scores[name]["kernel"].flat[3] = bad
    with pytest.raises(TrainingError, match=f"scores of layer {name} are not finite"):
        prune(method, problem(), 0.5)
    with pytest.raises(ValueError, match=r"zip\(\)"):
        check_finite({"a": by_score()[1]["a"]}, problem().masks)


def test_a_choice_by_groups_gets_all_of_the_problem_and_its_details_are_kept():
    seen = {}

    def solve(importance, masks, density, **options):
        seen.update(options, importance=importance, masks=masks, density=density)
        return "chosen", {"a": {"gap": 1.0}}

    new = problem(
        importance=lambda over: f"of {over}", allocation="erk", minimum=3, devices=("one", "two")
    )
    assert choose_by_groups(new, 0.3, solve) == "chosen"
    assert new.details == {"a": {"gap": 1.0}}
    assert seen == {
        "importance": "of groups",
        "masks": new.masks,
        "density": 0.3,
        "allocation": "erk",
        "minimum": 3,
        "weights": new.params,
        "order": new.layers,
        "devices": ("one", "two"),
    }


@pytest.mark.parametrize("allocation", ["uniform", "global"])
def test_layers_are_chosen_the_largest_first_in_threads(allocation, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 1)  # one after the other
    new = problem(allocation=allocation, alive=1.0)
    rows = tree_of(lambda shape: np.arange(2 * np.prod(shape)).reshape(2, *shape))
    seen = []

    def select(scores, previous, keep):
        seen.append((scores.shape, previous.size, keep, threading.current_thread().name))
        return select_first(scores, previous, keep)

    chosen = leaves(prune_layers(new, rows, 0.5, select))
    sizes = [52] if allocation == "global" else [30, 12, 10]
    assert [(shape, size, keep) for shape, size, keep, _ in seen] == [
        ((2, n), n, n // 2) for n in sizes
    ]
    assert threading.main_thread().name not in {thread for *_, thread in seen}
    assert sum(int(mask.sum()) for mask in chosen.values()) == 26
    if allocation == "uniform":
        for mask in chosen.values():  # the first group's scores rise
            np.testing.assert_array_equal(mask, np.arange(mask.size) >= mask.size / 2)
    rows["c"]["kernel"] = np.ones((3, *SHAPES["c"]))
    with pytest.raises(ValueError, match="3 groups, of a 2"):
        prune_layers(new, rows, 0.5, select)


def with_minimum_plainly(alive, chosen, scores, minimum):
    """The same, a weight at a time: scores are all different."""
    flat = {name: its.copy() for name, its in leaves(chosen).items()}
    before, ranks = leaves(alive), leaves(scores)
    least = {name: min(minimum, int(x.sum())) for name, x in before.items()}
    added = 0
    for name, its in flat.items():
        while its.sum() < least[name]:
            free = np.flatnonzero(before[name] & ~its)
            its[free[np.argmax(ranks[name][free])]] = True
            added += 1
    for _ in range(added):
        spare = [
            (ranks[name][i], name, i)
            for name, its in flat.items()
            if its.sum() > least[name]
            for i in np.flatnonzero(its)
        ]
        if spare:
            _, name, i = min(spare)
            flat[name][i] = False
    return flat


@pytest.mark.parametrize("minimum", [1, 2, 4, 9])
@pytest.mark.parametrize("seed", range(8))
def test_a_least_number_of_every_layer_as_weight_by_weight(seed, minimum):
    new = problem(seed)
    rng = np.random.default_rng(seed)
    part = iter(rng.permutation([0.0, 0.1, 0.9]))
    chosen = tree_of(lambda shape: rng.random(shape) < next(part))
    chosen = jax.tree.map(np.logical_and, chosen, new.masks)
    ranks = iter(rng.permutation(52))
    scores = tree_of(
        lambda shape: np.array(list(itertools.islice(ranks, math.prod(shape)))).reshape(shape)
    )
    kept = {name: its.copy() for name, its in leaves(chosen).items()}
    found = leaves(with_minimum(new.masks, chosen, scores, minimum))
    for name, expected in with_minimum_plainly(new.masks, chosen, scores, minimum).items():
        np.testing.assert_array_equal(found[name], expected, name)
        np.testing.assert_array_equal(leaves(chosen)[name], kept[name])  # left as they were


@pytest.mark.parametrize("missing", ["chosen", "scores"])
def test_trees_of_other_layers_are_refused(missing):
    trees = {"chosen": problem().masks, "scores": by_score()[1]}
    trees[missing] = {name: trees[missing][name] for name in "ab"}
    with pytest.raises(ValueError, match=r"zip\(\)"):
        with_minimum(problem().masks, **trees, minimum=1)


def test_of_equal_scores_the_lower_place_comes_in_and_goes_out_first():
    mask = {"a": np.ones(4, bool), "b": np.ones(4, bool), "c": np.ones(4, bool)}
    chosen = {"a": np.zeros(4, bool), "b": np.ones(4, bool), "c": np.ones(4, bool)}
    ones = {name: np.ones(4, int) for name in mask}
    found = with_minimum(mask, chosen, ones, 1)
    assert [its.tolist() for its in found.values()] == [[1, 0, 0, 0], [0, 1, 1, 1], [1, 1, 1, 1]]
