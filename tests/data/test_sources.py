"""Datasets: shares and limits, options, checks, drawn pictures."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest

from fairgrape_jax import config, data
from fairgrape_jax.data.dataset import Dataset, Split
from fairgrape_jax.data.sources import utkface
from fairgrape_jax.data.sources.base import apportion, limit_split, with_share
from fairgrape_jax.errors import UsageError
from tests.helpers.datasets import ROOT, assert_same, split_of

# --- shares and limits


@pytest.mark.parametrize(
    ("counts", "share", "expected"),
    [
        ([950, 500], 0.05, [950, 50]),  # exact
        ([100, 100], 0.3, [100, 43]),  # 42.86 rounds to the nearest
        ([900, 10], 0.05, [190, 10]),  # too few members: others go
        ([5, 5], 0.001, [5, 1]),  # never none
    ],
)
def test_with_share_is_exact(counts, share, expected):
    split = split_of(counts)
    kept = with_share(split, 1, share, seed=3)
    np.testing.assert_array_equal(np.bincount(kept.groups), expected)
    assert np.all(np.diff(kept.labels[:, 0]) > 0), "samples stay in their order"
    np.testing.assert_array_equal(kept.labels, with_share(split, 1, share, seed=3).labels)


def test_with_share_among_many_groups_and_seeds():
    split = split_of([60, 40, 50])
    kept = with_share(split, 1, 0.5, seed=0)  # too few members for half: 40 of the others stay
    assert np.count_nonzero(kept.groups == 1) == 40
    assert len(kept) == 80
    other = with_share(split, 1, 0.5, seed=1)
    assert not np.array_equal(kept.labels, other.labels)


@pytest.mark.parametrize("group", [1, 2])
def test_with_share_needs_members_and_others(group):
    with pytest.raises(UsageError, match=f"group {group} has"):
        with_share(
            Split(*(np.ones((4, 1, 1, 1), np.uint8),) * 2, np.ones(4, np.int32)), group, 0.1, 0
        )


def test_limited_keeps_shares_and_every_group():
    split = split_of([600, 300, 97, 3])
    np.testing.assert_array_equal(np.bincount(limit_split(split, 100, 0).groups), [60, 30, 9, 1])
    np.testing.assert_array_equal(np.bincount(limit_split(split, 2, 0).groups), [1, 1, 1, 1])
    assert len(limit_split(split, 5000, 0)) == 1000
    kept = limit_split(split, 100, 7).labels[:, 0]
    assert np.all(np.diff(kept) > 0)
    np.testing.assert_array_equal(kept, limit_split(split, 100, 7).labels[:, 0])


def test_apportion_adds_up():
    rng = np.random.default_rng(0)
    for _ in range(200):
        weights = rng.integers(0, 50, 6) + np.eye(6, dtype=int)[0]
        total = int(rng.integers(6, weights.sum() + 6))
        counts = apportion(weights, total)
        assert counts.sum() == total
        np.testing.assert_array_equal(counts > 0, weights > 0)
        if total <= weights.sum():
            assert np.all(counts <= weights)


# --- options and the table


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label": "shape"}, "label='shape'.*known: class"),
        ({"group": "hair"}, "group='hair'.*known: group"),
        ({"minority": "group 9", "share": 0.1}, "minority='group 9'.*known: group 0"),
        ({"minority": "group 1"}, "share=0.0"),
        ({"minority": "group 1", "share": 1.0}, "share=1.0"),
        ({"share": 0.2}, "without a minority"),
        ({"limit": -1}, "limit=-1"),
        ({"limit_evaluation": -1}, "limit_evaluation=-1"),
        ({"size": -1}, "size=-1"),
        ({"seed": -1}, "seed=-1"),
        ({"path": "somewhere"}, "leave path empty"),
        ({"groups": 0}, "groups=0"),
        ({"noise": -1.0}, "noise=-1.0"),
        ({"imbalance": 2.0}, "imbalance=2.0"),
        ({"samples": 39}, "at least 40"),
    ],
)
def test_impossible_options_are_named(options, message):
    with pytest.raises(UsageError, match=message):
        data.load(data.source("synthetic", **options))


def test_unknown_dataset_and_option():
    with pytest.raises(UsageError, match=r"'celeba'.*writers, utkface, synthetic"):
        data.source("celeba")
    with pytest.raises(UsageError, match=r"no option 'colour'.*path"):
        data.source("writers", colour=3)
    with pytest.raises(UsageError, match="unknown"):
        data.load(data.Source())
    assert data.source("utkface", others=True) == utkface.UTKFace(others=True)
    assert all(kind.name == name for name, (kind, _) in data.SOURCES.items())


def test_data_needs_no_accelerator_library():
    code = (
        "import sys, fairgrape_jax.data.sources\n"
        "heavy = {'jax', 'tensorflow', 'tensorflow_datasets', 'matplotlib', 'PIL'}\n"
        "print(heavy & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


# --- check


def broken(**changes) -> Dataset:
    """A sound dataset but for the changes to its test split."""
    sound = data.load(data.source("synthetic", samples=100, groups=2, size=4))
    return dataclasses.replace(sound, test=dataclasses.replace(sound.test, **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"groups": np.zeros(10, np.int32)}, "test: no sample of group 'group 1'"),
        ({"groups": np.full(10, 2, np.int32)}, "test: group 2 is out of range"),
        ({"labels": np.full((10, 1), 4, np.int32)}, "test: label 4 of task 'class'.* 4 classes"),
        ({"labels": np.full((10, 1), -1, np.int32)}, "test: label -1"),
        ({"labels": np.zeros((9, 1), np.int32)}, "10 images, 9 labels and 10 groups"),
        ({"labels": np.zeros((10, 2), np.int32)}, r"give \(N, 1\)"),
        ({"images": np.zeros((10, 4, 4, 3), np.float32)}, "float32, give uint8"),
        ({"images": np.zeros((10, 4, 4), np.uint8)}, "shape"),
        ({"images": np.zeros((10, 5, 4, 3), np.uint8)}, "in train"),
        ({"names": np.array([b"a"] * 9)}, "9 names for 10 samples"),
    ],
)
def test_check_names_what_is_wrong(changes, message):
    with pytest.raises(UsageError, match=message):
        data.check(broken(**changes))


# --- synthetic


def test_synthetic_is_deterministic_and_complete():
    options = {"samples": 400, "groups": 5, "imbalance": 0.3, "tasks": 2, "channels": 1, "size": 12}
    dataset = data.load(data.source("synthetic", **options))
    assert_same(dataset, data.load(data.source("synthetic", **options)))
    assert [len(s) for s in (dataset.train, dataset.validation, dataset.test)] == [320, 40, 40]
    assert dataset.shape == (12, 12, 1)
    assert dataset.classes == (4, 4)
    assert len(dataset.mean) == 1
    assert np.bincount(dataset.test.groups).min() >= 1
    other = data.load(data.source("synthetic", **options, seed=1))
    assert not np.array_equal(dataset.train.images, other.train.images)


def test_synthetic_classes_can_be_learnt_and_groups_differ():
    dataset = data.load(data.source("synthetic", samples=5000, size=8, imbalance=1.0))

    def features(split: Split) -> np.ndarray:
        pixels = split.images.reshape(len(split), -1) / 64 - 2
        return np.c_[pixels, np.eye(4)[split.groups]]

    answers = np.eye(4)[dataset.train.labels[:, 0]]
    weights = np.linalg.lstsq(features(dataset.train), answers, rcond=None)[0]
    right = (features(dataset.test) @ weights).argmax(1) == dataset.test.labels[:, 0]
    rates = [right[dataset.test.groups == group].mean() for group in range(4)]
    assert rates[0] > 0.9
    assert 0.35 < rates[3] < rates[0] - 0.1


def test_share_and_limit_reach_the_training_split_alone():
    options = {"samples": 4000, "groups": 2, "imbalance": 1.0, "size": 4, "limit": 400}
    options |= {"minority": "group 1", "share": 0.1}
    dataset = data.load(data.source("synthetic", **options))
    np.testing.assert_array_equal(np.bincount(dataset.train.groups), [360, 40])
    for split in (dataset.validation, dataset.test):
        np.testing.assert_array_equal(np.bincount(split.groups), [200, 200])
    asked = data.load(data.source("synthetic", **options, limit_evaluation=50))
    np.testing.assert_array_equal(asked.train.labels, dataset.train.labels)
    for split in (asked.validation, asked.test):
        np.testing.assert_array_equal(np.bincount(split.groups), [25, 25])


def test_a_run_of_before_keeps_its_limit_of_validation_and_test(tmp_path):
    experiment = config.Experiment(data.source("writers", limit=1200), "mlp")
    values = config.to_dict(experiment)
    del values["data"]["limit_evaluation"]
    devices = {"kind": "cpu", "platform": "cpu", "count": 1}
    stored = {"experiment": values, "versions": {}, "devices": devices, "format": 2}
    (tmp_path / "config.json").write_text(json.dumps(stored))
    assert config.load(tmp_path / "config.json").data.limit_evaluation == 150
