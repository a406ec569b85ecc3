"""Counts of layers: exact and within bounds for every allocation; the authors' codes for theirs.

golden/allocations.npz: weights, and the counts and masks that the public code of LAMP
(jaeho-lee/layer-adaptive-sparsity, MIT) gives for them, ERK densities of RigL's
(google-research/rigl, Apache-2.0); numbers made by running both.
"""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairgrape_jax.masks import kept
from fairgrape_jax.selection.allocation import ALLOCATIONS, allocate
from fairgrape_jax.selection.rules import Bounds, fill, lamp_scores
from tests.helpers.datasets import GOLDEN_FILES

NAMES = [name for name in ALLOCATIONS if name != "global"]
FILE = np.load(GOLDEN_FILES / "allocations.npz")
LAYERS = [str(name) for name in FILE["layers"]]
WEIGHTS = {name: {"kernel": FILE[f"w.{name}"]} for name in LAYERS}
ALIVE = {name: {"kernel": np.ones(FILE[f"w.{name}"].shape, bool)} for name in LAYERS}
SIZE = sum(mask["kernel"].size for mask in ALIVE.values())
KEPT = ("0.5", "0.2", "0.05", "0.01")


def reference(key):
    return dict(zip(LAYERS, FILE[f"{key}.counts"].tolist(), strict=True))


def counts(name, total, alive=ALIVE, weights=WEIGHTS):
    return allocate(alive, total / SIZE, name, weights=weights, order=LAYERS)


@pytest.mark.parametrize("keep", KEPT)
def test_lamp_is_the_authors(keep):
    expected = reference(f"lamp.keep{keep}")
    assert counts("lamp", sum(expected.values())) == expected


def test_lamp_of_a_second_round_looks_at_what_is_alive():
    weights = {n: {"kernel": FILE[f"lamp.iter1.w_after_training.{n}"]} for n in LAYERS}
    alive = {}
    for n in LAYERS:
        shape = FILE[f"w.{n}"].shape
        bits = np.unpackbits(FILE[f"lamp.iter1.mask.{n}"])[: math.prod(shape)]
        alive[n] = {"kernel": bits.astype(bool).reshape(shape)}
    first, second = reference("lamp.iter1"), reference("lamp.iter2")
    assert counts("lamp", sum(first.values())) == first
    assert counts("lamp", sum(second.values()), alive, weights) == second


@pytest.mark.parametrize("keep", KEPT[:3])
def test_uniform_plus_is_the_authors_but_for_their_rounding(keep):
    """They round every layer by itself, and miss the sum by one; 0.01 they refuse, as we do."""
    expected = reference(f"unifplus.keep{keep}")
    ours = counts("uniform+", sum(expected.values()))
    assert sum(ours.values()) == sum(expected.values())
    assert max(abs(ours[name] - expected[name]) for name in LAYERS) <= 1
    with pytest.raises(ValueError, match=r"uniform\+.*first layer dense \(216\)"):
        counts("uniform+", 60)


@pytest.mark.parametrize("net", [str(net) for net in FILE["nets"]])
def test_erk_is_rigls_but_for_its_rounding(net):
    """RigL rounds up in every layer, up to a weight each; the sum of ours is floor(n * density)."""
    shapes = [tuple(int(x) for x in shape if x) for shape in FILE[f"{net}.shapes"]]
    masks = {f"{i:03}": {"kernel": np.ones(shape, bool)} for i, shape in enumerate(shapes)}
    sizes = np.array([math.prod(shape) for shape in shapes])
    for density, sparsity, zeros in zip(
        FILE["densities"], FILE[f"{net}.erk.sparsity"], FILE[f"{net}.erk.zeros"], strict=True
    ):
        ours = np.array(list(allocate(masks, float(density), "erk").values()))
        assert ours.sum() == kept(int(sizes.sum()), float(density))
        dense = sparsity == 0
        np.testing.assert_array_equal(ours[dense], sizes[dense])
        # The sum of the roundings of all layers, spread over those that are not dense.
        off = np.abs(ours - sizes * (1 - sparsity))
        assert off.max() <= 2 + len(sizes) * (ours / ours[~dense].sum())[~dense].max()
        total = int((sizes - zeros).sum())
        same = np.array(list(allocate(masks, total / sizes.sum(), "erk").values()))
        assert np.abs(same - (sizes - zeros)).max() <= 2


def test_uniform_is_the_floor_of_every_layer():
    for keep in KEPT:
        density = float(keep)
        ours = allocate(ALIVE, density)
        assert ours == {n: kept(ALIVE[n]["kernel"].size, density) for n in LAYERS}
        off = [abs(ours[n] - c) for n, c in reference(f"unif.keep{keep}").items()]
        assert max(off) <= 1  # theirs are rounded to the nearest


@st.composite
def networks(draw):
    """Layers of one weight and more, some of them dead, and what is asked of them."""
    shapes = draw(st.lists(st.tuples(*[st.integers(1, 9)] * 3), min_size=1, max_size=7))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    part = draw(st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]))
    masks = {f"l{i}": {"kernel": rng.random(shape) < part} for i, shape in enumerate(shapes)}
    scale = draw(st.sampled_from([0.0, 1e-40, 1.0, 1e30]))
    weights = {
        name: {"kernel": (rng.normal(size=mask["kernel"].shape) * scale).astype(np.float32)}
        for name, mask in masks.items()
    }
    density = draw(st.sampled_from([0.0, 0.01, 0.1, 1 / 3, 0.5, 0.97, 1.0]) | st.floats(0, 1))
    return masks, weights, density, draw(st.integers(0, 20)), rng.permutation(list(masks)).tolist()


TABLES = {
    "one layer": lambda names: {names[0]: 0.5},
    "the first dense": lambda names: {names[0]: 1.0},
    "none": lambda names: {},
    "all": lambda names: {name: 0.9 ** (i + 1) for i, name in enumerate(names)},
    "all, some of nothing": lambda names: {name: float(i % 2) for i, name in enumerate(names)},
}


@pytest.mark.parametrize("allocation", [*ALLOCATIONS, *TABLES])
@settings(max_examples=60, deadline=None)
@given(networks())
def test_exact_and_within_bounds_or_refused(allocation, network):
    masks, weights, density, minimum, order = network
    sizes = {name: mask["kernel"].size for name, mask in masks.items()}
    alive = {name: int(mask["kernel"].sum()) for name, mask in masks.items()}
    least = {name: min(minimum, n) for name, n in alive.items()}
    floors = {name: max(kept(n, density), least[name]) for name, n in sizes.items()}
    total = max(kept(sum(sizes.values()), density), sum(least.values()))
    if allocation == "uniform":
        total = sum(floors.values())
    options = {"minimum": minimum, "weights": weights, "order": order}
    table = TABLES[allocation](order) if allocation in TABLES else allocation
    if total > sum(alive.values()):
        with pytest.raises(ValueError, match="cannot be kept"):
            allocate(masks, density, table, **options)
        return
    try:
        found = allocate(masks, density, table, **options)
    except ValueError as error:
        # What a rule refuses by its nature names the cure.
        assert allocation == "uniform+" or allocation in TABLES
        assert "density" in str(error)  # noqa: PT017
        return
    if allocation == "global":
        assert found == {"network": total}
        return
    assert list(found) == list(masks)
    assert sum(found.values()) == total
    assert all(least[name] <= found[name] <= alive[name] for name in masks)
    if allocation == "uniform" and all(floors[n] <= alive[n] for n in masks):
        assert found == floors


@pytest.mark.parametrize("allocation", [*NAMES, "table"])
def test_falling_densities_nest(allocation):
    """Each round's counts are what the last left, and the last ones are not refused."""
    rng = np.random.default_rng(0)
    alive = {name: {"kernel": mask["kernel"].copy()} for name, mask in ALIVE.items()}
    table = {name: 0.06 * (i + 1) for i, name in enumerate(LAYERS)}
    for density in (0.9, 0.7, 0.5, 0.4, 0.3, 0.2, 0.15, 0.1):
        found = allocate(
            alive,
            density,
            table if allocation == "table" else allocation,
            minimum=3,
            weights=WEIGHTS,
            order=LAYERS,
        )
        for name, count in found.items():
            flat = alive[name]["kernel"].reshape(-1)
            dead = rng.permutation(np.flatnonzero(flat))[count:]
            flat[dead] = False
            assert flat.sum() == count


def test_a_table_is_met_where_the_network_has_its_density():
    sizes = {name: mask["kernel"].size for name, mask in ALIVE.items()}
    table = {name: 1 / (i + 1) for i, name in enumerate(LAYERS)}
    wishes = {name: sizes[name] * table[name] for name in LAYERS}
    found = allocate(ALIVE, sum(wishes.values()) / SIZE, table)
    assert all(abs(found[name] - wishes[name]) <= 1 for name in LAYERS)
    whole = {name: (1, 0.5, 0.25)[i % 3] for i, name in enumerate(LAYERS)}
    wishes = {name: int(sizes[name] * whole[name]) for name in LAYERS}
    assert allocate(ALIVE, sum(wishes.values()) / SIZE, whole) == wishes
    denser = allocate(ALIVE, 0.9, table)
    assert denser["conv1"] == sizes["conv1"]  # dense in the table
    assert sorted(denser, key=lambda n: -denser[n] / sizes[n]) == LAYERS


def test_some_layers_of_a_table_are_fixed_and_the_others_share_one_rate():
    found = allocate(ALIVE, 0.3, {"conv1": 1.0, "fc": 0.5})
    assert (found["conv1"], found["fc"]) == (216, 160)
    rates = [found[n] / ALIVE[n]["kernel"].size for n in LAYERS if n not in ("conv1", "fc")]
    assert max(rates) - min(rates) < 1 / 100


@pytest.mark.parametrize(
    ("allocation", "options", "message"),
    [
        ("fair", {}, "uniform, uniform\\+, erk, lamp, global"),
        (None, {}, "none of uniform"),
        ("lamp", {}, "parameters"),
        ("lamp", {"weights": {**WEIGHTS, "fc": {"kernel": np.full((10, 32), np.nan)}}}, "NaN"),
        ("erk", {"order": ["fc"]}, "order"),
        ("erk", {"minimum": -1}, "negative"),
        ({"stem": 0.5}, {}, "'stem' is no layer; choose from conv1, conv2, conv3, conv4, dw, fc"),
        ({"fc": 1.5}, {}, "density 1.5 of layer 'fc'"),
        ({"fc": -0.5}, {}, "density -0.5 of layer 'fc'"),
        ({"fc": float("nan")}, {}, "density nan"),
        ({"conv3": 1.0}, {}, "change one of them"),
    ],
)
def test_bad_requests_name_what_is_wrong(allocation, options, message):
    with pytest.raises(ValueError, match=message):
        allocate(ALIVE, 0.1, allocation, **options)


def test_lamp_scores_sum_only_what_is_not_smaller():
    rng = np.random.default_rng(0)
    squares = np.sort(rng.normal(size=50) ** 2)
    definition = [x / squares[i:].sum() for i, x in enumerate(squares)]
    weights = rng.permutation(np.sqrt(squares))
    np.testing.assert_allclose(lamp_scores(weights), definition[::-1], rtol=1e-12)
    np.testing.assert_allclose(lamp_scores(weights * 1e-160), definition[::-1], rtol=1e-12)


def test_what_a_layer_has_not_got_the_others_keep():
    alive = {
        "a": {"kernel": np.arange(10) < 2},
        "b": {"kernel": np.ones(10, bool)},
        "c": {"kernel": np.ones(20, bool)},
    }
    assert allocate(alive, 0.2) == {"a": 2, "b": 2, "c": 4}
    assert allocate(alive, 0.5) == {"a": 2, "b": 6, "c": 12}  # 18 by one rate of 30
    assert sum(allocate(alive, 0.8).values()) == 32
    assert allocate(alive, 0.3, minimum=5) == {"a": 2, "b": 5, "c": 7}  # its floor of 3, too


def test_a_layer_that_has_just_what_it_keeps_changes_no_floor():
    alive = {"dead": 0, "b": 1, "c": 1, "d": 10}
    alive = {name: {"kernel": np.arange(max(n, 1)) < n} for name, n in alive.items()}
    assert allocate(alive, 0.5) == {"dead": 0, "b": 0, "c": 0, "d": 5}


@pytest.mark.parametrize(("last", "least"), [(10, 2), (14, 2), (15, 3)])
def test_uniform_plus_keeps_the_first_layer_and_a_fifth_of_the_last_rounded_down(last, least):
    alive = {
        name: {"kernel": np.ones(n, bool)} for name, n in zip("abc", (10, 100, last), strict=True)
    }
    size = 110 + last
    lowest = allocate(alive, (10 + least) / size, "uniform+")
    assert lowest == {"a": 10, "b": 0, "c": least}
    with pytest.raises(ValueError, match=rf"at least {10 + least} weights.* leaves {9 + least}"):
        allocate(alive, (9 + least) / size, "uniform+")
    assert allocate(alive, 0.9, "uniform+")["a"] == 10
    few = alive | {"c": {"kernel": np.arange(last) < 1}}
    assert allocate(few, 40 / size, "uniform+") == {"a": 10, "b": 29, "c": 1}


@pytest.mark.parametrize("middle", ["few, many", "many, few"])
def test_uniform_plus_keeps_the_minimum_of_the_last_layer(middle):
    """It is more than a fifth; a layer of fewer weights has them as its own minimum."""
    masks = {"first": np.ones(10, bool), "few": np.arange(10) < 3, "many": np.ones(100, bool)}
    masks["last"] = np.ones(10, bool)
    order = ["first", *middle.split(", "), "last"]
    found = allocate(masks, 23 / 130, "uniform+", minimum=5, order=order)
    assert found == {"first": 10, "few": 3, "many": 5, "last": 5}


def test_lamp_scores_at_the_borders():
    np.testing.assert_array_equal(lamp_scores(np.zeros(3)), [0, 0, 0])
    np.testing.assert_array_equal(lamp_scores(np.array([0.0, -2.0, 0.0])), [1, 0, 0])
    assert lamp_scores(np.zeros(0)).shape == (0,)


def test_the_first_name_that_is_no_layer_is_named():
    with pytest.raises(ValueError, match="'x' is no layer"):
        allocate(ALIVE, 0.5, {"fc": 0.5, "x": 0.1, "y": 0.1})


def test_a_table_may_leave_exactly_what_is_kept():
    alive = {name: {"kernel": np.ones(10, bool)} for name in "abc"}
    assert allocate(alive, 0.2, {"a": 0.4, "b": 0.2}) == {"a": 4, "b": 2, "c": 0}
    assert allocate(alive, 0.6, {"a": 0.4, "b": 0.4}) == {"a": 4, "b": 4, "c": 10}
    for density, number in ((0.19, 5), (0.7, 21)):
        with pytest.raises(ValueError, match=f"leaves 6 to 16 weights .* is {number} of them"):
            allocate(alive, density, {"a": 0.4, "b": 0.2})


def test_a_table_followed_to_nothing():
    alive = {name: {"kernel": np.ones(n, bool)} for name, n in (("a", 100), ("b", 10))}
    table = {"a": 0.5, "b": 0.25}
    assert allocate(alive, 0.0, table) == {"a": 0, "b": 0}
    assert allocate(alive, 1 / 110, table) == {"a": 1, "b": 0}
    assert allocate(alive, 1.0, table) == {"a": 100, "b": 10}
    assert allocate({"a": np.ones(1, bool), "b": np.ones(1, bool)}, 0.0, table) == {"a": 0, "b": 0}


def test_a_table_of_dense_layers_is_followed_down_to_them():
    alive = {name: {"kernel": np.ones(n, bool)} for name, n in (("a", 100), ("b", 10), ("c", 10))}
    table = {"a": 1.0, "b": 0.5, "c": 0.0}
    assert allocate(alive, 100 / 120, table) == {"a": 100, "b": 0, "c": 0}
    assert allocate(alive, 105 / 120, table) == {"a": 100, "b": 5, "c": 0}
    assert allocate(alive, 106 / 120, table, minimum=3) == {"a": 100, "b": 3, "c": 3}
    for density, minimum, least, total in ((99, 0, 100, 99), (105, 3, 106, 105)):
        with pytest.raises(ValueError, match=rf"are {least} weights, and only {total} are to be"):
            allocate(alive, density / 120, table, minimum=minimum)


@pytest.mark.parametrize(
    ("ideal", "total", "high", "expected"),
    [
        ((10, 6.6, 3.4), 10, (10, 10, 10), (5, 3, 2)),  # 5, 3.3 and 1.7
        ((3.4, 6.6, 10), 10, (10, 10, 10), (2, 3, 5)),
        ((1, 1, 1), 7, (10, 10, 10), (3, 2, 2)),  # ties to the earlier
        ((1, 1, 1), 8, (10, 10, 10), (3, 3, 2)),
        ((1, 1, 1), 8, (2, 10, 10), (2, 3, 3)),
        ((3, 1, 3, 2), 10, (2, 4, 11, 2), (2, 2, 4, 2)),  # 1.5 and 4.5
        ((2, 3, 1, 3), 26, (9, 5, 6, 11), (7, 5, 4, 10)),  # 3.5 and 10.5
        ((4, 1, 1), 2, (11, 2, 3), (2, 0, 0)),  # all of a third
        # Where nothing was wished for, all take part by what they have left.
        ((1, 0), 10, (4, 8), (4, 6)),
        ((1, 0, 0), 10, (4, 8, 4), (4, 4, 2)),
        ((0, 0, 0), 6, (4, 8, 0), (2, 4, 0)),
        ((0, 0), 0, (4, 8), (0, 0)),
        ((0, 0), 12, (4, 8), (4, 8)),
        ((1, 0), 5, (4, 1), (4, 1)),
        ((1, 0, 0), 5, (4, 1, 8), (4, 0, 1)),
        ((1, 0, 0), 22, (10, 3, 21), (10, 2, 10)),  # 1.5 and 10.5
        ((0.5, 0.25), 12, (8, 8), (8, 4)),
    ],
)
def test_what_is_missing_goes_to_the_largest_remainders(ideal, total, high, expected):
    bounds = Bounds(total, np.zeros(len(high), int), np.array(high))
    assert fill(ideal, bounds).tolist() == list(expected)


@pytest.mark.parametrize("order", [(), ("a", "b"), ("b", "a")])
def test_a_layer_keeps_at_most_what_it_may(order):
    masks = {"a": np.ones((2, 5), bool), "b": np.ones((4, 5), bool)}

    def counts(*most):
        return allocate(masks, 0.5, "erk", order=order, most=np.array(most))

    assert counts(2, 20) == {"a": 2, "b": 13}
    assert counts(10, 5) == {"a": 10, "b": 5}
    assert counts(100, 100) == allocate(masks, 0.5, "erk")  # at most what is alive
    with pytest.raises(ValueError, match="network of 2 layers: 15 weights cannot be kept of the 7"):
        counts(2, 5)
    with pytest.raises(ValueError, match="layer b: 10 weights cannot be kept of the 9 alive"):
        allocate(masks, 0.5, order=order, most=np.array([5, 9]))


def test_nothing_prunable_and_minima_that_are_none():
    with pytest.raises(ValueError, match="no layer is prunable; every leaf is None"):
        allocate({"a": None}, 0.5)
    masks = {"a": np.ones(10, bool)}
    with pytest.raises(ValueError, match="minimum: -1 is negative"):
        allocate(masks, 0.5, minimum=-1)
    with pytest.raises(ValueError, match="minimum"):
        allocate(masks, 0.5, minimum=1.5)
    assert allocate(masks, 0.1, minimum=np.array(3)) == {"a": 3}
    with pytest.raises(ValueError, match="layer a: 5 weights cannot be kept of the 3 alive"):
        allocate(masks, 0.5, "erk", most=np.array([3]))


def test_lamp_ranks_the_weights_of_masks_alone():
    rng = np.random.default_rng(0)
    kernels = {name: rng.normal(size=(4, 6)).astype(np.float32) for name in "ab"}
    masks = {name: {"kernel": np.ones((4, 6), bool)} for name in kernels}
    alone = {name: {"kernel": leaf} for name, leaf in kernels.items()}
    with_biases = {name: layer | {"bias": np.ones(99)} for name, layer in alone.items()}
    none = {name: layer | {"bias": None} for name, layer in masks.items()}
    expected = allocate(masks, 0.3, "lamp", weights=alone)
    assert allocate(none, 0.3, "lamp", weights=with_biases) == expected
