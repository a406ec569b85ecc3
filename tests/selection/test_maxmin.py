"""The max-min choice: never below greedy, never above its bound, and near it."""

from itertools import combinations

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairgrape_jax import masks
from fairgrape_jax.selection import select_greedy
from fairgrape_jax.selection.maxmin import certified_maxmin, layer, maxmin_tree, select_maxmin
from fairgrape_jax.selection.maxmin.layer import Layer
from fairgrape_jax.selection.maxmin.rounding import conclude, fractional
from fairgrape_jax.selection.maxmin.search import minimise, survey_on_host
from fairgrape_jax.selection.maxmin.tree import survey_on_blocks

FAMILIES = {
    "lognormal": lambda r, n, g: np.exp(2 * r.normal(size=(n, 1)) + r.normal(size=(n, g))),
    "independent": lambda r, n, g: np.exp(1.5 * r.normal(size=(n, g))),
    "skewed": lambda r, n, g: np.exp(2 * r.normal(size=(n, g))) * 10.0 ** -np.arange(g),
    "heavy-tailed": lambda r, n, g: r.pareto(1.1, (n, 1)) * r.random((n, g)),
    "sparse": lambda r, n, g: np.exp(r.normal(size=(n, g))) * (r.random((n, g)) < 0.2),
    "tied": lambda r, n, g: r.integers(0, 4, (n, g)).astype(float),
    "constant": lambda r, n, g: np.ones((n, g)),
}
SIZES = [(60, 0.5), (400, 0.1), (3000, 0.9), (20_000, 0.02), (20_000, 0.15)]


def retained(importance, previous, mask):
    totals = importance[:, previous].sum(axis=1, dtype=np.float64)
    kept = importance[:, mask].sum(axis=1, dtype=np.float64)
    return (kept[totals > 0] / totals[totals > 0]).min()


@pytest.mark.whole(but=5)
@pytest.mark.parametrize("groups", [2, 7, 14])
@pytest.mark.parametrize("family", FAMILIES)
def test_between_greedy_and_the_bound_and_near_the_bound(family, groups):
    for seed, (n, density) in enumerate(SIZES):
        rng = np.random.default_rng([seed, groups])
        importance = FAMILIES[family](rng, n, groups).T.astype(np.float32)
        previous = rng.random(n) < 0.8
        keep = max(1, int(density * previous.sum()))
        mask, found = certified_maxmin(importance, previous, keep)
        assert mask.sum() == keep
        assert not np.any(mask & ~previous)
        worst = retained(importance, previous, mask)
        assert worst >= retained(importance, previous, select_greedy(importance, previous, keep))
        assert worst == pytest.approx(found.achieved, rel=1e-5)
        assert worst <= found.bound * (1 + 1e-5)
        alive = importance[:, previous]
        heaviest = (alive / alive.sum(axis=1, keepdims=True)).max()
        assert found.gap <= 2 * heaviest * groups, (n, density)


@settings(max_examples=40, deadline=None)
@given(
    values=st.lists(
        st.tuples(*[st.sampled_from([0.0, 0.5, 1.0, 2.0, 7.0])] * 2), min_size=2, max_size=9
    ),
    data=st.data(),
)
def test_the_bound_holds_for_every_choice_there_is(values, data):
    importance = np.array(values).T
    keep = data.draw(st.integers(1, len(values)))
    everything = np.ones(len(values), bool)
    mask, found = certified_maxmin(importance, everything, keep)
    assert mask.sum() == keep
    if not importance.any():
        return
    best = 0.0
    for chosen in combinations(range(len(values)), keep):
        other = np.zeros(len(values), bool)
        other[list(chosen)] = True
        best = max(best, retained(importance, everything, other))
    assert best <= found.bound + 1e-9


def test_the_sample_changes_the_passes_and_not_the_bound(monkeypatch):
    rng = np.random.default_rng(0)
    importance = FAMILIES["lognormal"](rng, 50_000, 7).T.astype(np.float32)
    everything = np.ones(50_000, bool)
    _, plain = certified_maxmin(importance, everything, 5000)
    monkeypatch.setattr(layer, "SAMPLE", 5000)
    _, coarse = certified_maxmin(importance, everything, 5000)
    assert coarse.bound == pytest.approx(plain.bound, rel=1e-5)
    assert coarse.passes < plain.passes
    # A group to which nothing matters has no part in where the search begins.
    nobody = np.pad(importance, [(0, 1), (0, 0)])
    assert certified_maxmin(nobody, everything, 5000)[1].passes == coarse.passes


@pytest.mark.parametrize("power", [0, -40, 40])
def test_the_fractional_choice_is_that_of_the_linear_program_in_any_unit(power):
    """A third weight serves both groups best; weights of no use can neither be kept nor sold."""
    parts = np.array([[0.5, 0.0], [0.0, 0.5], [0.4, 0.4], [0.0, 0.0], [0.0, 0.0]])
    base = np.array([0.2, 0.2])
    for keep, expected in ((1, [2]), (2, [0, 2])):
        chosen = fractional(np.ldexp(parts, power), np.ldexp(base, power), keep)
        assert np.flatnonzero(chosen).tolist() == expected


def network(groups=7, family="lognormal", alive=0.8):
    """Importance and masks of three layers, two of them large if SAMPLE is 2000.

    Of one number of groups for all tests but one: programs are compiled for each.
    """
    rng = np.random.default_rng(2)
    importance, previous = {}, {}
    for name, shape in {"conv": (3, 3, 40, 80), "dense": (150, 80), "head": (80, 5)}.items():
        rows = FAMILIES[family](rng, int(np.prod(shape)), groups).T.astype(np.float32)
        importance[name] = {"kernel": rows.reshape(groups, *shape), "bias": None}
        previous[name] = {"kernel": rng.random(shape) < alive, "bias": None}
    return importance, previous


def flat(importance, previous, name):
    rows = importance[name]["kernel"]
    return rows.reshape(len(rows), -1), previous[name]["kernel"].reshape(-1)


@pytest.fixture
def sampled(monkeypatch):
    monkeypatch.setattr(layer, "SAMPLE", 2000)


def test_a_tree_is_its_layers_one_by_one():
    importance, previous = network()
    chosen, found = maxmin_tree(importance, previous, 0.2)
    assert list(found) == ["conv", "dense", "head"]
    masks.check_nested(chosen, previous)
    for name, certificate in found.items():
        rows, alive = flat(importance, previous, name)
        mask, alone = certified_maxmin(rows, alive, len(alive) // 5)
        np.testing.assert_array_equal(chosen[name]["kernel"].reshape(-1), mask)
        for field in ("achieved", "bound", "gap", "passes"):
            assert certificate[field] == pytest.approx(getattr(alone, field), rel=1e-12)


@pytest.mark.whole(but=1)
@pytest.mark.parametrize("family", FAMILIES)
def test_large_layers_of_a_tree_are_never_below_greedy_and_near_the_bound(family, sampled):
    importance, previous = network(family=family)
    chosen, found = maxmin_tree(importance, previous, 0.1)
    for name, certificate in found.items():
        rows, alive = flat(importance, previous, name)
        keep = len(alive) // 10
        mask = chosen[name]["kernel"].reshape(-1)
        assert mask.sum() == keep
        assert not np.any(mask & ~alive)
        worst = retained(rows, alive, mask)
        assert worst >= retained(rows, alive, select_greedy(rows, alive, keep)) * (1 - 1e-9)
        assert worst == pytest.approx(certificate["achieved"], rel=1e-9)
        heaviest = (rows[:, alive] / rows[:, alive].sum(axis=1, keepdims=True)).max()
        assert -1e-12 <= certificate["gap"] <= 2 * heaviest * len(rows)
        _, alone = certified_maxmin(rows, alive, keep)
        assert certificate["bound"] == pytest.approx(alone.bound, rel=1e-5)


@pytest.mark.parametrize("alive", [3, 10, 60])
def test_a_sample_without_a_choice_still_leads_to_a_bound(alive, sampled):
    rng = np.random.default_rng(alive)
    rows = FAMILIES["lognormal"](rng, 30_000, 3).T.astype(np.float32)
    previous = np.zeros(30_000, bool)
    previous[rng.permutation(30_000)[:alive]] = True
    for keep in (1, alive // 2, alive - 1):
        one = Layer(rows, previous, keep)
        ((weights, passes),) = minimise([one], survey_on_host)
        greedy = select_greedy(rows, previous, keep)
        mask, found = conclude(one, weights, passes, [greedy])
        _, compact = certified_maxmin(rows, previous, keep)
        assert weights.sum() == pytest.approx(1)
        assert mask.sum() == keep
        assert found.bound == pytest.approx(compact.bound, rel=1e-5)


def test_over_the_whole_network_it_is_one_layer(sampled):
    importance, previous = network()
    chosen, found = maxmin_tree(importance, previous, 0.2, allocation="global")
    (certificate,) = found.values()
    pairs = [flat(importance, previous, name) for name in importance]
    rows, alive = (np.concatenate(part, axis=-1) for part in zip(*pairs, strict=True))
    mask = np.concatenate([leaf.reshape(-1) for leaf in jax.tree.leaves(chosen)])
    assert list(found) == ["network"]
    assert mask.sum() == masks.kept(len(alive), 0.2)
    assert retained(rows, alive, mask) == pytest.approx(certificate["achieved"], rel=1e-9)
    _, alone = certified_maxmin(rows, alive, len(alive) // 5)
    assert certificate["bound"] == pytest.approx(alone.bound, rel=1e-5)


@pytest.mark.parametrize("count", [2, 8])
def test_devices_do_not_change_a_pass(count):
    importance, previous = network(groups=3)
    pairs = [flat(importance, previous, name) for name in importance]
    layers = [Layer(rows, alive, len(alive) // 5) for rows, alive in pairs]
    weights = np.array([[0.2, 0.5, 0.3], [1.0, 0.0, 0.0], [0.1, 0.1, 0.8]])
    one, many = (survey_on_blocks(jax.devices()[:n], layers)(weights) for n in (1, count))
    for alone, spread, host in zip(one, many, survey_on_host(layers)(weights), strict=True):
        np.testing.assert_array_equal(alone.parts, spread.parts)
        np.testing.assert_array_equal(alone.base, spread.base)
        assert alone.keep == spread.keep == host.keep
        np.testing.assert_allclose(alone.base, host.base, rtol=1e-5)
        np.testing.assert_allclose(alone.parts.sum(axis=0), host.parts.sum(axis=0), rtol=1e-4)


@pytest.mark.whole
def test_devices_do_not_change_the_choice(sampled):
    importance, previous = network()
    one = maxmin_tree(importance, previous, 0.2)
    many = maxmin_tree(importance, previous, 0.2, devices=jax.devices())
    jax.tree.map(np.testing.assert_array_equal, one, many)


def test_everything_nothing_and_no_importance():
    importance, previous = network(alive=2)
    importance["head"]["kernel"] *= 0
    for density, whole in ((1.0, 1.0), (0.0, 0.0)):
        chosen, found = maxmin_tree(importance, previous, density)
        assert all(
            c == {"achieved": whole, "bound": whole, "gap": 0, "passes": 0} for c in found.values()
        )
        assert masks.density(chosen) == density
    chosen, found = maxmin_tree(importance, previous, 0.5)
    assert found["head"]["passes"] == 0
    np.testing.assert_array_equal(np.flatnonzero(chosen["head"]["kernel"]), np.arange(200))


def test_a_weight_that_serves_all_is_better_than_the_best_of_each():
    """Greedy takes the largest of the worst group; the optimum sees the weight good for both."""
    importance = np.array([[5.0, 0.0, 4.0, 1.0], [0.0, 5.0, 4.0, 1.0]])
    everything = np.ones(4, bool)
    np.testing.assert_array_equal(select_maxmin(importance, everything, 1), [0, 0, 1, 0])
    np.testing.assert_array_equal(select_greedy(importance, everything, 1), [1, 0, 0, 0])


def test_scale_of_a_group_does_not_matter():
    rng = np.random.default_rng(1)
    importance = FAMILIES["lognormal"](rng, 2000, 4).T
    everything = np.ones(2000, bool)
    _, one = certified_maxmin(importance, everything, 300)
    _, other = certified_maxmin(importance * [[1], [1e-6], [1], [1e6]], everything, 300)
    assert one.achieved == pytest.approx(other.achieved, rel=1e-4)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="keep: 3"):
        select_maxmin(np.ones((2, 2)), np.ones(2, bool), 3)
