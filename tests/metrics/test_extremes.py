"""What is furthest apart, and the interval that holds for all pairs, from its definition."""

import itertools

import numpy as np
import pytest

from fairgrape_jax.metrics.extremes import between, largest_deviation, lowest, standard_error

NAN = np.nan


def drawn(values, seed=0, count=40, spread=2.0):
    rng = np.random.default_rng(seed)
    return np.asarray(values) + spread * rng.standard_normal((count, *np.shape(values)))


def apart(small, large, measure):
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = 100 * small / large
    return large - small if measure == "difference" else np.where(np.isinf(ratio), NAN, ratio)


def error_of(draws):
    known = draws[~np.isnan(draws)]
    return np.std(known, ddof=1) if len(known) > 1 else 0.0


def deviations(pairs):
    """The largest standardised deviation in each replicate, a replicate and a pair at a time."""
    count = len(pairs[0])
    largest = np.zeros(count)
    for draws in pairs:
        error = error_of(draws)
        for r in range(count):
            if error > 0 and not np.isnan(draws[r]):
                largest[r] = max(largest[r], abs(draws[r] - np.nanmean(draws)) / error)
    return largest


def simultaneous(values, draws, measure, level):
    """`between`, from the words of its docstring."""
    rows, pairs = [], []
    for row, numbers in enumerate(values):
        known = [k for k in np.argsort(numbers, kind="stable") if not np.isnan(numbers[k])]
        for small, large in itertools.combinations(known, 2):
            pairs.append(apart(draws[:, row, small], draws[:, row, large], measure))
            if (small, large) == (known[0], known[-1]):
                value = float(apart(numbers[small], numbers[large], measure))
                rows.append((value, large, small, row, pairs[-1]))
    rows = [each for each in rows if not np.isnan(each[0])]
    pick = max if measure == "difference" else min
    value, large, small, row, picked = pick(rows, key=lambda each: each[0])
    reach = np.quantile(deviations(pairs), level) * error_of(picked)
    low = value - reach
    low = max(low, 0) if measure == "ratio" else low
    return value, low, value + reach, large, small, row


ROWS = {
    "one row": [[70.0, 90.0, 80.0]],
    "an unknown number": [[70.0, NAN, 90.0, 80.0]],
    "several rows": [[70.0, 90.0, 80.0], [60.0, 95.0, 61.0], [NAN, 1.0, NAN]],
    "nearly equal numbers": [[80.0, 80.1, 80.2]],
    "a row of too few first": [[NAN, 1.0, NAN], [70.0, 90.0, 80.0]],
    "the first of equal rows": [[70.0, 90.0, 80.0], [90.0, 80.0, 70.0]],
    "a number of zero": [[0.0, 50.0, 80.0], [30.0, 20.0, 40.0]],
    "small numbers": [[1.0, 90.0, 80.0]],
    "two numbers in each of two rows": [[50.0, 60.0], [90.0, 60.0]],
}


@pytest.mark.parametrize("measure", ["difference", "ratio"])
@pytest.mark.parametrize("level", [0.5, 0.95])
@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
def test_the_interval_of_what_is_furthest_apart(rows, measure, level):
    values = np.array(rows)
    draws = drawn(values)
    draws[3, 0, 0] = NAN
    expected = simultaneous(values, draws, measure, level)
    np.testing.assert_allclose(between(values, draws, measure, level), expected)
    if level == 0.95:
        np.testing.assert_allclose(between(values, draws, measure), expected)
        if measure == "difference":
            np.testing.assert_allclose(between(values, draws), expected)


@pytest.mark.parametrize("measure", ["difference", "ratio"])
def test_one_pair_has_the_interval_of_its_replicates(measure):
    values, draws = np.array([[80.0, NAN, 62.0]]), drawn([[80.0, NAN, 62.0]])
    each = apart(draws[:, 0, 2], draws[:, 0, 0], measure)
    low, high = np.percentile(each, [2.5, 97.5])
    found = between(values, draws, measure)
    assert found[3:] == (0, 2, 0)
    np.testing.assert_allclose(found[:3], (apart(62.0, 80.0, measure), low, high))


@pytest.mark.parametrize(
    "rows", [[[NAN, NAN]], [[1.0, NAN], [NAN, 2.0]], np.empty((0, 3)), [[5.0]]]
)
def test_nothing_is_apart_where_fewer_than_two_numbers_are_known(rows):
    values = np.array(rows)
    found = between(values, drawn(values))
    assert np.isnan(found[:3]).all()
    assert found[3:] == (-1, -1, -1)


def test_a_ratio_of_zeros_is_none():
    zeros = np.zeros((1, 2))
    found = between(zeros, np.zeros((9, 1, 2)), "ratio")
    assert np.isnan(found.value)
    assert found.row == -1
    assert between(zeros, np.zeros((9, 1, 2)))[:3] == (0, 0, 0)


@pytest.mark.parametrize("unknown", [0, 2])
def test_a_pair_that_no_replicate_knows_has_no_interval(unknown):
    values = np.array([[10.0, 50.0, 90.0]])
    draws = drawn(values)
    draws[:, 0, unknown] = NAN
    found = between(values, draws)
    assert found.value == 80
    assert np.isnan(found[1:3]).all()
    assert found[3:] == (2, 0, 0)


def test_the_lowest_of_several():
    values = np.array([70.0, NAN, 60.0, 90.0])
    draws = drawn(values)
    draws[2, 0] = NAN
    known = [0, 2, 3]
    factor = np.quantile(deviations([draws[:, k] for k in known]), 0.95)
    reach = factor * error_of(draws[:, 2])
    place, low, high = lowest(values, draws)
    assert place == 2
    np.testing.assert_allclose((low, high), (60 - reach, 60 + reach))
    wide = lowest(values, draws, 1.0)
    assert wide[1] < low


def test_the_lowest_of_one_has_the_interval_of_its_replicates():
    values = np.array([NAN, 60.0])
    draws = drawn(values)
    place, *ends = lowest(values, draws)
    assert place == 1
    np.testing.assert_allclose(ends, np.percentile(draws[:, 1], [2.5, 97.5]))


def test_standard_errors_and_deviations_pass_over_what_is_unknown():
    draws = drawn([1.0, 2.0, 3.0, 4.0], count=7)
    draws[:, 1] = NAN
    draws[1:, 2] = NAN
    draws[2:, 3] = NAN
    expected = [np.std(draws[:, 0], ddof=1), 0, 0, np.std(draws[:2, 3], ddof=1)]
    np.testing.assert_allclose(standard_error(draws), expected)
    largest = largest_deviation(draws, standard_error(draws))
    np.testing.assert_allclose(largest, deviations(list(draws.T)))
    assert (largest_deviation(np.full((3, 2), 5.0), np.zeros(2)) == 0).all()
    narrow = drawn([1.0, 2.0], spread=0.1)
    largest = largest_deviation(narrow, standard_error(narrow))
    np.testing.assert_allclose(largest, deviations(list(narrow.T)))
