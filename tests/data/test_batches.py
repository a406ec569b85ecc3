"""The order of samples, padding, and micro-batches of one group."""

from __future__ import annotations

import numpy as np
import pytest

from fairgrape_jax.data.batches import (
    epoch_order,
    group_batches,
    padded_batches,
    steps_per_epoch,
    train_batches,
)
from fairgrape_jax.data.dataset import Split
from fairgrape_jax.errors import UsageError
from tests.helpers.datasets import split_of


def test_train_batches_follow_seed_epoch_and_step():
    split = split_of([7, 4])
    batches = list(train_batches(split, 4, seed=1, epoch=2))
    assert len(batches) == steps_per_epoch(11, 4) == 2
    order = epoch_order(11, seed=1, epoch=2)
    seen = np.concatenate([batch["labels"][:, 0] for batch in batches])
    np.testing.assert_array_equal(seen, order[:8])
    assert batches[0]["images"].dtype == np.uint8
    resumed = list(train_batches(split, 4, seed=1, epoch=2, start=1))
    np.testing.assert_array_equal(resumed[0]["labels"], batches[1]["labels"])
    assert len(resumed) == 1
    assert not np.array_equal(order, epoch_order(11, seed=1, epoch=3))


def test_epochs_in_one_go_are_the_epochs_one_by_one():
    split = split_of([7, 4])
    each = [list(train_batches(split, 4, seed=1, epoch=e)) for e in (2, 3, 4)]
    together = train_batches(split, 4, seed=1, epoch=2, start=1, epochs=3)
    for one, other in zip(together, [b for batches in each for b in batches][1:], strict=True):
        np.testing.assert_array_equal(one["ids"], other["ids"])
    assert list(train_batches(split, 4, seed=1, epoch=2, epochs=0)) == []


@pytest.mark.parametrize("parts", [2, 4])
def test_the_parts_of_processes_make_up_every_batch(parts):
    split = split_of([9, 4])
    for batches in (
        lambda part: train_batches(split, 8, seed=1, epoch=2, part=part),
        lambda part: padded_batches(split, 8, part),
    ):
        whole = list(batches((0, 1)))
        each = [list(batches((which, parts))) for which in range(parts)]
        assert {len(batches) for batches in each} == {len(whole)}  # as many calls everywhere
        for step, batch in enumerate(whole):
            for key, expected in batch.items():
                joined = np.concatenate([mine[step][key] for mine in each])
                assert len({len(mine[step][key]) for mine in each}) == 1
                np.testing.assert_array_equal(joined, expected)


def test_a_small_split_fills_one_batch():
    (batch,) = train_batches(split_of([3]), 8, seed=0, epoch=0)
    assert len(batch["images"]) == 8
    assert set(batch["labels"][:, 0]) == {0, 1, 2}


def test_padded_batches_hold_every_sample_once():
    split = split_of([6, 3])
    batches = list(padded_batches(split, 4))
    assert [len(batch["images"]) for batch in batches] == [4, 4, 4]
    whole = {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}
    np.testing.assert_array_equal(whole["labels"][whole["valid"]], split.labels)
    np.testing.assert_array_equal(whole["groups"][whole["valid"]], split.groups)
    assert np.all(whole["labels"][~whole["valid"]] == 0)


def test_group_batches_are_pure_and_complete():
    split = split_of([100, 37, 5])
    indices, valid, group = group_batches(split, 0.5, 8, 3, seed=0)
    assert indices.shape == valid.shape == (7 + 3 + 1, 8)
    np.testing.assert_array_equal(split.groups[indices], np.repeat(group[:, None], 8, axis=1))
    drawn = indices[valid]
    assert len(np.unique(drawn)) == len(drawn)
    np.testing.assert_array_equal(np.bincount(split.groups[drawn]), [50, 19, 3])
    again = group_batches(split, 0.5, 8, 3, seed=0)
    np.testing.assert_array_equal(indices, again.indices)
    # Any stretch has nearly the mix of the whole: never off by more than one micro-batch.
    for i in range(len(group)):
        assert np.all(
            np.abs(np.bincount(group[:i], minlength=3) - i / 11 * np.array([7, 3, 1])) <= 1
        )


def test_ungrouped_batches_draw_the_same_samples():
    split = split_of([100, 37, 5])
    indices, valid, _ = group_batches(split, 0.3, 8, 3, seed=4)
    mixed = group_batches(split, 0.3, 8, 3, seed=4, over="all")
    assert set(mixed.indices[mixed.valid]) == set(indices[valid])
    assert not mixed.group.any()
    assert len(mixed.group) == -(-44 // 8)
    assert len(np.unique(split.groups[mixed.indices[0]])) > 1


def test_group_batches_round_up_but_not_by_floating_point():
    split = split_of([100, 10])
    drawn = group_batches(split, 0.07, 1, 3, seed=0)  # the third group has no samples
    np.testing.assert_array_equal(np.bincount(drawn.group), [7, 1])
    everything = group_batches(split, 1.0, 64, 2, seed=0)
    assert np.count_nonzero(everything.valid) == 110


@pytest.mark.parametrize(("fraction", "size"), [(0.0, 8), (1.5, 8), (0.5, 0)])
def test_group_batches_need_a_fraction_and_a_size(fraction, size):
    with pytest.raises(UsageError, match=r"fraction=|size="):
        group_batches(split_of([4]), fraction, size, 1, seed=0)


@pytest.mark.parametrize("over", ["all", (0, 2)])
def test_a_number_of_samples_stands_for_the_fraction(over):
    split = labelled(90)
    plan = group_batches(split, 0.3, 8, 3, seed=4, over=over, samples=20)
    chosen = plan.indices[plan.valid]
    assert len(set(chosen)) == len(chosen) == 20
    assert set(split.groups[chosen]) <= set(range(3) if over == "all" else over)


@pytest.mark.parametrize(("samples", "each"), [(0, 6), (4, 4), (50, 10)])
def test_classes_are_balanced_and_no_more_than_the_rarest(samples, each):
    split = labelled(90)  # 10 of class 0, 80 of class 1
    plan = group_batches(split, 0.12, 8, 3, seed=4, over="classes", samples=samples)
    chosen = plan.indices[plan.valid]
    assert np.bincount(split.labels[chosen, 0]).tolist() == [each, each]
    assert not plan.group.any()


def labelled(n):
    labels = (np.arange(n)[:, None] >= 10).astype(np.int32)
    return Split(np.zeros((n, 1, 1, 1), np.uint8), labels, np.arange(n, dtype=np.int32) % 3)
