"""Differences of two numbers: paired, and honest where the two were picked out of many."""

import numpy as np
import pytest

from fairgrape_jax.metrics.samples import Samples
from fairgrape_jax.reports import differences
from fairgrape_jax.reports.comparison import compare
from fairgrape_jax.reports.differences import extremes, pairs


def test_two_numbers_have_the_percentiles_of_their_paired_difference():
    draws = np.random.default_rng(0).multivariate_normal([3, 1], [[4, 3.9], [3.9, 4]], 2000)
    found = extremes(np.array([3.0, 1.0]), draws)
    low, high = np.percentile(draws[:, 0] - draws[:, 1], [2.5, 97.5])
    assert (found.high, found.low, found.value) == (0, 1, 2.0)
    assert found.interval == pytest.approx((low, high))
    assert found.clear  # though each number's own interval holds the other number
    assert np.percentile(draws[:, 0], 2.5) < 1 < 3 < np.percentile(draws[:, 1], 97.5) + 1
    turned = extremes(np.array([1.0, 3.0]), draws[:, ::-1])
    assert (turned.high, turned.low) == (1, 0)
    assert turned.interval == pytest.approx((low, high))


@pytest.mark.parametrize("count", [3, 7, 40])
def test_the_extremes_of_equal_numbers_are_rarely_told_apart(count):
    """With single intervals of the largest minus the smallest it would be nearly always."""
    rng = np.random.default_rng(count)
    told, naive, trials = 0, 0, 200
    for _ in range(trials):
        error = rng.uniform(0.5, 3, count)
        values = rng.normal(0, error)
        draws = values + rng.normal(0, error, (400, count))
        found = extremes(values, draws)
        told += found.clear
        single = draws[:, found.high] - draws[:, found.low]
        naive += np.percentile(single, 2.5) > 0
    assert told / trials < 0.05 + 3 * np.sqrt(0.05 * 0.95 / trials)
    assert naive > 2 * told


def test_a_real_difference_among_many_is_told():
    rng = np.random.default_rng(0)
    values = np.array([0.0, 0.1, 9.0, 0.2])
    found = extremes(values, values + rng.normal(0, 1, (1000, 4)))
    assert (found.high, found.low, found.among) == (2, 0, 4)
    assert found.clear
    assert "corrected for picking two of 4" in found.text()


def test_many_numbers_have_wider_intervals_without_going_through_pairs(monkeypatch):
    rng = np.random.default_rng(0)
    values = rng.normal(0, 1, 30)
    draws = values + rng.normal(0, rng.uniform(0.5, 2, 30), (500, 30))
    exact = pairs(values, draws)
    monkeypatch.setattr(differences, "MANY", 10)
    wide = pairs(values, draws)
    off = ~np.eye(30, dtype=bool)
    assert (wide[0] < exact[0])[off].all()
    assert (wide[1] > exact[1])[off].all()
    np.testing.assert_allclose(wide.mean(axis=0), exact.mean(axis=0), atol=1e-12)


@pytest.mark.parametrize("count", [2, 5])
def test_intervals_of_pairs_are_turned_with_the_pair(count):
    rng = np.random.default_rng(0)
    values = rng.normal(0, 1, count)
    low, high = pairs(values, values + rng.normal(0, 1, (300, count)))
    np.testing.assert_allclose(low, -high.T)
    assert (low <= high).all()


def test_unknown_and_equal_numbers():
    draws = np.random.default_rng(0).normal(0, 1, (100, 3))
    assert extremes(np.array([1.0, np.nan, np.nan]), draws) is None
    assert extremes(np.array([1.0, 1.0, 1.0]), draws) is None
    draws[:, 1] = np.nan
    found = extremes(np.array([1.0, np.nan, 7.0]), draws)
    assert (found.high, found.low, found.among) == (2, 0, 2)
    some = np.random.default_rng(0).normal([0, 1, 9], 1, (100, 3))
    some[::7, 2] = np.nan  # undefined in some replicates
    assert extremes(np.array([0.0, 1.0, 9.0]), some).clear


def test_no_uncertainty_is_no_certainty():
    """Two samples of which both are right: every resampling has both right."""
    found = extremes(np.array([0.0, 50.0]), np.tile([0.0, 50.0], (100, 1)))
    assert not found.clear


def test_sets_of_models_are_compared_on_the_same_samples_and_seeds():
    """The joint bootstrap gives each set what `compare` gives it alone, and pairs them."""
    rng = np.random.default_rng(0)
    samples, seeds = 400, 3
    groups = rng.integers(-1, 3, samples)
    labels = rng.integers(0, 4, samples)
    dense = np.where(rng.random((seeds, samples)) < 0.9, labels, (labels + 1) % 4)
    models = np.stack(
        [
            np.where(rng.random((seeds, samples)) < rate, dense, (labels + 2) % 4)
            for rate in (0.9, 0.7)
        ]
    )
    right, base = (models == labels)[..., None], (dense == labels)[..., None]
    compared = differences.compare_models(right, base, groups, 3, replicates=300)
    values, draws = compared.values, compared.draws
    assert draws.shape == (300, 2, 3)
    for each, row in zip(models, values, strict=True):
        one = compare(
            "x",
            Samples(labels[:, None], groups, [4], 3),
            each[..., None],
            dense[..., None],
            replicates=300,
        )
        expected = [one.mean[key][0] for key in ("accuracy", "worst_group", "rho_change")]
        np.testing.assert_allclose(row, expected)
        spread = [one.draws[key].std() for key in ("accuracy", "worst_group", "rho_change")]
        np.testing.assert_allclose(
            draws.std(axis=0)[list(values[:, 0]).index(row[0])], spread, rtol=0.2
        )
    same = differences.compare_models(right[[0, 0]], base, groups, 3, replicates=50).draws
    np.testing.assert_array_equal(same[:, 0], same[:, 1])


def test_sets_without_dense_models_have_the_spread_of_their_accuracy():
    rng = np.random.default_rng(0)
    groups = np.arange(300) % 2
    right = rng.random((2, 1, 300, 1)) < np.where(groups, 0.9, 0.5)[:, None]
    compared = differences.compare_models(right, None, groups, 2, replicates=20)
    assert compared.measures == ("accuracy", "worst group", "rho(A)")
    rates = [[100 * each[0, groups == k].mean() for k in (0, 1)] for each in right]
    np.testing.assert_allclose(compared.values[:, 2], np.std(rates, axis=1, ddof=1))
