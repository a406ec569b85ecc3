"""How micro-batches are shared out, summed without drift, and what memory the sums take."""

import dataclasses
import math

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairgrape_jax import parallel, scoring
from fairgrape_jax.config import Experiment, Scoring
from fairgrape_jax.data import batches, load, source
from fairgrape_jax.scoring.statistics import SQUARES, ScoredNetwork
from fairgrape_jax.training import Carry
from tests.helpers.experiments import opened

SIZE = 16


@settings(max_examples=200, deadline=None)
@given(
    counts=st.lists(st.integers(0, 200), min_size=1, max_size=9).filter(any),
    devices=st.integers(1, 9),
    slots=st.integers(1, 4),
    shard=st.booleans(),
)
def test_every_micro_batch_goes_once_to_a_row_of_its_group(counts, devices, slots, shard):
    groups = len(counts)
    group = np.random.default_rng(0).permutation(np.repeat(np.arange(groups), counts))
    found = scoring.assign_micro_batches(group, groups, devices, slots, shard=shard)
    assert found.groups.shape == (devices, math.ceil(groups / devices) if shard else groups)
    real = found.order >= 0
    np.testing.assert_array_equal(np.sort(found.order[real]), np.arange(len(group)))
    device = np.broadcast_to(np.arange(devices)[:, None], real.shape)
    held = found.groups[device[real], found.row[real]]
    np.testing.assert_array_equal(held, group[found.order[real]])
    for d in range(devices):
        mine = real[:, d].ravel()
        row, start, end = (x[:, d].ravel()[mine] for x in (found.row, found.start, found.end))
        block = np.cumsum(start)
        assert start.sum() == end.sum()
        for number in range(1, start.sum() + 1):
            inside = block == number
            assert len(set(row[inside])) == 1
            assert inside.sum() <= scoring.BLOCK
            np.testing.assert_array_equal(end[inside], np.arange(inside.sum()) == inside.sum() - 1)
        assert not np.any((found.start | found.end)[:, d].ravel()[~mine])
    if not shard:
        assert found.order.shape[0] == math.ceil(math.ceil(len(group) / devices) / slots)


def test_sharded_work_is_as_even_as_the_memory_allows():
    """14 groups like UTKFace's races by gender, the largest five times the smallest."""
    counts = np.array([50, 48, 30, 28, 25, 24, 22, 20, 18, 16, 14, 12, 10, 10])
    for devices in (2, 4, 8):
        held = scoring.place_groups(counts, devices)
        loads = [sum(counts[k] / parts for k, _, parts in pieces) for pieces in held]
        assert max(loads) < 1.15 * counts.sum() / devices


def accumulated(images, plain):
    """Sum of squares of `images` (M, n) by the accumulating step, a picture a micro-batch."""
    params = {"kernel": np.ones((images.shape[1], 1), np.float32)}
    alive = {"kernel": np.ones_like(params["kernel"], bool)}

    def make_network(batch_stats):
        return ScoredNetwork(
            None, lambda params, images, *_: (images @ params["kernel"]).mean(), ()
        )

    step = jax.jit(scoring.make_accumulate(make_network, SQUARES, "scan"))
    plan = scoring.assign_micro_batches(np.zeros(len(images), int), 1, 1, 1024)
    sums = jax.tree.map(lambda x: x[0], scoring.empty_sums(alive, 1, jax.local_devices()[:1]))
    for order, row, start, end in zip(*(x[:, 0] for x in plan[:4]), strict=True):
        batch = {
            "images": images[order][:, None],
            "labels": np.zeros((len(order), 1, 1), np.int32),
            "valid": np.ones((len(order), 1), bool),
            "row": row,
            "start": start | plain,
            "end": end | plain,
        }
        sums = step(sums, params, {}, alive, None, batch)
    return np.asarray(sums.rows["kernel"][0, :, 0], np.float64)


def test_sums_of_many_thousand_terms_over_many_decades_do_not_drift():
    rng = np.random.default_rng(0)
    count, n = 16 * 1024, 500
    scale = np.exp(3 * rng.standard_normal(n))  # squares of weights differ by ten decades
    sizes = np.exp(rng.standard_normal((count, 1)))  # and those of micro-batches by three
    images = (scale * sizes * rng.standard_normal((count, n))).astype(np.float32)
    expected = np.sum(images**2, axis=0, dtype=np.float64)

    def drift(plain):
        return np.abs(accumulated(images, plain) / expected - 1)

    assert drift(plain=False).max() < 1e-6
    assert drift(plain=True).mean() > 1e-6  # why there are blocks


@pytest.mark.parametrize(
    "model",
    ["cnn", *(pytest.param(name, marks=pytest.mark.slow) for name in ("resnet18", "resnet34"))],
)
def test_memory_is_the_accumulators_and_no_more_than_a_training_step(model):
    groups, size = 7, 32
    data = dataclasses.replace(
        load(source("synthetic", samples=70, groups=groups, size=size)), groups=tuple("abcdefg")
    )
    experiment = Experiment(source("synthetic"), model, scoring=Scoring(1.0, SIZE), batch=SIZE)
    session, network = opened(experiment, data)
    compiled, state, alive = session.steps, network.state, network.masks
    weights = sum(4 * m.size for m in jax.tree.leaves(alive))
    sums = jax.eval_shape(lambda: scoring.empty_sums(alive, groups, compiled.devices))
    plan = batches.group_batches(data.train, 1.0, SIZE, groups, 0)
    shared = scoring.assign_micro_batches(plan.group, groups, 1, 1)
    micro = next(scoring.micro_batches(data.train, plan, shared))
    step = compiled.accumulate(SQUARES, groups, SIZE)
    accumulate = step.lower(sums, state.params, state.batch_stats, alive, None, micro)
    samples = next(batches.train_batches(data.train, SIZE, 0, 0))
    batch = parallel.split_batch(samples, compiled.devices)
    train = compiled.train.lower(Carry(state), alive, batch, np.float32(0))
    scoring_memory, training_memory = (
        lowered.compile().memory_analysis() for lowered in (accumulate, train)
    )
    # Sums are updated in place: what the step gives back takes nothing beyond what it is given.
    assert scoring_memory.alias_size_in_bytes >= (groups + 1) * weights
    assert scoring_memory.output_size_in_bytes - scoring_memory.alias_size_in_bytes < weights / 1e3

    def peak(memory):
        return (
            memory.argument_size_in_bytes
            + memory.output_size_in_bytes
            - memory.alias_size_in_bytes
            + memory.temp_size_in_bytes
        )

    assert peak(scoring_memory) < groups * weights + peak(training_memory)
