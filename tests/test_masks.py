"""Masks: exact counts, and pruned weights that stay at zero whatever the optimizer does."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fairgrape_jax import masks, parallel, training
from fairgrape_jax.config import Experiment
from fairgrape_jax.data import load, source
from fairgrape_jax.selection import schedules
from fairgrape_jax.training import Carry
from tests.helpers.experiments import opened

EXPERIMENT = Experiment(
    data=source("synthetic", samples=300, size=8, seed=1), model="cnn", batch=16
)


@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.9, 0.98, 0.99, 0.999])
@pytest.mark.parametrize("n", [1, 25, 288, 1000, 23_040, 2_359_296])
def test_kept_is_the_floor_of_the_exact_product(n, sparsity):
    thousandths = round(1000 * (1 - sparsity))
    assert masks.kept(n, 1 - sparsity) == n * thousandths // 1000


@pytest.mark.parametrize(("sparsity", "keep"), [(0.9, 0.9), (0.98, 0.75), (0.99, 0.9), (0.3, 0.5)])
def test_densities_fall_to_the_target_exactly(sparsity, keep):
    steps = schedules.densities(sparsity, keep)
    assert len(steps) == schedules.rounds(sparsity, keep)
    assert steps == sorted(steps, reverse=True)
    assert steps[-1] == pytest.approx(1 - sparsity, abs=1e-12)
    np.testing.assert_allclose(steps[:-1], [keep**i for i in range(1, len(steps))])


@pytest.mark.parametrize("optimizer", training.OPTIMIZERS)
def test_a_pruned_weight_is_zero_at_every_later_step(optimizer):
    """Momentum and weight decay are on, and moments were built up before pruning."""
    experiment = dataclasses.replace(EXPERIMENT, optimizer=optimizer, weight_decay=0.1)
    dataset = load(experiment.data)
    session, network = opened(experiment, dataset)
    full, carry = network.masks, Carry(network.state)
    rng = np.random.default_rng(0)
    half = jax.tree.map(lambda m: rng.random(m.shape) < 0.5, full)
    half = parallel.replicate(half, session.devices)
    batch = {"images": dataset.train.images[:16], "labels": dataset.train.labels[:16]}
    batch = parallel.split_batch(batch, session.devices)
    for alive in [full] * 3 + [half] * 5:
        carry, _ = session.steps.train(carry, alive, batch, np.float32(1e-2))
        for mask, weights in zip(
            jax.tree.leaves(alive),
            jax.tree.leaves(masks.select_prunable(alive, carry.state.params)),
            strict=True,
        ):
            weights, mask = np.asarray(weights), np.asarray(mask)
            assert np.all(weights[~mask] == 0)
            assert np.any(weights[mask] != 0)


def test_the_forward_pass_sees_the_mask():
    """A network whose dead weights were never set to zero answers as if they were."""
    dataset = load(EXPERIMENT.data)
    session, network = opened(EXPERIMENT, dataset)
    state, rng = network.state, np.random.default_rng(0)
    half = jax.tree.map(lambda m: rng.random(m.shape) < 0.5, network.masks)
    half = parallel.replicate(half, session.devices)
    zeroed = masks.apply_masks(half, state.params)
    batch = {"images": dataset.test.images[:16], "labels": dataset.test.labels[:16]}
    batch["valid"] = np.ones(16, bool)
    batch = parallel.split_batch(batch, session.devices)
    answers = [
        session.steps.evaluate(params, state.batch_stats, half, batch)
        for params in (state.params, zeroed)
    ]
    chex.assert_trees_all_equal(*answers)


def test_only_kernels_are_prunable_and_the_first_and_last_are():
    session, network = opened(EXPERIMENT, load(EXPERIMENT.data))
    full = masks.full_masks(network.state.params)
    assert masks.layer_names(full) == ["conv1", "conv2", "fc1", "fc2"]
    assert session.steps.layers == ("conv1", "conv2", "fc1", "fc2")
    assert full["conv1"]["bias"] is None
    assert masks.density(full) == 1


def test_reviving_a_weight_is_refused():
    before = {"fc": {"kernel": np.array([[True, False]]), "bias": None}}
    after = {"fc": {"kernel": np.array([[False, True]]), "bias": None}}
    masks.check_nested(before, before)
    with pytest.raises(ValueError, match="layer fc revives"):
        masks.check_nested(after, before)


@pytest.mark.parametrize("shape", [(1,), (8,), (9,), (3, 5), (2, 3, 4), (1, 1)])
@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray])
def test_packed_bits_are_unpacked_to_the_mask(shape, kind):
    mask = np.random.default_rng(0).random(shape) < 0.5
    bits = masks.pack(kind(mask))
    assert bits.nbytes == -(-mask.size // 8)
    np.testing.assert_array_equal(masks.unpack(bits, shape), mask)
