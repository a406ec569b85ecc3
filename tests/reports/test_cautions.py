"""What a reader is warned of: collapsed models, and which group cannot be said to lose more."""

import numpy as np
import pytest

from fairgrape_jax.metrics.samples import Samples
from fairgrape_jax.reports.cautions import (
    cautions,
    cautions_alone,
    collect,
    findings,
    findings_alone,
    gravest,
    lines_of,
)
from fairgrape_jax.reports.collapse import Gravity
from fairgrape_jax.reports.comparison import compare

GROUPS = ("a", "b")


def compared(labels, groups, models, dense, classes=2, names=GROUPS):
    """One comparison of models (S, N) or (N,), and its cautions and findings."""
    models, dense = np.atleast_2d(models)[..., None], np.atleast_2d(dense)[..., None]
    samples = Samples(labels[:, None], groups, [classes], len(names))
    one = compare("m", samples, models, np.broadcast_to(dense, models.shape), replicates=400)
    tasks = [("label", [f"c{i}" for i in range(classes)])]
    return one, cautions([one], names, tasks), findings([one], names)


def uneven(count=600, share=0.7, seed=0):
    rng = np.random.default_rng(seed)
    labels = (rng.random(count) < share).astype(int)
    return rng, labels, np.arange(count) % 2


def noisy(rng, labels, right):
    return np.where(rng.random(len(labels)) < right, labels, 1 - labels)


def test_one_class_for_everybody_is_said_whatever_parity_is():
    rng, labels, groups = uneven()
    one, lines, _ = compared(labels, groups, np.ones_like(labels), noisy(rng, labels, 0.9))
    assert one.mean["demographic_parity_difference"][0] == 0
    assert one.high["demographic_parity_difference"][0] == 0
    assert any(line.startswith("m: says one class for everyone: c1.") for line in lines)
    assert any("m: is not shown to be more often right than who always says" in x for x in lines)
    assert not any(line.startswith("dense: ") for line in lines)


def test_a_collapsed_dense_model_is_said():
    rng, labels, groups = uneven()
    _, lines, _ = compared(labels, groups, noisy(rng, labels, 0.9), np.zeros_like(labels))
    assert any(line.startswith("dense: says one class for everyone: c0.") for line in lines)
    assert any(line.startswith("dense: is not shown to be more often right") for line in lines)
    assert not any(line.startswith("m: says one class") for line in lines)


def test_one_class_for_a_group_and_by_some_models_only():
    rng, labels, groups = uneven()
    good = noisy(rng, labels, 0.95)
    half = np.where(groups == 1, 1, good)
    _, lines, _ = compared(labels, groups, [half, good], good)
    assert any("says one class for everyone in a group (b: c1 (1 of 2 models))" in x for x in lines)
    _, lines, _ = compared(labels, groups, [good, np.ones_like(labels)], good)
    assert any("says one class for everyone: c1 (1 of 2 models)" in line for line in lines)


def test_no_better_than_the_majority_in_a_group():
    rng, labels, groups = uneven()
    labels = np.where(groups == 1, rng.random(len(labels)) < 0.95, rng.random(len(labels)) < 0.5)
    labels = labels.astype(int)
    model = np.where(groups == 1, noisy(rng, labels, 0.9), noisy(rng, labels, 0.95))
    _, lines, _ = compared(labels, groups, model, noisy(rng, labels, 0.99))
    (line,) = [x for x in lines if x.startswith("m: ") and "most frequent class of a group" in x]
    assert "(b: -" in line
    assert "against always c1" in line
    assert "a: " not in line.split("(", 1)[1]


def test_groups_of_one_label_are_no_collapse():
    """Classes as groups: a perfect model says one class for each."""
    rng, labels, _ = uneven()
    _, lines, _ = compared(labels, labels, noisy(rng, labels, 0.9), labels)
    assert not any("one class" in line or "most frequent" in line for line in lines)
    _, lines, _ = compared(labels, np.arange(len(labels)) % 2, labels, labels)
    assert not any("one class" in line or "most frequent" in line for line in lines)


def test_overlapping_intervals_do_not_hide_a_difference():
    """Each group's interval holds the other's nearer end, and yet the samples tell them apart."""
    rng = np.random.default_rng(1)
    groups = np.arange(140) % 2
    labels = rng.integers(0, 2, 140)
    dense = noisy(rng, labels, 0.8)
    model = np.where(groups == 1, noisy(rng, dense, 0.7), noisy(rng, dense, 0.87))
    one, lines, told = compared(labels, groups, model, dense)
    low, high = one.low["group_change"], one.high["group_change"]
    worst, best = np.argmin(one.mean["group_change"]), np.argmax(one.mean["group_change"])
    assert high[worst] > low[best]  # they overlap
    difference = one.draws["group_change"][:, best] - one.draws["group_change"][:, worst]
    assert np.percentile(difference, 2.5) > 0  # and the paired bootstrap says otherwise
    assert not any("do not tell" in line for line in lines)
    assert told[0].startswith(
        f"m: the loss is largest for {GROUPS[worst]} and smallest for {GROUPS[best]}; the diff"
    )


def test_what_the_samples_do_not_tell_is_said():
    rng, labels, groups = uneven(seed=1)
    _, lines, told = compared(labels, groups, noisy(rng, labels, 0.9), noisy(rng, labels, 0.92))
    assert any("do not tell which of the two loses more" in line for line in lines)
    assert not told


def test_models_alone():
    rng, labels, groups = uneven()
    model = np.where(groups == 1, noisy(rng, labels, 0.8), noisy(rng, labels, 0.99))
    one, _, _ = compared(labels, groups, model, model)
    assert findings_alone(one, GROUPS)[0].startswith(
        "m: accuracy is highest for a and lowest for b;"
    )
    assert cautions_alone(one, GROUPS, [("label", ["x", "y"])]) == []
    one, _, _ = compared(labels, groups, np.ones_like(labels), np.ones_like(labels))
    lines = cautions_alone(one, GROUPS, [("label", ["x", "y"])])
    assert any("says one class for everyone: y" in line for line in lines)


@pytest.mark.parametrize("tasks", [1, 2])
def test_the_task_is_named_where_there_are_several(tasks):
    _, labels, groups = uneven()
    both = np.stack([labels, 1 - labels][:tasks], axis=1)
    model = both.copy()
    model[:, -1] = 0
    samples = Samples(both, groups, [2] * tasks, 2)
    one = compare("m", samples, model[None], both[None], replicates=50)
    names = [("mood", ["x", "y"]), ("age", ["young", "old"])][:tasks]
    lines = [x for x in cautions([one], GROUPS, names) if "for everyone" in x]
    expected = "m: says one class for everyone: x." if tasks == 1 else (
        "m: says one class for everyone, task age: young."
    )  # fmt: skip
    assert len(lines) == 1
    assert lines[0].startswith(expected)


def test_each_is_said_once_and_the_gravest_first():
    rng, labels, groups = uneven(count=160)
    ones, good = np.ones((1, len(labels), 1), int), noisy(rng, labels, 0.95)[None, :, None]
    samples = Samples(labels[:, None], groups, [2], 2)
    sets = [
        compare(name, samples, model, good, replicates=100)
        for name, model in (("m", ones), ("good", good), ("n", ones))
    ]
    found = collect(sets, GROUPS, [("label", ["x", "y"])])
    assert [one.gravity for one in found] == sorted(one.gravity for one in found)
    lines = lines_of(found)
    assert len(set(lines)) == len(lines)
    assert lines[0].startswith("m, n: says one class for everyone: y.")
    assert sum("Group a has 80 samples" in line for line in lines) == 1
    assert gravest(found).startswith("m, n: says one class for everyone: y.")
    assert gravest([one for one in found if one.gravity > Gravity.IN_A_GROUP]) == ""
    assert gravest(collect(sets[:1], GROUPS, [("label", ["x", "y"])])).startswith(
        "m says one class"
    )
