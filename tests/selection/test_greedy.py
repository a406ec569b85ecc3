"""FairGRAPE's greedy choice against golden masks, a plain loop, and its own promises."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairgrape_jax.selection import descending, select_first, select_greedy, select_top, shares
from fairgrape_jax.selection.greedy import group_totals
from tests.helpers.datasets import GOLDEN_FILES

GOLDEN = GOLDEN_FILES / "selection_official.npz"


def plain_greedy(importance, previous, keep):
    """Algorithm 1 as it is written, relative deficit, one weight at a time."""
    importance = importance.astype(np.float64)
    target = shares(importance, previous)
    groups = [k for k in range(len(importance)) if target[k] > 0]
    mask = np.zeros(len(previous), bool)
    share = np.full(len(importance), 1 / max(len(groups), 1))
    while mask.sum() < keep:
        free = np.flatnonzero(previous & ~mask)
        if not groups:
            mask[free[0]] = True
            continue
        worst = min(groups, key=lambda k: ((share[k] - target[k]) / target[k], k))
        mask[free[np.argmax(importance[worst, free])]] = True
        share = shares(importance, mask)
    return mask


def layer(seed, n=200, groups=3, alive=0.7):
    rng = np.random.default_rng(seed)
    importance = (rng.lognormal(0, 2, (1, n)) * rng.lognormal(0, 1, (groups, n))).astype(np.float32)
    previous = rng.random(n) < alive
    importance[:, ~previous] = 0
    return importance, previous


@pytest.mark.parametrize("case", range(9))
def test_the_official_codes_masks_bit_for_bit(case):
    with np.load(GOLDEN) as golden:
        importance = golden[f"c{case}_importance"]
        n, density = len(importance), float(golden[f"c{case}_keep"])
        previous, expected = (
            np.unpackbits(golden[f"c{case}_{name}"], count=n).astype(bool)
            for name in ("previous", "mask")
        )
    keep = int(n * (1 - (1 - density)))
    chosen = select_greedy(importance.T, previous, keep, deficit="absolute", advances=2)
    np.testing.assert_array_equal(chosen, expected)


@pytest.mark.parametrize("seed", range(20))
def test_equals_algorithm_1_written_plainly(seed):
    rng = np.random.default_rng(100 + seed)
    importance, previous = layer(seed, groups=int(rng.integers(1, 8)))
    keep = int(rng.integers(0, previous.sum() + 1))
    chosen = select_greedy(importance, previous, keep)
    np.testing.assert_array_equal(chosen, plain_greedy(importance, previous, keep))


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(
        st.tuples(*[st.sampled_from([0.0, 1e-30, 0.5, 1.0, 2.0, 1e20])] * 2),
        min_size=1,
        max_size=40,
    ),
    data=st.data(),
    deficit=st.sampled_from(["relative", "absolute"]),
    advances=st.integers(1, 3),
)
def test_exact_count_and_new_within_old(values, data, deficit, advances):
    importance = np.array(values, np.float32).T
    previous = np.array(
        data.draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values)))
    )
    keep = data.draw(st.integers(0, int(previous.sum())))
    for mask in (
        select_greedy(importance, previous, keep, deficit=deficit, advances=advances),
        select_top(importance[0], previous, keep),
    ):
        assert mask.sum() == keep
        assert not np.any(mask & ~previous)


def test_shares_are_kept_better_than_by_the_sum_over_groups():
    importance, previous = layer(3, n=5000, groups=4, alive=1.1)
    importance[0] *= 50  # one group dominates any sum
    keep = 500
    target = shares(importance, previous)
    fair = shares(importance, select_greedy(importance, previous, keep))
    plain = shares(importance, select_top(importance.sum(axis=0), previous, keep))
    assert np.abs(fair / target - 1).max() < 0.01 < np.abs(plain / target - 1).max()


def test_scale_of_a_group_drops_out_but_for_the_first_pick():
    importance, previous = layer(5, n=2000, groups=3)
    chosen = select_greedy(importance, previous, 400)
    scaled = select_greedy(importance * np.float32([[1], [1024], [1]]), previous, 400)
    assert (chosen != scaled).sum() <= 2 * len(importance)


def test_ties_go_to_the_lower_index():
    mask = select_greedy(np.ones((2, 5), np.float32), np.array([0, 1, 1, 1, 1], bool), 2)
    np.testing.assert_array_equal(mask, [0, 1, 1, 0, 0])
    np.testing.assert_array_equal(select_top(np.ones(4), np.ones(4, bool), 2), [1, 1, 0, 0])


@pytest.mark.parametrize("deficit", ["relative", "absolute"])
def test_of_groups_that_lost_as_much_the_first_chooses(deficit):
    for order in ([0, 1, 2], [1, 2, 0], [2, 0, 1]):
        importance = np.eye(3)[order]
        for keep in (1, 2):
            mask = select_greedy(importance, np.ones(3, bool), keep, deficit=deficit)
            np.testing.assert_array_equal(np.flatnonzero(mask), sorted(order[:keep]))


def test_a_group_without_importance_takes_no_part():
    importance, previous = layer(7)
    padded = np.insert(importance, 1, 0, axis=0)
    chosen = select_greedy(padded, previous, 50)
    np.testing.assert_array_equal(chosen, select_greedy(importance, previous, 50))


def test_without_any_importance_the_lowest_indices_stay():
    previous = np.array([0, 1, 1, 0, 1], bool)
    mask = select_greedy(np.zeros((3, 5), np.float32), previous, 2)
    np.testing.assert_array_equal(mask, [0, 1, 1, 0, 0])


def test_float64_importance_gives_the_same_choice():
    importance, previous = layer(9)
    np.testing.assert_array_equal(
        select_greedy(importance, previous, 60),
        select_greedy(importance.astype(np.float64), previous, 60),
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_descending_is_a_stable_sort(dtype):
    values = np.random.default_rng(0).choice([0.0, -0.0, 1e-40, 1.0, 3.5, 1e30], 500).astype(dtype)
    np.testing.assert_array_equal(descending(values), np.argsort(-values, kind="stable"))


@pytest.mark.parametrize(
    "dtype", [np.float16, np.float32, np.float64, np.int8, np.uint16, np.int64]
)
def test_descending_of_both_signs_ties_by_index(dtype):
    rng = np.random.default_rng(0)
    if np.dtype(dtype).kind == "f":
        info = np.finfo(dtype)
        ends = [
            0.0,
            -0.0,
            info.tiny,
            -info.tiny,
            info.smallest_subnormal,
            info.max,
            info.min,
            1,
            -1,
        ]
    else:
        info = np.iinfo(dtype)
        ends = [0, 1, info.max, info.min, info.max - 1, info.min + 1]
    values = rng.choice(np.array(ends, dtype), 300)
    expected = sorted(range(300), key=lambda i: (-values[i].item(), i))
    found = descending(values)
    assert found.dtype == np.uint32
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(descending(np.array([True, False, True])), [0, 2, 1])
    assert descending(values[:0]).shape == (0,)


def test_the_top_are_the_first_of_the_sorted_alive():
    rng = np.random.default_rng(1)
    scores, previous = rng.normal(size=40).astype(np.float32), rng.random(40) < 0.6
    alive = np.flatnonzero(previous)
    for keep in (0, 1, 7, len(alive)):
        expected = np.zeros(40, bool)
        expected[alive[np.argsort(-scores[alive])[:keep]]] = True
        np.testing.assert_array_equal(select_top(scores, previous, keep), expected)
        rows = np.stack([scores, -scores])
        np.testing.assert_array_equal(select_first(rows, previous, keep), expected)
        np.testing.assert_array_equal(select_first(rows[:1], previous, keep), expected)
    for shape in ((1, 40), (), (40, 1)):
        with pytest.raises(ValueError, match=r"scores .*: \(n,\) is expected"):
            select_top(np.ones(shape), previous, 1)


def test_shares_are_of_the_weights_in_the_mask():
    importance, previous = layer(4, groups=5)
    kept = importance[:, previous].astype(np.float64).sum(axis=1)
    found = shares(importance, previous)
    np.testing.assert_allclose(found, kept / kept.sum(), rtol=1e-12)
    assert found.dtype == np.float64
    for scale in (1e-30, 1e-3):
        np.testing.assert_allclose(shares(importance * scale, previous), found, rtol=1e-6)
    np.testing.assert_array_equal(shares(importance, np.zeros(len(previous), bool)), np.zeros(5))
    np.testing.assert_array_equal(shares(np.zeros((2, 3)), np.ones(3, bool)), [0, 0])
    np.testing.assert_array_equal(
        shares(np.ones((2, 3), np.int8) * 100, np.ones(3, bool)), [0.5] * 2
    )


def test_sums_are_of_float64_and_those_it_cannot_hold_are_refused():
    columns = np.array([[1.0, 2.0], [3.0, 4.0]])
    np.testing.assert_array_equal(group_totals(columns), [4, 6])
    assert group_totals(columns.astype(np.float32)).dtype == np.float64
    np.testing.assert_array_equal(group_totals(np.zeros((3, 2))), [0, 0])
    assert group_totals(np.zeros((3, 0))).shape == (0,)
    np.testing.assert_array_equal(group_totals(np.array([[1e-320, 0.0]])), [1e-320, 0])
    np.testing.assert_array_equal(group_totals(np.array([[1e-290, 1.0, 0.0]])), [1e-290, 1, 0])
    with pytest.raises(ValueError, match="further apart than float64 can hold"):
        group_totals(np.array([[1e-301, 1.0]]))
    for huge in ([[1e308], [1e308]], [[1e308, 1e308]]):
        with pytest.raises(ValueError, match="sums are beyond float64"):
            group_totals(np.array(huge))


@pytest.mark.parametrize("advances", [1, 2])
def test_where_importance_runs_out_the_lowest_indices_follow(advances):
    importance = np.zeros((3, 12), np.float32)
    importance[0, [4, 9]] = 1, 2
    importance[1, [9, 11]] = 3, 1
    previous = np.arange(12) != 1
    for keep in range(4, 11):
        mask = select_greedy(importance, previous, keep, advances=advances)
        expected = sorted([4, 9, 11, *[0, 2, 3, 5, 6, 7, 8, 10][: keep - 3]])
        np.testing.assert_array_equal(np.flatnonzero(mask), expected)


@pytest.mark.parametrize("advances", [1, 2, 3, 7])
@pytest.mark.parametrize("deficit", ["relative", "absolute"])
def test_advances_and_deficits_written_plainly(deficit, advances):
    """Positions in a group's own order, those chosen already included."""
    for seed in range(6):
        importance, previous = layer(seed, n=30, groups=3)
        importance[seed % 3] = np.round(importance[seed % 3])  # ties, and zeros at its end
        keep = int(previous.sum()) * (seed + 1) // 7
        chosen = select_greedy(importance, previous, keep, deficit=deficit, advances=advances)
        expected = advanced_greedy(importance.astype(float), previous, keep, deficit, advances)
        np.testing.assert_array_equal(chosen, expected)


def advanced_greedy(importance, previous, keep, deficit, advances):
    target = shares(importance, previous)
    alive = np.flatnonzero(previous)
    orders = [sorted(alive, key=lambda w, row=row: (-row[w], w)) for row in importance]
    ends = [int((row[alive] > 0).sum()) for row in importance]
    places, mask = [0] * len(importance), np.zeros(len(previous), bool)
    share = np.full(len(importance), 1 / (target > 0).sum())
    while mask.sum() < keep:
        lost = share - target
        if deficit == "relative":
            lost = lost / np.where(target > 0, target, 1)
        able = [k for k in range(len(importance)) if target[k] > 0 and places[k] < ends[k]]
        if not able:
            free = np.flatnonzero(previous & ~mask)
            mask[free[: keep - mask.sum()]] = True
            break
        worst = min(able, key=lambda k: (lost[k], k))
        for _ in range(advances):
            if mask.sum() == keep or places[worst] == len(alive):
                break
            mask[orders[worst][places[worst]]] = True
            places[worst] += 1
        share = shares(importance, mask)
    return mask


BAD = {
    "keep above what is alive": (np.ones((2, 3)), [1, 0, 1], 3, "keep: 3 .* 2 that are alive"),
    "keep below zero": (np.ones((2, 3)), [1, 1, 1], -1, "keep: -1"),
    "negative": (-np.ones((2, 3)), [1, 1, 1], 1, "negative, NaN or infinite"),
    "NaN": (np.full((2, 3), np.nan), [1, 1, 1], 1, "negative, NaN or infinite"),
    "infinite": (np.full((2, 3), np.inf), [1, 1, 1], 1, "negative, NaN or infinite"),
    "shape": (np.ones((3, 3)), [1, 1], 1, r"\(G, n\) and \(n,\) are expected"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name):
    importance, previous, keep, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        select_greedy(importance, np.array(previous, bool), keep)


def test_previous_must_be_bool_and_options_known():
    with pytest.raises(ValueError, match="bool is expected"):
        select_greedy(np.ones((2, 2)), np.ones(2), 1)
    with pytest.raises(ValueError, match="'squared' is neither"):
        select_greedy(np.ones((2, 2)), np.ones(2, bool), 1, deficit="squared")
    with pytest.raises(ValueError, match="advances"):
        select_greedy(np.ones((2, 2)), np.ones(2, bool), 1, advances=0)
