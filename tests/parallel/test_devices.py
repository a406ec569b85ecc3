"""Lifted steps: pmap against jit(shard_map) on 1 to 8 devices, batch statistics, input ahead."""

import dataclasses
from functools import cache

import jax
import numpy as np
import pytest

from fairgrape_jax import models, parallel, scoring, training
from fairgrape_jax.config import Execution, Experiment, Scoring, check, identity
from fairgrape_jax.data import load, source
from fairgrape_jax.data.batches import group_batches, train_batches
from fairgrape_jax.data.dataset import Split
from fairgrape_jax.errors import TrainingError, UsageError
from fairgrape_jax.rounds.predict import predict
from fairgrape_jax.rounds.score import importance
from fairgrape_jax.rounds.session import Network
from fairgrape_jax.scoring.statistics import SQUARES
from fairgrape_jax.training import Carry, StepReport
from tests.helpers.experiments import opened, with_fields
from tests.helpers.networks import Normed

TINY = Experiment(
    data=source("synthetic", samples=400, groups=3, classes=3, size=8, noise=0.5, seed=1),
    model="normed",
    scoring=Scoring(fraction=0.5, micro_batch=16),
    batch=32,
    execution=Execution(evaluation_batch=7),
    augmentation="flip_shift",
)


@pytest.fixture(autouse=True)
def normed(monkeypatch):
    monkeypatch.setitem(models.MODELS, "normed", Normed)


@cache
def pictures():
    return load(TINY.data)


@cache
def trained(devices, **changes):
    """An epoch of a run: its session, its network and its loss."""
    experiment = with_fields(TINY, **changes)
    dataset = pictures()
    session, network = opened(experiment, dataset, devices)
    state, loss, _ = training.train_epoch(
        session.steps.train,
        network.state,
        network.masks,
        dataset.train,
        devices=session.devices,
        batch=experiment.batch,
        rate=1e-2,
        seed=0,
    )
    return session, Network(state, network.masks), loss


@cache
def ran(devices, **changes):
    """What every lifted step of a run gives: a state, losses, predictions, importance."""
    session, network, loss = trained(devices, **changes)
    seen = predict(session, network, "test")
    scores = {over: importance(session, network, over=over, seed=3) for over in ("groups", "all")}
    return jax.device_get(network.state), loss, dataclasses.astuple(seen), scores


@pytest.mark.whole(but=1)
@pytest.mark.parametrize(
    "devices", [2, 8, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 4))]
)
def test_shard_map_gives_the_bits_of_pmap_in_every_step(devices):
    """The train, evaluate, accumulate and reduce steps, on as many devices."""
    one, other = ran(devices, lift="pmap"), ran(devices, lift="shard_map")
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("how", parallel.LIFTS)
def test_replicated_and_mapped_arguments_collectives_and_axes(how):
    devices = parallel.local_devices(4)

    def step(shared, row):
        total = jax.lax.psum(row["x"].sum(), parallel.AXIS)
        return {"row": row["x"] * shared, "place": jax.lax.axis_index(parallel.AXIS) + total}

    lifted = parallel.lift(step, devices, in_axes=(None, 0), out_axes=0, by=how)
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    found = lifted(np.float32(2), {"x": x})
    np.testing.assert_array_equal(found["row"], 2 * x)
    np.testing.assert_array_equal(found["place"], np.arange(4) + x.sum())
    lifted(np.float32(3), {"x": x})
    with pytest.raises(RuntimeError, match="step would be compiled twice"):
        lifted(np.float32(3), {"x": x[:, :2]})


@pytest.mark.parametrize("how", parallel.LIFTS)
def test_the_buffers_of_state_and_sums_are_taken_over(how):
    experiment = with_fields(TINY, lift=how)
    dataset = pictures()
    session, network = opened(experiment, dataset, 2)
    compiled, state, alive = session.steps, network.state, network.masks
    samples = next(train_batches(dataset.train, 32, 0, 0))
    batch = parallel.split_batch(samples, compiled.devices)
    sums = scoring.empty_sums(alive, 3, compiled.devices)
    plan = group_batches(dataset.train, 0.5, 16, 3, 0)
    shared = scoring.assign_micro_batches(plan.group, 3, 2, compiled.slots)
    micro = next(scoring.micro_batches(dataset.train, plan, shared))
    accumulate = compiled.accumulate(SQUARES, 3, 16)
    accumulate(sums, state.params, state.batch_stats, alive, None, micro)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(sums))
    compiled.train(Carry(state), alive, batch, np.float32(0.1))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(alive))


@pytest.mark.parametrize("synced", [True, False])
def test_batch_statistics_of_the_whole_batch_or_of_each_device(synced):
    """One step with a momentum of 0.99: the running variance tells which one was used."""
    experiment = dataclasses.replace(TINY, sync_batch_stats=synced, augmentation="none")
    dataset = pictures()
    session, network = opened(experiment, dataset, 4)
    compiled, state = session.steps, network.state
    samples = next(train_batches(dataset.train, 32, 0, 0))
    kernel = state.params["conv"]["kernel"]
    pixels = (samples["images"] / 255.0 - np.float32(dataset.mean)) / np.float32(dataset.std)
    outputs = np.asarray(
        jax.lax.conv_general_dilated(
            pixels.astype(np.float32),
            kernel,
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
    )
    whole = outputs.var((0, 1, 2))
    parts = outputs.reshape(4, 8, *outputs.shape[1:]).var((1, 2, 3)).mean(0)
    assert np.abs(whole / parts - 1).max() > 1e-3  # else the test could not tell
    batch = parallel.split_batch(samples, compiled.devices)
    (state, *_), _ = compiled.train(Carry(state), network.masks, batch, np.float32(0.1))
    found = state.batch_stats["norm"]
    expected = 0.99 * 1 + 0.01 * (whole if synced else parts)
    np.testing.assert_allclose(found["var"], expected, rtol=1e-5)
    np.testing.assert_allclose(found["mean"], 0.01 * outputs.mean((0, 1, 2)), rtol=1e-3, atol=1e-6)
    for leaf in jax.tree.leaves(state):  # no device has drifted from the others
        copies = [np.asarray(shard.data) for shard in leaf.addressable_shards]
        assert len(copies) == 4
        assert all(np.array_equal(copies[0], copy) for copy in copies)


def test_unsynchronised_statistics_change_the_gradients():
    losses = [trained(2, sync_batch_stats=synced)[-1] for synced in (True, False)]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.2)
    alone = [trained(1, sync_batch_stats=synced)[-1] for synced in (True, False)]
    # One device has nobody to synchronise with; the programs differ, so they agree to rounding.
    assert alone[0] == pytest.approx(alone[1], rel=1e-6)


def test_bfloat16_trains_to_about_the_same_loss_and_keeps_float32_state():
    (state, loss, _, scores), (half, half_loss, _, half_scores) = (
        ran(2, precision=precision) for precision in ("float32", "bfloat16")
    )
    assert loss != half_loss
    assert half_loss == pytest.approx(loss, rel=0.02)
    assert jax.tree.map(lambda x: x.dtype, half) == jax.tree.map(lambda x: x.dtype, state)
    assert {leaf.dtype for leaf in jax.tree.leaves((half.params, half.batch_stats))} == {
        np.dtype(np.float32)
    }
    for a, b in zip(jax.tree.leaves(scores), jax.tree.leaves(half_scores), strict=True):
        assert a.dtype == b.dtype == np.float32
        assert np.corrcoef(np.sqrt(a.ravel()), np.sqrt(b.ravel()))[0, 1] > 0.9


def test_batches_are_sent_one_ahead_in_order():
    devices, read = parallel.local_devices(2), []

    def batches():
        for number in range(4):
            read.append(number)
            yield {"x": np.full((2, 3), number)}

    used = []
    for batch in parallel.prefetch_to_devices(batches(), devices):
        used.append(int(batch["x"][0, 0]))
        assert len(read) == min(len(used) + 1, 4)
        assert {shard.device for shard in batch["x"].addressable_shards} == set(devices)
    assert used == read == [0, 1, 2, 3]
    assert list(parallel.prefetch_to_devices([], devices)) == []


def test_a_batch_that_cannot_be_read_stops_the_loop():
    def batches():
        yield {"x": np.zeros((1, 3))}
        yield {"x": np.zeros((1, 3))}
        raise OSError("unreadable")

    seen = []
    with pytest.raises(OSError, match="unreadable"):
        seen.extend(1 for _ in parallel.prefetch_to_devices(batches(), parallel.local_devices(1)))


@pytest.mark.parametrize("bad", [0, 3, 9])
def test_a_loss_is_read_one_step_late_and_blamed_on_its_own_step(bad):
    """Ten steps from number 100 on, of which one gives NaN: it is named, and one more was begun."""
    split = Split(np.zeros((40, 2, 2, 1), np.uint8), np.zeros((40, 1), int), np.zeros(40, int))
    begun = []

    def step(carry, masks, batch, rate):
        begun.append(len(begun))
        good = begun[-1] != bad
        return carry, StepReport(np.float32(1.0 if good else np.nan), np.array([good]))

    state = training.State({}, {}, {}, np.int32(100), np.int32(2), np.zeros(2, np.uint32))
    devices = parallel.local_devices(1)
    with pytest.raises(TrainingError, match=f"step {100 + bad}:"):
        training.train_epoch(step, state, {}, split, devices=devices, batch=4, rate=0.1, seed=0)
    assert len(begun) == min(bad + 2, 10)


@pytest.mark.parametrize(("field", "value"), [("lift", "vmap"), ("precision", "float16")])
def test_unknown_ways_are_refused(field, value):
    experiment = with_fields(TINY, **{field: value})
    with pytest.raises(UsageError, match=f"{field}: unknown '{value}': choose from"):
        check(experiment)


def test_how_steps_are_lifted_is_no_part_of_what_a_run_is():
    other = with_fields(TINY, lift="shard_map", devices=3)
    assert identity(other) == identity(TINY)
    for field, value in (("sync_batch_stats", False), ("precision", "bfloat16")):
        assert identity(dataclasses.replace(TINY, **{field: value})) != identity(TINY)


def test_alone_every_process_agrees_with_itself():
    tree = {"a": np.arange(3), "b": None}
    assert parallel.broadcast_from_process_0(tree) is tree
    assert parallel.processes_agree(tree)
    assert parallel.process_index_and_count() == (0, 1)
    assert parallel.device_count(parallel.local_devices(2)) == 2
