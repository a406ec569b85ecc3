"""Choices of whole structures: within the budget, the largest, and the methods' own."""

import itertools

import numpy as np
import pytest

import fairgrape_jax as fg
from fairgrape_jax.methods import METHODS
from fairgrape_jax.methods.structure_choice import NEEDS, takes_structures
from fairgrape_jax.selection import select_greedy
from fairgrape_jax.structures import find_structures, sum_importance
from fairgrape_jax.structures.cost import Counter, kernel_norms
from tests.helpers.small_networks import NETWORKS

GROUPS = 3
USABLE = [n for n, row in METHODS.items() if not set(row.needs) - NEEDS and takes_structures(row)]


def case(name="residual"):
    network = NETWORKS[name]()
    structures = find_structures(network.apply, network.params, network.x)
    rng = np.random.default_rng(0)
    scores = {
        key: rng.exponential(size=(GROUPS, *w.shape)).astype(np.float32) if w.ndim > 1 else None
        for key, w in network.params.items()
    }
    return network, structures, scores


def choose(structures, network, budget, masks=None, **options):
    masks = structures.full_masks() if masks is None else masks
    return fg.prune_structures(structures, network.params, masks, budget, **options)


def options_of(method, scores):
    import jax

    return {
        "method": method,
        "scores": scores,
        "key": jax.random.key(0),
        "minority": (1,) if "minority" in method else (),
    }


@pytest.mark.parametrize(
    "name", ["residual", "depthwise", "flattened", "concatenation", "attention"]
)
def test_operations_are_counted_as_written_out(name):
    """By the shapes of the small parameters, the products of the network being known."""
    network, structures, _ = case(name)
    counter = Counter(structures)
    masks = {g.name: np.arange(g.size) < max(g.size // 2, 1) for g in structures.groups}
    small = fg.shrink(structures, network.params, masks)
    assert counter(masks).weights == sum(w.size for w in small.params.values() if w.ndim > 1)
    size = {key: w.size for key, w in small.params.items()}
    places = {  # how often a weight of each array is used
        "residual": dict.fromkeys(("stem", "up1", "down1", "up2", "down2"), 32) | {"head": 2},
        "depthwise": dict.fromkeys(("up", "deep", "down"), 32),
        "flattened": {"a": 32, "b": 2, "c": 2},
        "concatenation": {"a": 32, "b": 32, "c": 32, "d": 2},
        "attention": dict.fromkeys(("embed", "q", "k", "v", "o", "up", "down"), 10) | {"head": 2},
    }[name]
    expected = sum(times * size[key] for key, times in places.items())
    if name == "attention":  # queries with keys and weights with values: 1 of 3 heads of 2
        expected += 2 * (2 * 5 * 5 * 2)
    assert counter(masks).flops == 2 * expected


@pytest.mark.whole(but=7)
@pytest.mark.parametrize("method", USABLE)
@pytest.mark.parametrize("allocation", ["uniform", "global"])
def test_every_method_keeps_to_the_budget_and_nests(method, allocation):
    network, structures, scores = case()
    counter, masks = Counter(structures), structures.full_masks()
    dense = counter(masks)
    for budget in (0.7, 0.4):
        before = masks
        masks, info = choose(
            structures, network, budget, masks, allocation=allocation, **options_of(method, scores)
        )
        left = counter(masks)
        assert info["flops"] == left.flops / dense.flops <= budget
        assert info["weights"] == left.weights / dense.weights
        assert info["groups"] == {name: int(mask.sum()) for name, mask in masks.items()}
        assert all(mask.any() and not (mask & ~before[name]).any() for name, mask in masks.items())


@pytest.mark.parametrize("of", ["flops", "weights"])
@pytest.mark.parametrize("allocation", ["uniform", "global", "lamp", {"stem": 1.0}])
def test_the_choice_is_the_largest_within_the_budget(of, allocation):
    """One structure more, divided by the same allocation, is above it."""
    network, structures, scores = case()
    total = sum(group.size for group in structures.groups)
    counter = Counter(structures)
    dense = getattr(counter(structures.full_masks()), of)
    costs = {}
    for budget in np.linspace(0.45, 1, 12):
        masks, info = choose(
            structures, network, float(budget), of=of, scores=scores, allocation=allocation
        )
        costs[tuple(info["groups"].values())] = getattr(counter(masks), of) / dense
        assert costs[tuple(info["groups"].values())] <= budget
    by_number = sorted((sum(counts), cost) for counts, cost in costs.items())
    assert by_number[-1] == (total, 1.0)
    assert all(a[1] <= b[1] for a, b in itertools.pairwise(by_number))
    for (number, cost), (_, after) in itertools.pairwise(by_number):
        masks, info = choose(
            structures, network, after - 1e-9, of=of, scores=scores, allocation=allocation
        )
        assert sum(info["groups"].values()) >= number
        assert cost <= info[of] < after


def test_fairgrape_chooses_as_it_does_among_weights():
    network, structures, scores = case()
    masks, info = choose(structures, network, 0.5, scores=scores)
    sums = sum_importance(structures, scores)
    for name, mask in masks.items():
        expected = select_greedy(sums[name], np.ones(len(mask), bool), info["groups"][name])
        np.testing.assert_array_equal(mask, expected)
    again, _ = choose(structures, network, 0.5, scores=sums)  # of structures already
    assert all(np.array_equal(again[name], masks[name]) for name in masks)


def test_magnitude_keeps_the_largest_norms():
    network, structures, _ = case()
    masks, _ = choose(structures, network, 0.5, method="magnitude", allocation="global")
    norms = sum_importance(structures, kernel_norms(structures, network.params))
    kept = np.concatenate([norms[name][0][mask] for name, mask in masks.items()])
    gone = np.concatenate([norms[name][0][~mask] for name, mask in masks.items()])
    assert gone.size
    # All but the one that each group keeps in any case.
    assert gone.max() <= np.sort(kept)[len(masks) :].min()


@pytest.mark.parametrize("allocation", ["uniform", "global"])
def test_multiples(allocation):
    network, structures, scores = case("flattened")
    _, info = choose(structures, network, 0.9, scores=scores, multiple=4, allocation=allocation)
    assert set(info["groups"].values()) == {4}
    _, info = choose(structures, network, 1.0, scores=scores, multiple=8, allocation=allocation)
    assert info["groups"] == {"a": 5, "b": 6}  # groups of fewer keep what they have


def test_the_least_number_of_a_group():
    network, structures, scores = case()
    _, info = choose(structures, network, 0.6, scores=scores, minimum=3, allocation="global")
    assert min(info["groups"].values()) >= 3


def test_latency_is_measured():
    network, structures, _ = case("mlp")
    _, info = choose(structures, network, 1.0, of="latency", method="magnitude")
    assert len(info["latency"]) == 2
    assert min(info["latency"]) > 0


@pytest.mark.parametrize(
    ("budget", "options", "words"),
    [
        (1.5, {}, "density: 1.5 is not between"),
        (float("nan"), {}, "density: nan"),
        (0.5, {"of": "bytes"}, "of: 'bytes' is none of flops, weights, latency"),
        (0.5, {"method": "purne"}, "method: 'purne' is none of"),
        (0.5, {"method": "snip"}, "method: 'snip' does not score whole structures; choose from"),
        (0.5, {"method": "structured"}, "method: 'structured' does not score whole"),
        (0.5, {"method": "fairgrape"}, "method 'fairgrape' needs scores: give"),
        (0.5, {"method": "random"}, "method 'random' needs a key"),
        (0.5, {"minimum": 0}, "minimum: 0 is less than 1"),
        (0.5, {"multiple": 0}, "multiple: 0 is less than 1"),
        (0.5, {"multiple": 1.5}, "multiple: 1.5 is not a whole number"),
        (0.5, {"allocation": "even"}, "allocation: 'even' is none of"),
        (0.5, {"allocation": {"conv": 0.5}}, "allocation: 'conv' is no layer; choose from stem"),
        (0.01, {}, "budget: 0.01 of the flops cannot be kept to: .* leave 0.09412"),
        (0.5, {"allocation": {"stem": 1.0, "up2": 1.0}}, "budget: 0.5 .* cannot be kept to"),
    ],
)
def test_what_is_refused(budget, options, words):
    network, structures, _ = case()
    options = {"method": "magnitude"} | options
    with pytest.raises(ValueError, match=words):
        choose(structures, network, budget, **options)
