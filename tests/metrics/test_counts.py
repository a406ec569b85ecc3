"""Counts by group and class, what is no code of either, and samples that models disagree on."""

import numpy as np
import pytest

from fairgrape_jax import metrics
from fairgrape_jax.metrics.bias import modal
from tests.helpers.made_predictions import predictions


def test_rates_of_a_class_against_the_rest():
    rng = np.random.default_rng(4)
    confusion = rng.integers(0, 9, (2, 5, 3, 3))
    found = metrics.class_metrics(metrics.from_confusion(confusion))
    assert set(found) == {"accuracy", "fpr", "fnr", "recall", "f1"}
    for i, j, c in np.ndindex(2, 5, 3):
        table = confusion[i, j]
        hit, missed, wrong = (
            table[c, c],
            table[c].sum() - table[c, c],
            table[:, c].sum() - table[c, c],
        )
        rest = table.sum() - hit - missed - wrong
        one = {name: values[i, j, c] for name, values in found.items()}
        assert one == pytest.approx(
            {
                "accuracy": 100 * (hit + rest) / table.sum(),
                "fpr": 100 * wrong / (wrong + rest),
                "fnr": 100 * missed / (hit + missed),
                "recall": 100 * hit / (hit + missed),
                "f1": 200 * hit / (2 * hit + missed + wrong),
            }
        )


def test_classes_and_groups_that_nobody_is_of_have_counts_of_zero():
    found = metrics.tally(np.zeros((2, 1), int), np.zeros((2, 1), int), np.zeros(2, int), 3, [4])[0]
    expected = np.zeros((3, 4, 3), int)
    expected[0, 0] = 2
    np.testing.assert_array_equal(found, expected)


def test_exemplars_by_both_rules():
    dense = np.array([[0, 0, 1, 1], [0, 2, 1, 1]])
    models = np.array([[1, 0, 1, 2], [2, 2, 1, 0]])
    np.testing.assert_array_equal(metrics.pies(models, dense), [1, 0, 0, 1])
    # The modal class of a tie is the lowest: (1, 2) -> 1, (0, 2) -> 0, 1, (2, 0) -> 0.
    np.testing.assert_array_equal(metrics.pies(models, dense, "modal"), [1, 0, 0, 1])
    np.testing.assert_array_equal(metrics.pies(models, dense[0]), [1, 0, 0, 1])
    with pytest.raises(ValueError, match="3 dense models for 2"):
        metrics.pies(models, dense[[0, 1, 1]])
    rng = np.random.default_rng(0)
    votes = rng.integers(0, 4, (5, 300))
    expected = [np.bincount(column, minlength=4).argmax() for column in votes.T]
    np.testing.assert_array_equal(metrics.pies(votes, np.array(expected), "modal"), False)


@pytest.mark.parametrize("name", ["labels", "predictions", "dense"])
@pytest.mark.parametrize("code", [-2, -1, 2, 4, 5, 999])
def test_a_class_that_there_is_not_is_an_error_wherever_it_is_counted(name, code):
    labels, predicted, ids, groups, classes = predictions(n=50)
    arrays = {"labels": labels, "predictions": predicted.copy(), "dense": predicted.copy()}
    arrays[name] = arrays[name].copy()
    task = int(code == 4)  # a class of the first task's number beyond its own, or the last's
    arrays[name][7, task] = code
    samples = metrics.Samples(arrays["labels"], ids, classes, groups)
    message = f"(labels|predictions): {code} is outside of the codes there are, class 0 to "
    if name != "dense":
        with pytest.raises(ValueError, match=message):
            samples.tally(arrays["predictions"][None])
    with pytest.raises(ValueError, match=message):
        metrics.replicate(
            metrics.each(metrics.accuracy), samples, arrays["predictions"][None],
            arrays["dense"][None], replicates=2,
        )  # fmt: skip


@pytest.mark.parametrize(("code", "fits"), [(-2, False), (-1, True), (2, True), (3, False)])
def test_a_group_that_there_is_not_is_an_error_but_for_none(code, fits):
    labels, predicted, ids, groups, classes = predictions(n=50)
    ids[3] = code
    if fits:
        counts = metrics.tally(labels, predicted, ids, groups, classes)
        assert len(counts[0]) == groups + (code < 0)
        return
    with pytest.raises(ValueError, match=f"groups: {code} .* group 0 to 2 .or -1 for none"):
        metrics.tally(labels, predicted, ids, groups, classes)


def test_no_samples_have_no_code_that_is_wrong_and_errors_name_what_is_allowed():
    none = np.zeros((0, 1), int), np.zeros((0, 1), int), np.zeros(0, int)
    for groups in (0, 2):
        (table,) = metrics.tally(*none, groups, [3])
        np.testing.assert_array_equal(table, np.zeros((groups, 3, 3), int))
    one = np.zeros((1, 1), int)
    with pytest.raises(ValueError, match=r"^labels: 5 is outside .* are, class 0 to 2$"):
        metrics.tally(one + 5, one, np.zeros(1, int), 1, [3])
    with pytest.raises(ValueError, match=r"^groups: 5 .*, group 0 to 1 \(or -1 for none\)$"):
        metrics.tally(one, one, np.full(1, 5), 2, [3])
    with pytest.raises(ValueError, match=r"^groups: 0 .*, no group \(or -1 for none\)$"):
        metrics.tally(one, one, np.zeros(1, int), 0, [3])


@pytest.mark.parametrize("shape", [(), (2,), (3, 2), (1, 4)])
def test_one_group_has_no_spread(shape):
    alone = metrics.rho(np.full((*shape, 1), 90.0))
    assert alone.shape == shape
    assert np.isnan(alone).all()
    np.testing.assert_array_equal(metrics.rho(np.full((*shape, 2), 90.0)), np.zeros(shape))


def test_a_group_without_a_rate_takes_no_part_in_the_odds():
    """By hand: group 2 has none of class 1, so neither FNR of it nor FPR of class 0."""
    table = np.array([[[6, 4], [0, 10]], [[9, 1], [5, 5]], [[10, 0], [0, 0]]])
    counts = [metrics.from_confusion(table)]
    # FPR of class 1 is 40, 10, 0; FNR 0, 50, none.
    assert metrics.equalized_odds_difference(counts) == pytest.approx(50)
    # How often class 1 is predicted: 14 and 6 of 20, 0 of 10.
    assert metrics.demographic_parity_difference(counts) == pytest.approx(70)
    assert metrics.equalized_odds_difference([np.zeros((2, 2, 3), int)]) == 0
    assert metrics.demographic_parity_difference([np.zeros((2, 2, 3), int)]) == 0


@pytest.mark.parametrize("groups", [1, 3])
def test_samples_of_no_group_are_one_more_row(groups):
    labels, predicted, ids, _, classes = predictions(groups=groups)
    some = np.where(np.arange(len(ids)) % 5 == 0, -1, ids)
    counts = metrics.tally(labels, predicted, some, groups, classes)
    apart = metrics.tally(labels, predicted, np.where(some < 0, groups, some), groups + 1, classes)
    for table, expected, size in zip(counts, apart, classes, strict=True):
        assert table.shape == (groups + 1, size, 3)
        np.testing.assert_array_equal(table, expected)
        assert table[-1, :, 1].sum() == (some < 0).sum() > 0
    # They count overall, and are no group.
    values = metrics.evaluate_all(counts, counts, groups)
    assert values["accuracy"] == pytest.approx(100 * (labels == predicted).mean())
    right = (labels == predicted)[some == 0].mean()
    assert values["group_accuracy"][0] == pytest.approx(100 * right)
    assert len(values["group_accuracy"]) == groups
    assert len(metrics.evaluate_all(counts, counts)["group_accuracy"]) == groups + 1


def test_exemplars_of_many_models_and_classes():
    """The mode by counting: of equally frequent classes the lowest."""
    rng = np.random.default_rng(2)
    for classes in (1, 2, 3, 12):
        for number in (1, 2, 4, 9):
            votes = rng.integers(0, classes, (number, 60))
            dense = rng.integers(0, classes, (2, 60))
            mode, before = (
                np.array([np.bincount(column).argmax() for column in x.T]) for x in (votes, dense)
            )
            np.testing.assert_array_equal(modal(votes), mode)
            expected = mode != before
            np.testing.assert_array_equal(metrics.pies(votes, dense, "modal"), expected)
            each = metrics.pies(votes, dense[0])
            np.testing.assert_array_equal(each, (votes != dense[0]).all(axis=0))
    assert metrics.pies(np.zeros((3, 0), int), np.zeros(0, int), "modal").shape == (0,)
