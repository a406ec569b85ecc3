"""Running statistics taken anew in a round, and learning rates that are rewound."""

import dataclasses

import jax
import numpy as np
import pytest

from fairgrape_jax import config, models
from fairgrape_jax.config import Experiment, Stage
from fairgrape_jax.data import augment, batches, load
from fairgrape_jax.errors import Preempted, UsageError
from fairgrape_jax.masks import apply_masks
from fairgrape_jax.remedies import Remedy
from fairgrape_jax.rounds.session import Network
from fairgrape_jax.runner import finish
from fairgrape_jax.runner.recalibrate import recalibrate_pruned, recalibrate_retrained
from fairgrape_jax.runner.round import Round
from fairgrape_jax.runner.run import run
from fairgrape_jax.runner.stage import load as load_stage
from fairgrape_jax.systems.options import Quantisation
from fairgrape_jax.systems.quantised import with_leaves_of, with_quantisers, without_quantisers
from tests.helpers.experiments import opened, with_fields
from tests.helpers.ingredient_runs import TINY
from tests.helpers.networks import Normed
from tests.helpers.not_finite import SHORT
from tests.helpers.odd_network import Odd, built, pruned

BITS = Quantisation(weights=3, activations=3)
# A large rate: weights move much in the steps that running statistics remember.
FAST = with_fields(SHORT, model="normed", retrain=Stage((2,), (0.1,)))


def differ(one, other):
    pairs = zip(*map(jax.tree.leaves, (one, other)), strict=True)
    return any(np.abs(a - b).max() > 1e-3 for a, b in pairs)


def assert_equal(one, other):
    for a, b in zip(*map(jax.tree.leaves, (one, other)), strict=True):
        np.testing.assert_array_equal(a, b)


def statistics_of(this, module, state, alive, count=7):
    """Those after so many batches of a round's draw in train mode, by a loop of its own."""
    expected, dataset = state.batch_stats, this.session.dataset
    params = apply_masks(alive, state.params)
    size = this.session.experiment.batch
    samples = batches.train_batches(dataset.train, size, this.draw, 0, epochs=9)
    for _, batch in zip(range(count), samples, strict=False):
        images = augment.normalise(batch["images"], dataset.mean, dataset.std)
        variables = {"params": params, "batch_stats": expected}
        _, changed = module.apply(variables, images, train=True, mutable=["batch_stats"])
        expected = changed["batch_stats"]
    return expected


@pytest.mark.whole
@pytest.mark.parametrize("field", ["recalibrate", "recalibrate_after"])
@pytest.mark.parametrize("devices", [1, 2])
def test_statistics_are_those_of_the_pictures_as_the_pruned_network_sees_them(
    devices, field, monkeypatch, tmp_path
):
    """Against a loop of its own; everything else stays as it was."""
    monkeypatch.setitem(models.MODELS, "odd", Odd)
    session, network = built(devices)
    experiment = dataclasses.replace(session.experiment, remedy=Remedy(**{field: 7}))
    session = dataclasses.replace(session, experiment=experiment)
    this = Round(session, tmp_path, 0, "magnitude", 2, 3)
    network = Network(network.state, pruned("magnitude", 0.3, devices))
    state, alive = jax.device_get((network.state, network.masks))
    each = {
        "recalibrate": recalibrate_pruned(this, network),
        "recalibrate_after": recalibrate_retrained(this, network, network),
    }
    after = jax.device_get(each.pop(field).state)
    assert next(iter(each.values())) is network
    expected = statistics_of(this, session.steps.module.clone(axis_name=None), state, alive)
    assert differ(state.batch_stats, expected)
    for a, b in zip(*map(jax.tree.leaves, (after.batch_stats, expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    assert_equal(after, state._replace(batch_stats=after.batch_stats))


@pytest.mark.whole
@pytest.mark.parametrize("kd", [0.0, 1.0])
def test_statistics_of_a_network_with_quantisers_are_seen_through_them(kd, monkeypatch, tmp_path):
    """Whatever the loss looks at; and the ranges of quantisers stay what retraining saw."""
    monkeypatch.setitem(models.MODELS, "normed", Normed)
    remedy = Remedy(kd=kd, recalibrate_after=7)
    experiment = with_fields(FAST, quantise=BITS, remedy=remedy)
    session, network = opened(experiment, load(experiment.data))
    this = Round(session, tmp_path, 0, "magnitude", 1, 1)
    plain, state = session.steps.module.clone(axis_name=None), network.state
    module = with_quantisers(plain, BITS)
    seen = statistics_of(this, module, state, network.masks, count=1)
    network = Network(state._replace(batch_stats=seen), network.masks)
    state, alive = jax.device_get((network.state, network.masks))
    after = jax.device_get(recalibrate_retrained(this, network, network).state.batch_stats)
    statistics = without_quantisers(after)
    expected = without_quantisers(statistics_of(this, module, state, alive))
    assert differ(expected, without_quantisers(statistics_of(this, plain, state, alive)))
    for a, b in zip(*map(jax.tree.leaves, (statistics, expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
    assert_equal(with_leaves_of(after, without_quantisers(state.batch_stats)), state.batch_stats)


@pytest.mark.whole
def test_a_round_that_is_stopped_after_its_retraining_is_recalibrated_to_the_same_bits(
    monkeypatch, tmp_path
):
    """And it is the recalibrated network that is evaluated, written, and pruned further."""
    monkeypatch.setitem(models.MODELS, "normed", Normed)
    remedy, methods = Remedy(recalibrate_after=20), ("importance",)
    experiment = with_fields(FAST, methods=methods, densities=(0.6, 0.3), remedy=remedy)
    run(experiment, tmp_path / "whole")
    run(with_fields(experiment, remedy=Remedy()), tmp_path / "plain")
    predict, calls = finish.predict, []

    def stop_in_the_first_round(*args):
        calls.append(args)
        if len(calls) == 3:  # after two in the dense training
            raise Preempted("here")
        return predict(*args)

    monkeypatch.setattr(finish, "predict", stop_in_the_first_round)
    with pytest.raises(Preempted):
        run(experiment, tmp_path / "stopped")
    run(experiment, tmp_path / "stopped")
    stages = {
        name: [load_stage(tmp_path / name, f"seed_0/importance/round_0{k}") for k in (1, 2)]
        for name in ("whole", "stopped", "plain")
    }
    for one, other in zip(stages["whole"], stages["stopped"], strict=True):
        assert_equal(one.variables, other.variables)
        assert one.metrics == other.metrics
    first, plain = stages["whole"][0], stages["plain"][0]
    assert_equal(first.variables["params"], plain.variables["params"])
    assert differ(first.variables["batch_stats"], plain.variables["batch_stats"])
    assert first.metrics != plain.metrics
    assert differ(*(stages[name][1].variables["params"] for name in ("whole", "plain")))


@pytest.mark.parametrize(
    ("epochs", "pieces"),
    [
        (0, ((9,), (0.5,))),
        (1, ((1,), (1e-3,))),
        (2, ((2,), (1e-3,))),
        (3, ((1, 2), (1e-2, 1e-3))),
        (5, ((3, 2), (1e-2, 1e-3))),
        (9, ((4, 3, 2), (1e-1, 1e-2, 1e-3))),
    ],
)
def test_rates_are_those_of_the_last_epochs_of_the_dense_training(epochs, pieces):
    experiment = Experiment(
        TINY.data,
        "cnn",
        dense=Stage((4, 3, 2), (1e-1, 1e-2, 1e-3)),
        retrain=Stage((9,), (0.5,)),
        remedy=Remedy(rewind_rates=epochs),
    )
    config.check(experiment)
    found = config.retraining(experiment)
    assert (found.epochs, found.rates) == pieces
    too_many = dataclasses.replace(experiment, remedy=Remedy(rewind_rates=10))
    with pytest.raises(UsageError, match=r"remedy.rewind_rates: 10 epochs of the 9"):
        config.check(too_many)
