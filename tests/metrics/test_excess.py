"""Excess losses, classes apart and gaps that grow, from their definitions sample by sample."""

import numpy as np
import pytest

from fairgrape_jax import metrics


def hits(labels, predicted):
    return 100 * (labels == predicted)


@pytest.fixture(scope="module")
def samples():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 600)
    groups = rng.choice(3, 600, p=(0.7, 0.2, 0.1))
    dense = np.where(rng.random(600) < 0.9 - 0.1 * groups, labels, rng.integers(0, 4, 600))
    pruned = np.where(rng.random(600) < 0.8 - 0.2 * groups, labels, rng.integers(0, 4, 600))
    return labels, groups, dense, pruned


def both(samples):
    labels, groups, dense, pruned = samples
    return [
        metrics.tally(labels[:, None], answers[:, None], groups, 3, [4])
        for answers in (pruned, dense)
    ]


def test_excess_is_a_groups_loss_beyond_that_of_all(samples):
    labels, groups, dense, pruned = samples
    loss = hits(labels, dense) - hits(labels, pruned)
    psi = [loss[groups == k].mean() - loss.mean() for k in range(3)]
    counts = both(samples)
    np.testing.assert_allclose(metrics.METRICS["group_excess"](*counts), psi)
    np.testing.assert_allclose(metrics.METRICS["excess_gap"](*counts), max(psi))
    np.testing.assert_allclose(metrics.METRICS["pairwise_gap"](*counts), max(psi) - min(psi))


def test_a_group_that_gains_is_not_punished():
    """Unlike the spread of changes, which is as large whichever way they go."""
    labels = np.zeros(40, int)
    groups = np.arange(40) % 2
    dense = np.where((groups == 1) & (np.arange(40) < 20), 1, 0)
    counts = [
        metrics.tally(labels[:, None], each[:, None], groups, 2, [2]) for each in (labels, dense)
    ]
    assert metrics.METRICS["group_change"](*counts).tolist() == [0, 50]
    assert metrics.METRICS["excess_gap"](*counts) == 25
    swapped = counts[::-1]
    assert metrics.METRICS["group_excess"](*swapped).tolist() == [-25, 25]


def test_classes_apart(samples):
    labels, _, _, pruned = samples
    recall = [hits(labels, pruned)[labels == c].mean() for c in range(4)]
    counts = both(samples)
    np.testing.assert_allclose(metrics.METRICS["class_variance"](*counts), np.var(recall))
    np.testing.assert_allclose(metrics.METRICS["class_discrepancy"](*counts), np.ptp(recall))


@pytest.mark.parametrize("name", ["intensification", "intensification_classes"])
def test_intensification_is_the_slope_of_the_balances(samples, name):
    labels, groups, dense, pruned = samples
    units = groups if name == "intensification" else labels

    def balance(answers):
        right = hits(labels, answers)
        return np.array([right[units == u].mean() / right.mean() - 1 for u in np.unique(units)])

    before, after = balance(dense), balance(pruned)
    slope = np.linalg.lstsq(before[:, None], after)[0][0]
    np.testing.assert_allclose(metrics.METRICS[name](*both(samples)), slope)


def test_an_even_model_has_no_intensification_whatever_the_rounding():
    labels = np.zeros(21, int)
    answers = (np.arange(21) % 3 == 0).astype(int)
    groups = np.arange(21) // 3
    even = metrics.tally(labels[:, None], answers[:, None], groups, 7, [2])
    assert np.isnan(metrics.METRICS["intensification"](even, even))


def test_a_class_without_samples_stays_out_of_the_slope():
    dense = np.array([[[8, 2, 0], [1, 9, 0], [0, 0, 0]]])
    pruned = np.array([[[5, 5, 0], [2, 8, 0], [0, 0, 0]]])
    with_it, without = (
        [[metrics.from_confusion(each[:, :size, :size])] for each in (pruned, dense)]
        for size in (3, 2)
    )
    measure = metrics.METRICS["intensification_classes"]
    assert measure(*with_it) == pytest.approx(measure(*without))


def of_groups(*right, size):
    """The counts of groups of `size` samples of one class, so many right."""
    return [metrics.from_confusion(np.array([[[k, size - k], [0, 0]] for k in right]))]


def test_the_slope_of_small_differences_and_of_low_accuracies():
    measure = metrics.METRICS["intensification"]
    small = 10**6  # balances of 5e-7, far above rounding
    before, after = of_groups(small, small - 1, size=small), of_groups(small, small - 3, size=small)
    assert measure(after, before) == pytest.approx(3, rel=1e-3)
    rounding = 10**10  # balances of 5e-11
    even = of_groups(rounding, rounding - 1, size=rounding)
    assert np.isnan(measure(even, even))
    low = of_groups(1, 3, size=1000)  # 0.2 % right in all
    assert measure(low, low) == pytest.approx(1)
    assert np.isnan(measure(of_groups(0, 0, size=9), low))


def test_tables_of_other_numbers_of_tasks_are_refused():
    one = of_groups(1, 2, size=4)
    with pytest.raises(ValueError, match="argument"):
        metrics.METRICS["intensification_classes"](one * 2, one)
