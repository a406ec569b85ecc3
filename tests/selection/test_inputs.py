"""Scores of every dtype, size and kind, through every selector: ranked right, or refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fairgrape_jax import masks
from fairgrape_jax.methods import Problem
from fairgrape_jax.methods.pruning import prune_layers, with_minimum
from fairgrape_jax.selection import (
    allocate,
    descending,
    select_first,
    select_greedy,
    select_threshold,
    select_top,
    select_tree,
    shares,
    solve_threshold,
    solve_tree,
)
from fairgrape_jax.selection.maxmin import maxmin_tree, select_maxmin


def as_layer(choose):
    """A choice from a tree as one from a layer: (importance, previous, keep)."""

    def select(importance, previous, keep):
        density = keep / max(previous.size, 1)
        return choose({"kernel": importance}, {"kernel": previous}, density)["kernel"]

    return select


def select_in_threads(importance, previous, keep):
    tree = {"kernel": importance}, {"kernel": previous}
    density = keep / max(previous.size, 1)
    return prune_layers(Problem(None, tree[1]), tree[0], density, select_greedy)["kernel"]


# All that look at groups.
OF_GROUPS = {
    "greedy": select_greedy,
    "threshold": select_threshold,
    "maxmin": select_maxmin,
    "tree": as_layer(select_tree),
    "tree, global": as_layer(lambda *args: select_tree(*args, allocation="global")),
    "maxmin tree": as_layer(lambda *args: maxmin_tree(*args)[0]),
    "layers in threads": select_in_threads,
}
SELECTORS = OF_GROUPS | {
    "top": lambda importance, previous, keep: select_top(importance[0], previous, keep),
    "first": select_first,
}
every_selector = pytest.mark.parametrize("select", SELECTORS.values(), ids=SELECTORS)

FLOATS = (np.float16, jnp.bfloat16, jnp.float8_e4m3fn, jnp.float8_e5m2, np.float32, np.float64)
FLOATS += (np.longdouble,)
WHOLE = (np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32, np.uint64, np.int64)
WHOLE += (jnp.uint4, jnp.int4)


N = 300  # weights of every small layer here: a selector is compiled once


def padded(scores):
    """Scores of few weights among N, of which no others are alive."""
    scores = np.asarray(scores)
    width = [(0, 0)] * (scores.ndim - 1) + [(0, N - scores.shape[-1])]
    return np.pad(scores, width), np.arange(N) < scores.shape[-1]


@every_selector
def test_every_dtype_ranks_as_its_values(select):
    scores, previous = padded([[0, 7, 5, 2, 6, 1], [0, 6, 4, 1, 5, 1]])
    for dtype in FLOATS + WHOLE:
        for keep, expected in ((1, [1]), (3, [1, 2, 4]), (5, [1, 2, 3, 4, 5])):
            mask = np.asarray(select(scores.astype(dtype), previous, keep))
            np.testing.assert_array_equal(np.flatnonzero(mask), expected, str(dtype))


@pytest.mark.parametrize("dtype", FLOATS + WHOLE, ids=lambda dtype: np.dtype(dtype).name)
def test_descending_of_every_dtype_is_a_stable_sort_from_end_to_end(dtype):
    if jnp.issubdtype(dtype, jnp.integer):
        info = jnp.iinfo(dtype)
        exact = [0, int(info.max), int(info.min), 1, int(info.max), int(info.min) + 1, 0]
        values = np.array(exact, object).astype(dtype)
    else:
        exact = [0, 2, -2, 0.5, 2, -0.0, -1, 0.5]
        values = np.array(exact).astype(dtype)
    expected = sorted(range(len(exact)), key=lambda i: (-exact[i], i))
    np.testing.assert_array_equal(descending(values), expected)


def test_bool_scores_are_zeros_and_ones():
    mask = select_top(np.array([False, True, False, True]), np.ones(4, bool), 3)
    np.testing.assert_array_equal(mask, [1, 1, 0, 1])


# A factor brings lognormal importances to an end of float32, or beyond it.
FACTORS = {
    "subnormal": 1e-42,
    "partly subnormal": 1e-38,
    "tiny": 1e-30,
    "large": 1e27,
    "of infinite sum": 1e36,
}


def drawn(n=N, groups=2, seed=0):
    rng = np.random.default_rng(seed)
    return rng.lognormal(0, 1, (1, n)) * rng.lognormal(0, 0.5, (groups, n))


@every_selector
@pytest.mark.parametrize("factor", FACTORS.values(), ids=FACTORS)
def test_a_scale_that_all_share_changes_nothing(select, factor):
    scaled = (drawn() * factor).astype(np.float32)
    previous = np.random.default_rng(1).random(N) < 0.9
    reference = np.ldexp(scaled.astype(np.float64), -int(np.log2(factor)))
    for keep in (1, 40, 250):
        mask = np.asarray(select(scaled, previous, keep))
        assert mask.sum() == keep
        assert not np.any(mask & ~previous)
        np.testing.assert_array_equal(mask, np.asarray(select(reference, previous, keep)))


@pytest.mark.parametrize("select", OF_GROUPS.values(), ids=OF_GROUPS)
def test_groups_at_both_ends_of_float32(select):
    """A group's scale plays no part but for the first pick."""
    importance = drawn()
    importance *= np.array([[1e-41], [1e33]])
    mask = np.asarray(select(importance.astype(np.float32), np.ones(N, bool), 60))
    assert mask.sum() == 60
    plain = select_greedy(importance / importance.sum(axis=1, keepdims=True), np.ones(N, bool), 60)
    retained = [importance[:, m].sum(axis=1) / importance.sum(axis=1) for m in (mask, plain)]
    assert retained[0].min() >= retained[1].min() * 0.99


@every_selector
def test_equal_values_keep_the_lowest_indices(select):
    for value in (1e-38, 1e-40, 1e-45, 1e38):
        for n, keep in ((2, 1), (50, 10), (N, N - 1)):
            scores, previous = padded(np.full((2, n), value, np.float32))
            mask = np.asarray(select(scores, previous, keep))
            np.testing.assert_array_equal(np.flatnonzero(mask), np.arange(keep))


LARGE = 5000  # weights: more than are walked as a whole


@every_selector
@pytest.mark.parametrize(
    ("dtype", "base", "step"),
    [(np.float64, 1.0, 1e-12), (np.int64, 2**53, 1), (np.uint32, 2**24, 1), (np.uint64, 2**63, 1)],
)
def test_what_float32_cannot_hold_is_ranked_all_the_same(select, dtype, base, step):
    order = np.random.default_rng(0).permutation(LARGE)
    scores = np.asarray(base, dtype) + order.astype(dtype) * np.asarray(step, dtype)
    mask = np.asarray(select(np.stack([scores, scores]), np.ones(LARGE, bool), 500))
    np.testing.assert_array_equal(mask, order >= LARGE - 500)


@pytest.mark.parametrize("groups", ["both", "one of nothing"])
def test_what_greedy_itself_chose_is_said_to_be_so(groups):
    """No pass was made, and the error is that of the shares of what is kept."""
    scores, previous = drawn(), np.random.default_rng(1).random(N) < 0.9
    scores[1] *= groups == "both"
    target = scores[:, previous].sum(axis=1) / scores[:, previous].sum()
    for keep in (0, 40, int(previous.sum())):
        mask, info = solve_threshold(scores, previous, keep)
        np.testing.assert_array_equal(mask, select_greedy(scores, previous, keep))
        part = scores[:, np.asarray(mask)].sum(axis=1)
        achieved = part / max(part.sum(), 1e-9)
        changes = [abs(p / t - 1) for p, t in zip(achieved, target, strict=True) if t]
        assert info == (0, pytest.approx(max(changes) if keep else 0, abs=1e-12), False)
        chosen, found = solve_tree({"kernel": scores}, {"kernel": previous}, keep / N)
        np.testing.assert_array_equal(chosen["kernel"], mask)
        assert list(found.values()) == [pytest.approx(info._asdict(), rel=1e-6, abs=1e-12)]
    empty = solve_threshold(np.zeros((2, 0)), np.ones(0, bool), 0)[1]
    assert empty == (0, 0.0, True)


@pytest.mark.parametrize("where", [np.asarray, jnp.asarray], ids=["host", "device"])
def test_what_float32_holds_is_chosen_by_the_program(where):
    """What is left to greedy is not converged."""
    scores = {"kernel": where(drawn(LARGE).astype(np.float32))}
    _, found = solve_tree(scores, {"kernel": np.ones(LARGE, bool)}, 0.1)
    assert [each["converged"] for each in found.values()] == [True]


def test_what_float32_cannot_hold_costs_no_pass():
    scores = 1 + 1e-12 * np.random.default_rng(0).random((2, LARGE))
    _, found = solve_tree({"kernel": scores}, {"kernel": np.ones(LARGE, bool)}, 0.1)
    assert [(each["passes"], each["converged"]) for each in found.values()] == [(0, False)]


def test_large_integers_on_a_device_are_ranked_all_the_same():
    order = np.random.default_rng(0).permutation(N)
    scores = jnp.asarray(2**24 + np.stack([order, order]), jnp.int32)
    mask = select_tree({"kernel": scores}, {"kernel": np.ones(N, bool)}, 40 / N)["kernel"]
    np.testing.assert_array_equal(mask, order >= N - 40)


def test_a_large_layer_at_the_ends_of_float32_is_found_as_a_fixed_point():
    """5,000 weights are more than are walked as a whole; a power of two is exact."""
    importance = (drawn(LARGE) / 1e3).astype(np.float32)
    mask, info = solve_threshold(importance, np.ones(LARGE, bool), 700)
    assert info.converged
    for power in (-110, -90, 85, 110):
        scaled = np.ldexp(importance, power)
        other, info = solve_threshold(scaled, np.ones(LARGE, bool), 700)
        np.testing.assert_array_equal(other, mask)
        assert info.converged == (power <= 85)  # above, greedy itself makes sure
        again = jax.jit(select_threshold)(scaled, np.ones(LARGE, bool), 700)
        np.testing.assert_array_equal(again, mask)


GARBAGE = {
    "negative": lambda x: -x,
    "partly negative": lambda x: x - x.mean(),
    "minus zero": lambda x: x * -0.0,
    "NaN": lambda x: x * np.nan,
    "partly NaN": lambda x: np.where(x > 1, np.nan, x),
    "infinite": lambda x: x + np.inf,
    "partly infinite": lambda x: np.where(x > 1, np.inf, x),
    "largest": lambda x: np.full_like(x, np.finfo(np.float32).max),
    "subnormal": lambda x: x * np.float32(1e-42),
    "of infinite sum": lambda x: x * np.float32(1e36),
    "both ends": lambda x: np.where(x > 1, x * 1e35, x * 1e-43),
}


@pytest.mark.parametrize("n", [N, LARGE])
def test_a_jitted_choice_has_its_count_whatever_the_scores_are(n):
    select = jax.jit(select_threshold)
    previous = np.random.default_rng(2).random(n) < 0.8
    alive = int(previous.sum())
    for name, spoil in GARBAGE.items():
        scores = spoil(drawn(n).astype(np.float32)).astype(np.float32)
        for keep in (-3, 0, 1, n // 10, alive - 1, alive, n):
            mask = np.asarray(select(scores, previous, keep))
            assert mask.sum() == np.clip(keep, 0, alive), (name, keep)
            assert not np.any(mask & ~previous), (name, keep)


def test_infinite_importance_comes_first_in_a_jitted_choice_and_nan_last():
    scores, previous = padded(np.array([[1, np.nan, np.inf, 2, -5]] * 2, np.float32))
    chosen = [
        np.flatnonzero(jax.jit(select_threshold)(scores, previous, keep)).tolist()
        for keep in (1, 2, 3)
    ]
    assert chosen == [[2], [2, 3], [0, 2, 3]]


def layouts(scores):
    yield "read-only", np.frombuffer(scores.tobytes(), scores.dtype).reshape(scores.shape)
    yield "big-endian", scores.astype(scores.dtype.newbyteorder(">"))
    yield "Fortran order", np.asfortranarray(scores)
    yield "every other", np.repeat(scores, 2, axis=1)[:, ::2]
    yield "backwards", np.ascontiguousarray(scores[:, ::-1])[:, ::-1]
    yield "on a device", jnp.asarray(scores)


@every_selector
def test_the_layout_in_memory_changes_nothing(select):
    scores, previous = drawn().astype(np.float32), np.random.default_rng(1).random(N) < 0.8
    expected = np.asarray(select(scores, previous, 40))
    for name, same in layouts(scores):
        np.testing.assert_array_equal(np.asarray(select(same, previous, 40)), expected, name)
    frozen = np.frombuffer(previous.tobytes(), bool)
    np.testing.assert_array_equal(np.asarray(select(scores, frozen, 40)), expected)
    np.testing.assert_array_equal(np.asarray(select(scores, jnp.asarray(previous), 40)), expected)


@pytest.mark.parametrize("select", OF_GROUPS.values(), ids=OF_GROUPS)
def test_no_groups_and_no_weights(select):
    none = np.asarray(select(np.zeros((0, 6), np.float32), np.ones(6, bool), 2))
    np.testing.assert_array_equal(np.flatnonzero(none), [0, 1])
    assert np.asarray(select(np.zeros((3, 0), np.float32), np.ones(0, bool), 0)).shape == (0,)
    assert np.asarray(select(np.zeros((0, 0), np.float32), np.ones(0, bool), 0)).shape == (0,)


def test_no_groups_and_no_weights_in_a_jitted_choice():
    select = jax.jit(select_threshold)
    mask = select(np.zeros((0, 6), np.float32), np.ones(6, bool), 2)
    np.testing.assert_array_equal(np.flatnonzero(mask), [0, 1])
    assert select(np.zeros((3, 0), np.float32), np.ones(0, bool), 0).shape == (0,)


def test_a_tree_with_an_empty_layer():
    importance = {"a": {"kernel": drawn(6)}, "b": {"kernel": np.zeros((2, 0, 3))}}
    mask = {"a": {"kernel": np.ones(6, bool)}, "b": {"kernel": np.ones((0, 3), bool)}}
    for choose in (select_tree, lambda *args: maxmin_tree(*args)[0]):
        chosen = choose(importance, mask, 0.5)
        assert chosen["a"]["kernel"].sum() == 3
        assert chosen["b"]["kernel"].shape == (0, 3)


DENSITIES = [50, 1.2, -0.1, float("nan"), float("inf"), -float("inf"), np.float32(1.5)]


@pytest.mark.parametrize("density", DENSITIES)
def test_a_density_outside_0_to_1_is_refused_at_every_door(density):
    importance, mask = {"kernel": np.ones((1, 4))}, {"kernel": np.ones(4, bool)}
    doors = {
        "kept": lambda: masks.kept(4, density),
        "counts": lambda: allocate(mask, density),
        "select_tree": lambda: select_tree(importance, mask, density),
        "solve_tree": lambda: solve_tree(importance, mask, density, allocation="global"),
        "maxmin_tree": lambda: maxmin_tree(importance, mask, density),
        "prune_layers": lambda: prune_layers(
            Problem(None, mask), importance, density, select_first
        ),
    }
    for name, door in doors.items():
        with pytest.raises(ValueError, match=r"density: .* is not between 0 and 1"):
            pytest.fail(f"{name}: {door()}")


@pytest.mark.parametrize("keep", [1.5, float("nan"), "1", None, np.float32(2), np.array([1, 2])])
def test_a_keep_that_is_no_whole_number_is_refused(keep):
    for name in ("greedy", "threshold", "maxmin", "top", "first"):
        with pytest.raises(ValueError, match=r"keep: .* is not a whole number"):
            SELECTORS[name](np.ones((2, 4)), np.ones(4, bool), keep)


@every_selector
@pytest.mark.parametrize("dtype", [np.complex64, object, "U3", "datetime64[s]"])
def test_what_is_no_real_number_is_refused(select, dtype):
    scores = np.ones((2, 4)).astype(int).astype(dtype)
    with pytest.raises(ValueError, match="real numbers are expected, not dtype"):
        select(scores, np.ones(4, bool), 1)


def test_one_of_the_arguments_may_be_traced_alone():
    scores, previous = drawn().astype(np.float32), np.ones(N, bool)
    shape = jax.ShapeDtypeStruct((N,), bool)
    assert jax.eval_shape(lambda keep: select_threshold(scores, previous, keep), 7) == shape
    assert jax.eval_shape(lambda rows: select_threshold(rows, previous, 7), scores) == shape
    assert jax.eval_shape(lambda mask: select_threshold(scores, mask, 7), previous) == shape


def test_what_is_traced_is_looked_at_by_dtype():
    with pytest.raises(ValueError, match="real numbers are expected, not dtype complex64"):
        jax.jit(select_threshold)(np.ones((2, N), np.complex64), np.ones(N, bool), 1)
    with pytest.raises(ValueError, match="keep: a whole number is expected"):
        jax.jit(select_threshold)(np.ones((2, N), np.float32), np.ones(N, bool), 1.5)


@pytest.mark.parametrize("select", OF_GROUPS.values(), ids=OF_GROUPS)
@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_importance_that_cannot_be_ranked_is_refused(select, bad, dtype):
    scores = np.ones((2, N), dtype)
    scores[1, 3] = bad
    with pytest.raises(ValueError, match="negative, NaN or infinite values cannot be ranked"):
        select(scores, np.ones(N, bool), 4)


def test_float64_sums_that_cannot_be_held_are_refused():
    with pytest.raises(ValueError, match="sums are beyond float64"):
        select_greedy(np.full((1, 4), 1e308), np.ones(4, bool), 2)
    with pytest.raises(ValueError, match="further apart than float64 can hold"):
        select_greedy(np.array([[1e300, 1.0], [1e-300, 1e-300]]), np.ones(2, bool), 1)


def test_groups_come_first_and_the_order_of_before_is_turned_with_a_warning():
    rows, previous = drawn(), np.ones(N, bool)
    for select in (select_greedy, select_threshold, select_first, select_maxmin, shares):
        args = (previous,) if select is shares else (previous, 7)
        expected = np.asarray(select(rows, *args))
        with pytest.warns(FutureWarning, match=r"\(300, 2\) is taken as \(n, G\)"):
            turned = np.asarray(select(rows.T, *args))
        np.testing.assert_array_equal(turned, expected)
        with pytest.raises(ValueError, match=r"\(2, 300\) does not fit the 299 .* groups first"):
            select(rows, previous[:299], *args[1:])


TREES = {
    "shape": ({"kernel": np.ones((2, 5))}, "importance of layer .*: .* groups first"),
    "no array": ({"kernel": None}, "importance has 0 arrays, masks 1"),
}


@pytest.mark.parametrize("name", TREES)
def test_trees_that_do_not_fit_are_refused_by_layer(name):
    importance, message = TREES[name]
    for choose in (
        select_tree,
        maxmin_tree,
        lambda i, m, d: prune_layers(Problem(None, m), i, d, select_first),
    ):
        with pytest.raises(ValueError, match=message):
            choose(importance, {"kernel": np.ones(4, bool)}, 0.5)


def test_masks_that_are_none_are_refused():
    for choose in (select_tree, maxmin_tree):
        with pytest.raises(ValueError, match="no layer is prunable"):
            choose({"bias": None}, {"bias": None}, 0.5)
        with pytest.raises(ValueError, match="dtype bool is expected, not int64"):
            choose({"kernel": np.ones((1, 4))}, {"kernel": np.ones(4, np.int64)}, 0.5)
    with pytest.raises(ValueError, match="no weight is prunable"):
        masks.density({"bias": None})


def test_unsigned_scores_fill_a_layer_up_from_the_highest():
    mask = {"a": np.ones(4, bool), "b": np.ones(4, bool)}
    chosen = {"a": np.zeros(4, bool), "b": np.ones(4, bool)}
    for dtype in (np.uint8, np.int8, np.float16, np.float64):
        scores = {"a": np.array([0, 9, 5, 1], dtype), "b": np.array([3, 1, 2, 4], dtype)}
        found = with_minimum(mask, chosen, scores, 1)
        np.testing.assert_array_equal(found["a"], [0, 1, 0, 0])
        np.testing.assert_array_equal(found["b"], [1, 0, 1, 1])
