"""Metrics against the paper's printed tables, closed forms and plain counting."""

import json

import numpy as np
import pytest

from fairgrape_jax import metrics

# FairGRAPE, Table 2: accuracies of the groups as printed, then rho(A) and rho(Delta) as printed.
# The first row of each block is the unpruned network.
TABLE_2 = {
    "FairFace gender by gender": [
        ("No-pruning", [94.7, 94.5], 0.14, None),
        ("Lottery", [86.4, 85.2], 0.80, 0.65),
        ("SNIP", [91.0, 89.9], 0.78, 0.63),
        ("WS", [84.3, 83.4], 0.62, 0.47),
        ("GraSP", [88.4, 87.4], 0.75, 0.60),
        ("FairGRAPE", [91.3, 91.0], 0.20, 0.05),
    ],
    "FairFace gender by race": [
        ("No-pruning", [94.6, 90.5, 95.9, 94.7, 94.4, 96.3, 95.6], 1.93, None),
        ("Lottery", [85.1, 80.8, 88.4, 84.0, 85.5, 88.1, 89.6], 3.01, 1.55),
        ("SNIP", [91.0, 85.2, 92.6, 90.0, 90.5, 91.3, 92.6], 2.53, 0.93),
        ("WS", [82.9, 78.9, 87.2, 82.2, 82.2, 86.2, 88.3], 3.32, 2.00),
        ("GraSP", [87.5, 83.1, 89.6, 87.5, 88.0, 89.4, 90.9], 2.49, 0.93),
        ("FairGRAPE", [90.4, 85.4, 92.3, 90.1, 90.5, 91.9, 92.8], 2.47, 0.77),
    ],
    "FairFace race by gender": [
        ("No-pruning", [71.2, 72.9], 1.23, None),
        ("Lottery", [55.3, 59.1], 2.64, 1.42),
        ("SNIP", [60.4, 64.3], 2.78, 1.55),
        ("WS", [47.3, 48.5], 0.86, 0.36),
        ("GraSP", [56.0, 60.1], 2.88, 1.55),
        ("FairGRAPE", [65.3, 68.6], 2.35, 1.12),
    ],
    "FairFace race by race": [
        ("No-pruning", [73.9, 83.2, 59.6, 77.6, 66.9, 75.4, 66.2], 8.02, None),
        ("Lottery", [69.7, 78.8, 33.0, 74.1, 43.5, 61.7, 30.4], 20.0, 12.9),
        ("SNIP", [74.1, 80.8, 44.5, 73.7, 53.7, 66.0, 34.8], 17.1, 10.7),
        ("WS", [64.7, 77.9, 8.61, 78.3, 31.1, 37.8, 30.0], 26.9, 19.9),
        ("GraSP", [69.6, 77.3, 38.6, 72.0, 47.0, 62.1, 30.7], 18.0, 11.3),
        ("FairGRAPE", [72.2, 80.3, 47.5, 75.8, 56.3, 70.2, 48.6], 13.4, 6.13),
    ],
    "UTKFace gender by gender": [
        ("No-pruning", [92.4, 94.8], 1.68, None),
        ("Lottery", [83.7, 83.3], 0.34, 2.01),
        ("SNIP", [91.3, 90.6], 0.45, 2.19),
        ("WS", [81.4, 82.6], 0.89, 1.79),
        ("GraSP", [88.5, 84.9], 2.51, 4.20),
        ("FairGRAPE", [92.0, 92.5], 0.31, 1.36),
    ],
    "UTKFace gender by race": [
        ("No-pruning", [94.1, 95.1, 89.6, 93.7], 2.45, None),
        ("Lottery", [84.7, 85.8, 75.0, 85.2], 5.15, 2.79),
        ("SNIP", [91.9, 93.0, 86.0, 90.9], 3.08, 0.67),
        ("WS", [82.1, 84.9, 77.2, 82.4], 3.20, 0.92),
        ("GraSP", [86.7, 89.8, 81.4, 88.3], 3.66, 1.43),
        ("FairGRAPE", [92.7, 94.0, 87.9, 91.3], 2.61, 0.56),
    ],
    "UTKFace race by gender": [
        ("No-pruning", [90.6, 90.9], 0.24, None),
        ("Lottery", [69.4, 74.2], 3.41, 3.17),
        ("SNIP", [85.7, 88.0], 1.64, 1.40),
        ("WS", [68.3, 73.5], 3.68, 3.41),
        ("GraSP", [76.4, 79.1], 1.94, 1.70),
        ("FairGRAPE", [88.2, 89.3], 0.78, 0.54),
    ],
    "UTKFace race by race": [
        ("No-pruning", [92.2, 92.5, 93.3, 83.3], 4.69, None),
        ("Lottery", [83.8, 80.3, 61.0, 42.7], 19.0, 15.6),
        ("SNIP", [91.6, 92.5, 85.8, 70.1], 10.4, 6.28),
        ("WS", [82.7, 80.8, 59.2, 41.4], 19.6, 16.2),
        ("GraSP", [86.1, 83.3, 72.2, 56.4], 13.5, 9.81),
        ("FairGRAPE", [90.6, 92.2, 88.9, 79.0], 5.93, 2.04),
    ],
}
# Where the paper's rho(Delta) is not that of its own accuracies, and what those give.
CONTRADICTIONS = {
    ("FairFace race by gender", "GraSP"): 1.70,
    ("UTKFace gender by gender", "WS"): 0.85,
}


def counts_for(accuracies):
    """Confusion counts of 1,000 samples per group and point that have these accuracies."""
    right = np.rint(np.array(accuracies) * 1000).astype(int)
    return [np.stack([[[r, 100_000 - r], [0, 0]] for r in right])]


@pytest.mark.parametrize("block", TABLE_2)
def test_rho_columns_of_table_2_follow_from_its_accuracies(block):
    dense = counts_for(TABLE_2[block][0][1])
    for method, accuracies, rho_a, rho_d in TABLE_2[block]:
        counts = counts_for(accuracies)
        # Accuracies are rounded to 0.1 (0.05 each way), the three-digit rho to 0.1 as well.
        rounding = 0.05 if rho_a >= 10 else 0.0
        assert metrics.rho_accuracy(counts) == pytest.approx(rho_a, abs=0.075 + rounding), method
        if rho_d is None:
            continue
        rounding = 0.05 if rho_d >= 10 else 0.0
        ours = metrics.rho_change(counts, dense)
        if (block, method) in CONTRADICTIONS:
            assert ours == pytest.approx(CONTRADICTIONS[block, method], abs=0.005)
            assert abs(ours - rho_d) > 0.14
        else:
            assert ours == pytest.approx(rho_d, abs=0.145 + rounding), method


def predictions(seed=0, n=600, groups=3, classes=(2, 4)):
    rng = np.random.default_rng(seed)
    labels = np.stack([rng.integers(0, c, n) for c in classes], axis=1)
    guesses = np.stack([rng.integers(0, c, n) for c in classes], axis=1)
    predicted = np.where(rng.random(labels.shape) < 0.7, labels, guesses)
    return labels, predicted, rng.integers(0, groups, n), groups, classes


def test_counts_and_accuracies_are_those_of_plain_counting():
    labels, predicted, ids, groups, classes = predictions()
    counts = metrics.confusion(labels, predicted, ids, groups, classes)
    assert [table.dtype for table in counts] == [np.int64, np.int64]
    assert counts[1][2, 3, 1] == np.sum((ids == 2) & (labels[:, 1] == 3) & (predicted[:, 1] == 1))
    right = labels == predicted
    assert metrics.accuracy(counts) == pytest.approx(100 * right.mean())
    per_group = [100 * right[ids == k].mean() for k in range(groups)]
    np.testing.assert_allclose(metrics.group_accuracy(counts), per_group)
    assert metrics.worst_group(counts) == pytest.approx(min(per_group))
    assert metrics.gap(counts) == pytest.approx(max(per_group) - min(per_group))


def test_error_rates_of_two_classes_are_those_of_the_positive_one():
    counts = [np.array([[[90, 10], [30, 70]], [[50, 0], [0, 0]]])]
    assert metrics.fpr(counts) == pytest.approx(100 * 10 / 150)
    assert metrics.fnr(counts) == pytest.approx(30)
    np.testing.assert_allclose(metrics.group_fpr(counts), [10, 0])
    np.testing.assert_allclose(metrics.group_fnr(counts), [30, np.nan])


def test_rates_without_a_denominator_are_null_in_json():
    counts = [np.array([[[90, 10], [30, 70]], [[50, 0], [0, 0]]])]
    values = metrics.evaluate_all(counts, counts)
    assert values["group_fnr"] == [30.0, None]
    assert json.loads(json.dumps(values, allow_nan=False)) == values


def test_error_rates_of_many_classes_are_means_over_those_that_occur():
    table = np.array([[[8, 2, 0], [1, 9, 0], [0, 0, 0]]])
    np.testing.assert_allclose(metrics.group_fnr([table]), [(20 + 10) / 2])
    np.testing.assert_allclose(metrics.group_fpr([table]), [(10 + 20 + 0) / 3])


@pytest.mark.parametrize("name", metrics.METRICS)
def test_every_metric_is_finite_unchanged_by_scale_and_zero_change_against_itself(name):
    labels, predicted, ids, groups, classes = predictions()
    counts = metrics.confusion(labels, predicted, ids, groups, classes)
    value = np.asarray(metrics.METRICS[name](counts, counts))
    assert value.shape == ((groups,) if name.startswith("group_") else ())
    assert np.isfinite(value).all()
    twice = [2 * table for table in counts]
    np.testing.assert_allclose(metrics.METRICS[name](twice, twice), value)
    if "change" in name:
        np.testing.assert_array_equal(value, 0)
    perfect = metrics.confusion(labels, labels, ids, groups, classes)
    best = 100.0 if ("accuracy" in name and "rho" not in name) or name == "worst_group" else 0.0
    np.testing.assert_allclose(metrics.METRICS[name](perfect, perfect), best, atol=1e-12)


def test_the_bootstrap_of_an_accuracy_is_binomial():
    n, p = 400, 0.8
    labels = np.zeros((n, 1), int)
    predicted = (np.arange(n) >= p * n).astype(int)[None, :, None]
    ids = np.zeros(n, int)
    low, high = metrics.bootstrap(
        metrics.accuracy, labels, ids, predicted, predicted, [2], 1, replicates=2000
    )
    half = 196 * np.sqrt(p * (1 - p) / n)
    assert low == pytest.approx(100 * p - half, abs=0.5)
    assert high == pytest.approx(100 * p + half, abs=0.5)


def test_the_bootstrap_pairs_models_and_spreads_over_seeds():
    labels, predicted, ids, groups, classes = predictions()
    shift = [labels, predicted]
    same = metrics.bootstrap(
        metrics.group_change,
        labels,
        ids,
        np.stack([predicted, labels]),
        np.stack([predicted, labels]),
        classes,
        groups,
        replicates=50,
    )
    np.testing.assert_array_equal(same, 0)  # a model equals itself on any draw
    low, high = metrics.bootstrap(
        metrics.accuracy, labels, ids, np.stack(shift), np.stack(shift), classes, groups
    )
    assert high == pytest.approx(100)  # a draw of the perfect seed twice
    noisy = metrics.accuracy(metrics.confusion(labels, predicted, ids, groups, classes))
    assert low == pytest.approx(noisy, abs=3)  # and of the other one twice


def test_one_group_has_no_spread():
    assert np.isnan(metrics.rho([90.0]))
