"""Bootstrap replicates: what is drawn, how often, and the intervals of it."""

import dataclasses
import itertools

import numpy as np
import pytest

from fairgrape_jax import metrics
from fairgrape_jax.metrics.resample import kinds
from tests.helpers.made_predictions import predictions


def test_whole_kinds_of_samples_are_drawn_as_samples_are():
    labels, predicted, ids, groups, classes = predictions(n=60)
    first, number = kinds(labels, ids, predicted[None], labels[None])
    assert number.sum() == 60
    rows = np.column_stack([ids, labels, predicted])
    expected, times = np.unique(rows, axis=0, return_counts=True)
    order = np.lexsort(rows[first].T[::-1])
    np.testing.assert_array_equal(rows[first][order], expected)
    np.testing.assert_array_equal(number[order], times)
    # The mean and variance over replicates of a group's accuracy are those of its binomial.
    samples = metrics.Samples(labels[:, :1], ids, classes[:1], groups)
    one = predicted[None, :, :1]
    draws = metrics.replicate(
        lambda counts, dense: metrics.group_accuracy(counts)[0], samples, one, one, replicates=4000
    )
    interval = metrics.interval(draws, 0.6826895)
    for k in range(groups):
        right = (labels == predicted)[ids == k, 0]
        spread = 100 * np.sqrt(right.mean() * (1 - right.mean()) / len(right))
        low, high = interval[:, k]
        assert (high - low) / 2 == pytest.approx(spread, rel=0.35)


@pytest.mark.parametrize("largest", [1, 2, 1000, 2**31, 2**32 - 1, 2**40])
def test_kinds_are_told_apart_whatever_the_numbers_of_classes(largest):
    """All combinations, some of them several times; products beyond 64 bits would fall together."""
    rows = np.array(list(itertools.product([0, 2], *[[0, largest]] * 6)))
    rows = np.repeat(rows, np.arange(len(rows)) % 3 + 1, axis=0)
    ids, labels, models, dense = rows[:, 0], rows[:, 1:3], rows[:, 3:5], rows[:, 5:]
    first, number = kinds(labels, ids, models[None], dense[None])
    expected, times = np.unique(rows, axis=0, return_counts=True)
    order = np.lexsort(rows[first].T[::-1])
    np.testing.assert_array_equal(rows[first][order], expected)
    np.testing.assert_array_equal(number[order], times)
    mixed = np.array([[0, 1], [1, 0], [1, 2], [2, 1], [2, 2], [0, 3]])  # a group of 3, a class of 4
    for one in (mixed, mixed[:, ::-1]):
        found, _ = kinds(one[:, 1:], one[:, 0], one[None, :, 1:], one[None, :, 1:])
        assert len(found) == len(one)


def test_many_classes_and_models_do_not_overflow_the_key():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 1000, (50, 1))
    models = rng.integers(0, 1000, (12, 50, 1))
    first, number = kinds(labels, np.zeros(50, int), models, models)
    assert len(first) == number.sum() == 50


def to_resample(n=30):
    """Samples, two models and their dense ones."""
    labels, predicted, ids, groups, classes = predictions(n=n)
    other = np.where(np.arange(n)[:, None] % 3 == 0, labels, predicted)
    samples = metrics.Samples(labels, ids, classes, groups)
    return samples, np.stack([predicted, other]), np.stack([labels, predicted])


@pytest.mark.parametrize("ungrouped", [0, 5])
def test_the_counts_of_several_models_are_those_of_each(ungrouped):
    samples, models, _ = to_resample()
    groups = np.where(np.arange(30) < ungrouped, -1, samples.groups)
    samples = dataclasses.replace(samples, groups=groups)
    rows, strata = samples.strata
    assert strata == samples.num_groups + (ungrouped > 0)
    np.testing.assert_array_equal(rows, np.where(groups < 0, samples.num_groups, groups))
    expected = [
        metrics.tally(samples.labels, m, groups, samples.num_groups, samples.classes)
        for m in models
    ]
    for task, table in enumerate(samples.tally(models)):
        np.testing.assert_array_equal(table, np.stack([one[task] for one in expected]))
    with pytest.raises(dataclasses.FrozenInstanceError):
        samples.groups = None


def drawn_counts(*data, **keywords):
    """The counts of every replicate, in the order drawn: pairs of tables, before and after."""
    drawn = []

    def keep(counts, dense):
        drawn.append((counts, dense))
        return counts[0][0, :, 0, 0, 0].astype(float)

    values = metrics.replicate(keep, *data, **keywords)
    assert len(values) == sum(tables[0].shape[1] for tables, _ in drawn)
    return drawn


@pytest.mark.parametrize("n", [3, 30, 400])  # each sample a kind of its own, and kinds of many
@pytest.mark.parametrize("chunk", [1, 1000, 4_000_000])
def test_a_replicate_is_as_many_samples_of_each_group_for_all_models(monkeypatch, n, chunk):
    monkeypatch.setattr("fairgrape_jax.metrics.resample.CHUNK", chunk)
    samples, models, dense = to_resample(n)
    classes, groups = samples.classes, samples.num_groups
    sizes = np.bincount(samples.groups, minlength=groups)
    count = 0
    for tables, before in drawn_counts(samples, models, dense, replicates=25):
        assert [t.shape[2:] for t in tables] == [(groups, c, 3) for c in classes]
        count += tables[0].shape[1]
        numbers = 2 * len(models) * groups * 3 * sum(classes)
        assert tables[0].shape[1] <= max(1, chunk // numbers)
        for table, old in zip(tables, before, strict=True):
            # Labels and predictions of a group are as many as there are samples in it.
            np.testing.assert_array_equal(
                table[..., 1].sum(-1), np.broadcast_to(sizes, table.shape[:3])
            )
            np.testing.assert_array_equal(table[..., 2].sum(-1), table[..., 1].sum(-1))
            # The same draw for all models, before and after.
            np.testing.assert_array_equal(table[..., 1], old[..., 1])
            np.testing.assert_array_equal(table[0, ..., 1], table[-1, ..., 1])
            # Hits are no more than what is labelled, or predicted, so.
            assert (table[..., 0] <= np.minimum(table[..., 1], table[..., 2])).all()
    assert count == 25


def test_replicates_spread_as_samples_do_and_average_to_the_data():
    samples, models, dense = to_resample(400)
    drawn = drawn_counts(samples, models, dense, replicates=600)
    classes, exact = samples.classes, list(zip(*samples.tally(models), strict=True))
    for task in range(len(classes)):
        table = np.concatenate([tables[task] for tables, _ in drawn], axis=1)  # (S, R, G, C, 3)
        both = (exact[0][task] + exact[1][task]) / 2
        spread = np.sqrt(both.max() / 600)
        np.testing.assert_allclose(table.mean(axis=(0, 1)), both, atol=6 * spread + 0.5)
        # Labelled so: binomial within a group.
        size, labelled = exact[0][task][..., 1].sum(-1, keepdims=True), exact[0][task][..., 1]
        expected = labelled * (1 - labelled / size)
        np.testing.assert_allclose(table[0, ..., 1].var(axis=0), expected, rtol=0.4)


def test_an_interval_holds_its_share_of_the_replicates():
    def statistic(counts, dense):
        return counts[0].mean(axis=0)

    def draws(**keywords):
        return metrics.replicate(statistic, *to_resample(), **keywords)

    values = draws(replicates=9)
    np.testing.assert_array_equal(values, draws(replicates=9, seed=0))
    assert (values != draws(replicates=9, seed=1)).any()
    for level in (0.5, 0.95):
        tail = 50 * (1 - level)
        expected = np.percentile(values, [tail, 100 - tail], axis=0)
        np.testing.assert_allclose(metrics.interval(values, level), expected)
    assert metrics.interval(np.arange(1001.0)) == pytest.approx(np.array([25, 975]))
    undefined = metrics.interval(np.array([[np.nan, 1.0], [np.nan, np.nan], [np.nan, 3.0]]), 0.5)
    np.testing.assert_array_equal(undefined, [[np.nan, 1.5], [np.nan, 2.5]])


@pytest.mark.parametrize(("more", "expected"), [(0, 1000), (1, 1000), (-1, 200)])
def test_fewer_replicates_of_very_many_kinds(monkeypatch, more, expected):
    samples, models, dense = to_resample()
    number = len(kinds(samples.labels, samples.groups, models, dense)[0])
    monkeypatch.setattr("fairgrape_jax.metrics.resample.MANY_KINDS", number + more)
    accuracy = metrics.each(metrics.accuracy)
    assert len(metrics.replicate(accuracy, samples, models, dense)) == expected
    assert len(metrics.replicate(accuracy, samples, models, dense, replicates=300)) == 300


@pytest.mark.parametrize("times", [1, 9])  # drawn one by one, and as whole kinds
def test_samples_and_models_are_drawn_evenly_and_groups_may_be_empty(times):
    """Two kinds of samples in group 1, of which one is a hit of the first model."""
    labels = np.repeat([[0], [1]], times, axis=0)
    models = np.stack([np.zeros_like(labels), np.full_like(labels, 2)])  # never right
    samples = metrics.Samples(labels, np.ones(2 * times, int), [3], 3)
    drawn = drawn_counts(samples, models, models, replicates=4000)
    tables = np.concatenate([after[0] for after, _ in drawn], axis=1)
    assert not tables[:, :, [0, 2]].any()
    # Each of both places is of the first model half of the time, and then half of it are hits.
    first = (tables[..., 1, 0, 2] > 0).mean(axis=1)
    np.testing.assert_allclose(first, 0.5, atol=0.04)
    hits = tables[..., 1, :, 0].sum(axis=-1)
    assert hits.mean() == pytest.approx(0.5 * times, rel=0.06)
    np.testing.assert_allclose(tables[..., 1, :, 1].mean(axis=(0, 1)), [times, times, 0], rtol=0.04)


def test_the_bootstrap_of_an_accuracy_is_binomial():
    n, p = 400, 0.8
    predicted = (np.arange(n) >= p * n).astype(int)[None, :, None]
    samples = metrics.Samples(np.zeros((n, 1), int), np.zeros(n, int), [2], 1)
    draws = metrics.replicate(
        metrics.each(metrics.accuracy), samples, predicted, predicted, replicates=2000
    )
    low, high = metrics.interval(draws)
    half = 196 * np.sqrt(p * (1 - p) / n)
    assert low == pytest.approx(100 * p - half, abs=0.5)
    assert high == pytest.approx(100 * p + half, abs=0.5)


def test_the_bootstrap_pairs_models_and_spreads_over_seeds():
    labels, predicted, ids, groups, classes = predictions()
    samples = metrics.Samples(labels, ids, classes, groups)
    models = np.stack([predicted, labels])
    change = metrics.each(metrics.group_change)
    same = metrics.replicate(change, samples, models, models, replicates=50)
    assert same.shape == (50, groups)
    np.testing.assert_array_equal(same, 0)  # a model equals itself on any draw
    models = np.stack([labels, predicted])
    draws = metrics.replicate(metrics.each(metrics.accuracy), samples, models, models)
    low, high = metrics.interval(draws)
    assert high == pytest.approx(100)  # a draw of the perfect seed twice
    noisy = metrics.accuracy(metrics.tally(labels, predicted, ids, groups, classes))
    assert low == pytest.approx(noisy, abs=3)  # and of the other one twice
