"""What every row of METHODS promises; a new method is covered by being in the table."""

import dataclasses
import functools

import chex
import jax
import numpy as np
import pytest

from fairgrape_jax import masks, models
from fairgrape_jax.data import batches
from fairgrape_jax.errors import TrainingError, UsageError
from fairgrape_jax.methods import METHODS, Problem, prune, snip
from fairgrape_jax.rounds import select
from fairgrape_jax.rounds.scored_network import make_scored_network
from fairgrape_jax.runner import preflight
from fairgrape_jax.scoring.statistics import GRADIENT, SQUARES
from fairgrape_jax.selection import ALLOCATIONS, shares
from fairgrape_jax.selection.allocation import allocate
from tests.helpers.datasets import GOLDEN_FILES
from tests.helpers.odd_network import Odd, alive_in, built, pruned, with_scoring

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
    return Problem(
        params,
        mask,
        lambda over: grouped if over == "groups" else together,
        key=jax.random.key(seed),
        minority=(1, 2),
        select="greedy",  # no program to compile; that the fixed point is the same is tested below
    )


# Rows whose scores need no more than weights, importance and a key.
PLAIN = [
    name
    for name in METHODS
    if name.startswith(("fair-", "fairgrape", "importance", "magnitude", "lottery", "random"))
    and "a run" not in METHODS[name].needs
]


# A method with counts of its own has one for every layer.
ALLOCATED = [
    (name, allocation)
    for name, method in METHODS.items()
    for allocation in ("uniform", "global")
    if allocation == "uniform" or not method.counts
]
ALLOCATED += [("magnitude", "lamp"), ("fairgrape", "erk")]


@pytest.fixture(autouse=True)
def _odd(monkeypatch):
    monkeypatch.setitem(models.MODELS, "odd", Odd)


@pytest.mark.whole(but=52)
@pytest.mark.parametrize("densities", [(0.3,), (0.7, 0.5, 0.4, 0.3, 0.2, 0.1)])
@pytest.mark.parametrize(("name", "allocation"), ALLOCATED)
def test_every_method_by_allocation_and_schedule(name, allocation, densities):
    """Exact counts, nesting, layers that go wrong; more rounds than a layer has weights."""
    alive = built(1)[1].masks
    for density in densities:
        chosen = pruned(name, density, allocation=allocation, alive=alive)
        if METHODS[name].nested:
            masks.check_nested(jax.device_get(chosen), jax.device_get(alive))
        if by_method := METHODS[name].counts:
            session, network = built(1)
            layers = session.steps.layers
            expected = by_method(Problem(None, network.masks, minimum=1, layers=layers), density)
        else:
            weights = built(1)[1].state.params
            expected = allocate(chosen, density, allocation, minimum=1, weights=weights)
        for layer, wanted in expected.items():
            found = alive_in(chosen)
            assert (sum(found.values()) if allocation == "global" else found[layer]) == wanted
        assert min(alive_in(chosen).values()) >= 1
        alive = chosen


@pytest.mark.whole(but=26)
@pytest.mark.parametrize(("name", "allocation"), ALLOCATED)
def test_same_key_same_masks_on_one_device_and_on_eight(name, allocation):
    one = pruned(name, 0.3, allocation=allocation)
    chex.assert_trees_all_equal(one, pruned(name, 0.3, allocation=allocation))
    eight = pruned(name, 0.3, devices=8, allocation=allocation)
    leaves = [jax.tree.leaves(jax.device_get(tree)) for tree in (one, eight)]
    differ = sum(int((a & ~b).sum()) for a, b in zip(*leaves, strict=True))
    assert differ <= max(2, 1e-5 * sum(leaf.size for leaf in leaves[0]))


def test_another_key_is_another_random_choice():
    chosen = [pruned("random", 0.3, seed=seed)["conv"]["kernel"] for seed in (0, 1)]
    assert np.any(np.asarray(chosen[0]) != np.asarray(chosen[1]))


def eager(over, statistic, extra=None, params=None):
    """The mean of a statistic by its definition: no jit, no devices, one micro-batch at a time."""
    session, network = built(1)
    dataset, state, alive = session.dataset, network.state, network.masks
    scored = make_scored_network(session.steps.module, dataset, "pure")(state.batch_stats)
    options = session.experiment.scoring
    plan = batches.group_batches(dataset.train, options.fraction, 8, 3, 0, over=over)
    sums = [0.0] * (3 if over == "groups" else 1)
    counts = [0.0] * len(sums)
    for number, (indices, valid, k) in enumerate(zip(*plan, strict=True)):
        samples = dataset.train.take(indices)
        batch = {"images": samples.images, "labels": samples.labels, "valid": valid}
        batch["number"] = number
        value = statistic(scored, params or state.params, alive, batch, extra)
        weight = 1 if statistic.per == "batch" else valid.sum()
        value = jax.tree.map(lambda v, w=weight: w * np.asarray(v, np.float64), value)
        sums[k] = jax.tree.map(np.add, sums[k], value) if counts[k] else value
        counts[k] += weight
    means = [jax.tree.map(lambda s, n=n: s / n, s) for s, n in zip(sums, counts, strict=True)]
    return jax.tree.map(lambda *rows: np.stack(rows).astype(np.float32), *means)


squares = functools.cache(lambda over: eager(over, SQUARES))  # which most methods look at


@pytest.mark.whole(but=12)
@pytest.mark.parametrize("name", METHODS)
def test_the_steps_of_a_run_score_as_the_definition_does(name):
    given = select.make_problem(*built(1), seed=0)
    plain = dataclasses.replace(
        given,
        importance=squares,
        average=lambda statistic, over="all", **how: eager(over, statistic, **how),
    )
    found, expected = (METHODS[name].score(each) for each in (given, plain))
    for a, b in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        assert np.linalg.norm(a - b) <= 2e-5 * np.linalg.norm(b)


def test_minority_methods_look_at_the_groups_that_are_named():
    session, network = built(1)
    dataset, state = session.dataset, network.state
    assert select.minority_groups(session.experiment, dataset) == tuple(
        k for k in range(3) if k != np.bincount(dataset.train.groups).argmax()
    )
    session = with_scoring(session, minority=(dataset.groups[1],))
    given = select.make_problem(session, network, seed=0)
    found = METHODS["snip-minority"].score(given)
    gradient = eager((1,), GRADIENT)
    own = np.abs(np.asarray(state.params["conv"]["kernel"]) * gradient["conv"]["kernel"][0])
    np.testing.assert_allclose(found["conv"]["kernel"], own, rtol=1e-4, atol=1e-9)
    for names, said in ((("nobody",), "is no group"), (dataset.groups, "leave one out")):
        with pytest.raises(UsageError, match=said):
            select.minority_groups(with_scoring(session, minority=names).experiment, dataset)


def test_a_layer_left_without_weights_stops_the_round_with_its_name():
    session, network = built(1)
    session = with_scoring(session, allocation="global")
    with pytest.raises(TrainingError, match="snip: layer dead is left without weights"):
        select.select(session, network, "snip", density=0.3, seed=0)


def test_scores_that_are_not_finite_are_refused():
    given = problem()
    given.params["conv"]["kernel"][0, 0, 0, 0] = np.nan
    with pytest.raises(TrainingError, match="scores of layer conv"):
        prune(METHODS["magnitude"], given, 0.5)


@pytest.mark.parametrize("density", [0.5, 0.1, 0.05])
@pytest.mark.parametrize("name", PLAIN)
def test_exact_count_in_every_layer_and_new_within_old(name, density):
    given = problem(alive=0.7)
    chosen = prune(METHODS[name], given, density)
    chex.assert_trees_all_equal_structs(chosen, given.masks)
    masks.check_nested(chosen, given.masks)
    for row in masks.sparsity_table(chosen):
        assert row["alive"] == masks.kept(row["weights"], density), row


@pytest.mark.parametrize("density", [0.5, 0.05])
@pytest.mark.parametrize("name", PLAIN)
def test_global_allocation_keeps_an_exact_count_of_the_network(name, density):
    given = dataclasses.replace(problem(alive=0.7), allocation="global")
    chosen = prune(METHODS[name], given, density)
    masks.check_nested(chosen, given.masks)
    table = masks.sparsity_table(chosen)
    weights, alive = (sum(row[key] for row in table) for key in ("weights", "alive"))
    assert alive == masks.kept(weights, density)
    if density == 0.5:  # and it is not the same choice as layer by layer
        assert any(row["alive"] != masks.kept(row["weights"], density) for row in table)


@pytest.mark.parametrize(
    "allocation", [*sorted(set(ALLOCATIONS) - {"global"}), {"conv": 1.0}], ids=str
)
@pytest.mark.parametrize("name", [*PLAIN, "structured"])
def test_every_method_keeps_the_counts_of_an_allocation(name, allocation):
    """Both are of the table of the methods and of the table of allocations."""
    layers = ("conv", "dense", "head")
    new = dataclasses.replace(problem(), allocation=allocation, minimum=2, layers=layers)
    for density in (0.6, 0.4):
        chosen = prune(METHODS[name], new, density)
        masks.check_nested(chosen, new.masks)
        options = {"minimum": 2, "weights": new.params, "order": new.layers}
        expected = allocate(new.masks, density, allocation, **options)
        if own := METHODS[name].counts:
            expected = own(new, density)
        table = {row["layer"]: row["alive"] for row in masks.sparsity_table(chosen)}
        assert table == expected
        new = dataclasses.replace(new, masks=chosen)


@pytest.mark.parametrize("keep", ["0.05", "0.01"])
@pytest.mark.parametrize(("allocation", "reference"), [("lamp", "lamp"), ("global", "glob")])
def test_magnitude_by_allocation_is_the_authors_masks(allocation, reference, keep):
    """The public code of LAMP (MIT), run: see tests/selection/test_allocation.py."""
    file = np.load(GOLDEN_FILES / "allocations.npz")
    params = {name: {"kernel": file[f"w.{name}"]} for name in file["layers"].tolist()}
    alive = masks.full_masks(params)
    size = sum(leaf.size for leaf in jax.tree.leaves(alive))
    density = int(file[f"{reference}.keep{keep}.counts"].sum()) / size
    chosen = prune(
        METHODS["magnitude"], Problem(params, alive, None, allocation=allocation), density
    )
    for name, mask in chosen.items():
        bits = np.unpackbits(file[f"{reference}.keep{keep}.mask.{name}"])[: mask["kernel"].size]
        np.testing.assert_array_equal(mask["kernel"].reshape(-1), bits)


@pytest.mark.parametrize("allocation", ["uniform", "global"])
def test_fairgrape_by_the_fixed_point_and_by_greedy_steps_is_the_same(allocation):
    greedy = dataclasses.replace(problem(6), allocation=allocation)
    given = dataclasses.replace(greedy, select="threshold")
    for density in (0.3, 0.1, 0.05):
        chosen = prune(METHODS["fairgrape"], given, density)
        chex.assert_trees_all_equal(chosen, prune(METHODS["fairgrape"], greedy, density))
    names = masks.layer_names(given.masks) if allocation == "uniform" else ["network"]
    assert list(given.details) == names
    assert all(found["converged"] for found in given.details.values())


def test_maxmin_tells_how_good_its_choice_is():
    given = problem(7)
    prune(METHODS["fairgrape-maxmin"], given, 0.3)
    assert list(given.details) == masks.layer_names(given.masks)
    for found in given.details.values():
        assert 0 < found["achieved"] <= found["bound"]
        assert found["gap"] == pytest.approx(found["bound"] - found["achieved"])


@pytest.mark.parametrize("name", PLAIN)
def test_same_input_same_masks_and_the_input_is_left_alone(name):
    given, twin = problem(1), problem(1)
    chex.assert_trees_all_equal(prune(METHODS[name], given, 0.3), prune(METHODS[name], twin, 0.3))
    chex.assert_trees_all_equal(given.masks, twin.masks)
    chex.assert_trees_all_equal(given.params, twin.params)


@pytest.mark.parametrize("name", PLAIN)
def test_keeping_everything_changes_nothing(name):
    given = problem(2)
    chex.assert_trees_all_equal(prune(METHODS[name], given, 1.0), given.masks)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_line_for_the_user(name):
    assert METHODS[name].summary


def test_magnitude_keeps_the_largest_weights():
    given = problem(3)
    chosen = prune(METHODS["magnitude"], given, 0.25)
    for layer, weights in given.params.items():
        kept = chosen[layer]["kernel"]
        size = np.abs(weights["kernel"])
        assert size[kept].min() > size[~kept].max()


def test_structured_keeps_whole_filters_of_largest_norm_and_all_of_the_head():
    given = problem(8)
    chosen = prune(METHODS["structured"], given, 0.5)
    for layer, keep in (("conv", 2), ("dense", 3)):
        stays = chosen[layer]["kernel"].reshape(-1, chosen[layer]["kernel"].shape[-1])
        np.testing.assert_array_equal(stays.all(axis=0), stays.any(axis=0))
        norms = np.abs(given.params[layer]["kernel"]).reshape(stays.shape).sum(axis=0)
        expected = np.isin(np.arange(len(norms)), np.argsort(-norms)[:keep])
        np.testing.assert_array_equal(stays.all(axis=0), expected)
    assert chosen["head"]["kernel"].all()
    other = dataclasses.replace(given, layers=("head", "dense", "conv"))
    chosen = prune(METHODS["structured"], other, 0.5)
    assert chosen["conv"]["kernel"].all()
    assert not chosen["head"]["kernel"].all()


def test_structured_has_no_count_of_the_network():
    session, network = built(1)
    experiment = with_scoring(session, allocation="global").experiment
    experiment = dataclasses.replace(experiment, methods=("structured",))
    with pytest.raises(UsageError, match="structured: has a count for every layer"):
        preflight.check_layers(experiment, jax.device_get(network.masks), session.steps.layers)


def test_importance_keeps_the_largest_importance():
    given = problem(4)
    chosen = prune(METHODS["importance"], given, 0.25)
    for layer, leaf in given.importance("all").items():
        kept = chosen[layer]["kernel"]
        assert leaf["kernel"][0][kept].min() > leaf["kernel"][0][~kept].max()


def test_fairgrape_keeps_each_groups_share_in_every_layer():
    given = problem(5)
    chosen = prune(METHODS["fairgrape"], given, 0.25)
    for layer, leaf in given.importance("groups").items():
        scores = leaf["kernel"].reshape(GROUPS, -1)
        target = shares(scores, np.ones(scores.shape[1], bool))
        found = shares(scores, chosen[layer]["kernel"].reshape(-1))
        largest = scores.max(axis=1) / scores.sum(axis=1)  # what a single weight can weigh
        assert np.all(np.abs(found - target) <= 4 * largest), layer


def test_official_copies_are_drawn_anew_where_alive_and_the_weights_stay():
    given = select.make_problem(*built(1), seed=0)
    given = dataclasses.replace(given, masks=pruned("random", 0.3), official=True)
    for most in (4, 2):
        found = snip.xavier_copy(given, most)
        for layer in given.params:
            before = given.params[layer].get("kernel")
            if before is None:
                continue
            after, keep = found[layer]["kernel"], np.asarray(given.masks[layer]["kernel"])
            if before.ndim <= most:
                assert not np.any(np.asarray(after)[~keep])
                assert np.all(np.asarray(after)[keep] != np.asarray(before)[keep])
            else:
                np.testing.assert_array_equal(after, before)
