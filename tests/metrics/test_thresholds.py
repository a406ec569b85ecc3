"""Thresholds of groups: counts on the split they are taken from, and a run's record of them."""

import dataclasses
import json

import numpy as np
import pytest

from fairgrape_jax.config import Stage
from fairgrape_jax.data import source
from fairgrape_jax.metrics import attributes, thresholds
from fairgrape_jax.runner.predictions import read_predictions
from fairgrape_jax.runner.run import run
from tests.helpers.datasets import GOLDEN_FILES
from tests.helpers.experiments import TINY


@pytest.mark.parametrize("sizes", [(1,), (5, 1), (40, 3, 0), (100, 100, 7, 1)])
def test_each_group_is_answered_yes_as_often_as_it_is(sizes):
    rng = np.random.default_rng(len(sizes))
    groups = np.append(np.repeat(np.arange(len(sizes)), sizes), [-1, -1])
    logits = rng.permutation(len(groups)) / 7 - 3
    labels = rng.integers(0, 2, len(groups))
    found = thresholds.group_thresholds(logits, labels, groups, len(sizes))
    answers = thresholds.decide(logits, groups, found)
    for group, size in enumerate(sizes):
        inside = groups == group
        assert answers[inside].sum() == labels[inside].sum()
        if not size:
            assert found[group] == 0
        elif 0 < labels[inside].sum() < size:
            one = attributes.calibrated_threshold(logits[inside], labels[inside] == 1)
            assert found[group] == one
    np.testing.assert_array_equal(answers[-2:], logits[-2:] > 0)


def test_answers_at_the_borders():
    logits, labels = np.array([-1e6, 2.0, 3.0, 1e6]), np.array([1, 1, 0, 0])
    groups = np.array([0, 0, 1, 1])
    found = thresholds.group_thresholds(logits, labels, groups, 2)
    assert found.tolist() == [-2e6, 2e6]  # all and none of them yes: beyond all logits
    answers = thresholds.decide(
        np.array([0.0, 0.5, -0.5, 0.5, 1.0, 1.0]),
        np.array([-1, 2, 3, -2, 0, 1]),  # the first four in no group: by 0
        np.array([1.0, 0.7]),
    )
    assert answers.tolist() == [0, 1, 0, 1, 0, 1]


def test_one_group_has_the_threshold_of_the_published_code():
    """Of an attribute, on the logits stored of it; theirs is the last one above ours."""
    golden = np.load(GOLDEN_FILES / "vision_bias.npz")
    samples = int(golden["n"][1])
    labels = np.unpackbits(golden["val_labels"], axis=0)[:samples]
    for attribute in (0, 7, 39):
        logits = golden["val_logits"][:, attribute].astype(np.float64)
        one = np.zeros(samples, int)
        found = thresholds.group_thresholds(logits, labels[:, attribute].astype(int), one, 1)[0]
        above = np.sort(logits[logits > found])
        np.testing.assert_allclose(above[0], golden["calibrated_threshold"][attribute], rtol=1e-6)


@pytest.mark.parametrize(("classes", "there"), [(2, True), (3, False)])
def test_a_run_records_them_apart_for_questions_of_yes_and_no(classes, there, tmp_path):
    data = source("synthetic", samples=300, groups=3, classes=classes, size=8, noise=1.5, seed=1)
    experiment = dataclasses.replace(
        TINY, data=data, seeds=(0,), methods=("magnitude",), sparsity=0.5, final=Stage()
    )
    run(experiment, tmp_path)
    stage = tmp_path / "seed_0/magnitude/round_01"
    record = json.loads((stage / "metrics.json").read_text())
    assert ("thresholds_by_group" in record) == there
    assert "thresholds" not in json.dumps(record["test"])
    if not there:
        return
    apart = record["thresholds_by_group"]
    assert apart["uses"] == "the group of each sample at test time"
    tested = read_predictions(
        stage / "predictions.csv", record["groups"], [(n, tuple(c)) for n, c in record["tasks"]]
    )
    limits = np.array(next(iter(apart["thresholds"].values())))
    answers = thresholds.decide(thresholds.logits_of(tested.scores), tested.groups, limits)
    right = answers == tested.labels[:, 0]
    assert apart["accuracy"] == pytest.approx(100 * right.mean())
    by_group = [100 * right[tested.groups == g].mean() for g in range(3)]
    assert apart["group_accuracy"] == pytest.approx(by_group)
    assert apart["worst_group"] == pytest.approx(min(by_group))
