"""`group_metrics` against plain counting, sample by sample."""

import dataclasses

import numpy as np
import pytest

from fairgrape_jax.metrics import extremes, resample
from fairgrape_jax.metrics.frame import group_metrics

RATES = ("accuracy", "fpr", "fnr", "f1")


def data(classes, n=150, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.choice(classes, n)
    guesses = [np.where(rng.random(n) < 0.6, labels, rng.choice(classes, n)) for _ in range(2)]
    groups = rng.choice(
        np.array(["west", "east", "north", None], object), n, p=[0.4, 0.3, 0.2, 0.1]
    )
    return labels, *guesses, groups


def plain_rates(labels, predictions, classes, positive):
    """Percent of each rate by counting in pure Python; of two classes that of the positive one."""
    pairs = list(zip(labels, predictions, strict=True))

    def share(part, whole):
        return 100 * len(part) / len(whole) if whole else np.nan

    values = {"accuracy": share([1 for y, p in pairs if y == p], pairs)}
    found = {name: [] for name in RATES[1:]}
    for one in [positive] if len(classes) == 2 else classes:
        others = [p for y, p in pairs if y != one]
        its = [p for y, p in pairs if y == one]
        found["fpr"].append(share([1 for p in others if p == one], others))
        found["fnr"].append(share([1 for p in its if p != one], its))
        both = len(its) + sum(p == one for _, p in pairs)
        if len(classes) == 2:
            values["selection_rate"] = share([1 for _, p in pairs if p == one], pairs)
        found["f1"].append(200 * sum(p == one for p in its) / both if both else np.nan)
    for name, values_of_classes in found.items():
        known = [v for v in values_of_classes if not np.isnan(v)]
        values[name] = sum(known) / len(known) if known else np.nan
    return values


@pytest.mark.parametrize(
    ("classes", "positive", "expected"),
    [
        ((0, 1), None, 1),
        ((0, 1), 0, 0),
        ((0, 1), 1, 1),
        (("yes", "no"), None, "yes"),  # the second in order
        (("yes", "no"), "no", "no"),
        ((3, 5, 9), None, None),
        (("a", "b", "c", "d"), None, None),
    ],
)
def test_rates_changes_and_counts_are_those_of_plain_counting(classes, positive, expected):
    labels, predictions, dense, groups = data(classes)
    result = group_metrics(labels, predictions, groups, dense, positive=positive, replicates=3)
    assert result.groups == ("east", "north", "west")
    assert set(result.classes) == set(classes)
    if expected is not None:
        assert result.classes[-1] == expected
    else:
        assert result.classes == tuple(sorted(classes))
    # Samples of no group count overall alone.
    overall = plain_rates(labels, predictions, classes, expected)
    assert {name: e.value for name, e in result.overall.items()} == pytest.approx(overall)
    before = plain_rates(labels, dense, classes, expected)
    assert {name: e.value for name, e in result.overall_changes.items()} == pytest.approx(
        {name: overall[name] - before[name] for name in overall}
    )
    assert result.ungrouped == sum(group is None for group in groups)
    for group in result.groups:
        its = groups == group
        assert result.counts[group] == its.sum()
        after = plain_rates(labels[its], predictions[its], classes, expected)
        before = plain_rates(labels[its], dense[its], classes, expected)
        assert {n: e.value for n, e in result.by_group[group].items()} == pytest.approx(after)
        changes = {name: after[name] - before[name] for name in after}
        assert {n: e.value for n, e in result.changes[group].items()} == pytest.approx(changes)
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.level = 0.5
    assert set(result.counts) == set(result.by_group) == set(result.changes) == set(result.groups)
    lowest = min(result.groups, key=lambda group: result.by_group[group]["accuracy"].value)
    assert result.worst[:2] == (lowest, result.by_group[lowest]["accuracy"].value)
    alone = group_metrics(labels, predictions, groups, replicates=3)
    assert (alone.changes, alone.overall_changes) == ({}, {})


def test_replicates_level_and_seed(monkeypatch):
    labels, predictions, dense, groups = data((0, 1), n=40)

    def ends(**keywords):
        return group_metrics(labels, predictions, groups, dense, **keywords)

    def draws(**keywords):
        return ends(**keywords).draws["changes"]

    assert draws().shape == (1000, 5, 3)
    assert draws(replicates=1).shape == (1, 5, 3)
    assert (ends().level, ends(replicates=2, level=0.5).level) == (0.95, 0.5)
    wide, narrow = ends(level=0.95).overall["accuracy"], ends(level=0.5).overall["accuracy"]
    assert wide == ends().overall["accuracy"]
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high
    np.testing.assert_array_equal(draws(), draws(seed=0))
    assert (draws() != draws(seed=1)).any()
    monkeypatch.setattr(resample, "MANY_KINDS", 3)
    assert draws().shape == (200, 5, 3)


@pytest.mark.parametrize("compared", [False, True])
def test_parity_and_the_worst_group_have_the_intervals_of_their_rates(compared):
    """Those of the same draws, whether another model is compared or not."""
    labels, predictions, dense, groups = data((0, 1), n=80)
    result = group_metrics(
        labels, predictions, groups, dense if compared else None, replicates=40, level=0.8
    )
    rates, draws = list(result.overall), result.draws["by_group"]
    values = np.array([[result.by_group[k][rate].value for k in result.groups] for rate in rates])
    worst = extremes.lowest(values[0], draws[:, 0], 0.8)
    assert worst[1] < result.worst.value < worst[2]
    assert (result.groups[worst[0]], *worst[1:]) == (result.worst.group, *result.worst[2:])
    if compared:  # the draws of parity are others: of fewer kinds of samples
        return
    selected, fpr, fnr = (rates.index(rate) for rate in ("selection_rate", "fpr", "fnr"))
    tables = {
        "demographic_parity": (values[[selected]], draws[:, [selected]]),
        "equalized_odds": tuple(
            np.stack([x[..., fpr, :], 100 - x[..., fnr, :]], axis=-2) for x in (values, draws)
        ),
    }
    for name, table in tables.items():
        for measure in ("difference", "ratio"):
            expected = extremes.between(*table, measure, 0.8)
            spread = result.parity[f"{name}_{measure}"]
            assert spread[:3] == pytest.approx(expected[:3])
            assert spread.low < spread.value < spread.high
            pair = result.groups[expected.largest], result.groups[expected.smallest]
            assert spread[3:] == pair


def test_parity_of_more_classes_is_that_of_the_class_where_groups_differ_most():
    """By hand: the first class's FPR is 50 % and 0 %, and it is predicted 9 and 8 times of 10."""
    labels = [0] * 8 + [1, 2]
    result = group_metrics(
        labels * 2, [0] * 8 + [0, 2] + [0] * 8 + [2, 2], ["a"] * 10 + ["b"] * 10, replicates=3
    )
    expected = {
        "demographic_parity_difference": (10, "a", "b"),
        "demographic_parity_ratio": (50, "b", "a"),  # of the last class, once and twice
        "equalized_odds_difference": (50, "a", "b"),
        "equalized_odds_ratio": (0, "a", "b"),
    }
    found = {name: (spread.value, *spread[3:]) for name, spread in result.parity.items()}
    assert found == {name: pytest.approx(value) for name, value in expected.items()}


def test_one_class_alone_is_the_negative_one_of_two():
    result = group_metrics(["no"] * 4, ["no"] * 4, ["a", "a", "b", "b"], replicates=3)
    assert result.classes == ("no", "(none)")
    values = {name: estimate.value for name, estimate in result.overall.items()}
    assert (values["accuracy"], values["fpr"], values["selection_rate"]) == (100, 0, 0)
    assert np.isnan(values["fnr"])
    assert result.parity["demographic_parity_difference"].value == 0
