"""Running statistics taken anew after a choice, and learning rates that are rewound."""

import dataclasses

import jax
import numpy as np
import pytest

from fairgrape_jax import config, models
from fairgrape_jax.config import Experiment, Stage
from fairgrape_jax.data import augment, batches
from fairgrape_jax.errors import UsageError
from fairgrape_jax.masks import apply_masks
from fairgrape_jax.remedies import Remedy
from fairgrape_jax.rounds.session import Network
from fairgrape_jax.runner.round import Round, recalibrate
from tests.helpers.ingredient_runs import TINY
from tests.helpers.odd_network import Odd, built, pruned


@pytest.mark.whole
@pytest.mark.parametrize("devices", [1, 2])
def test_statistics_are_those_of_the_pictures_as_the_pruned_network_sees_them(
    devices, monkeypatch, tmp_path
):
    """Against a loop of its own; everything else stays as it was."""
    monkeypatch.setitem(models.MODELS, "odd", Odd)
    session, network = built(devices)
    experiment = dataclasses.replace(session.experiment, remedy=Remedy(recalibrate=7))
    session = dataclasses.replace(session, experiment=experiment)
    this = Round(session, tmp_path, 0, "magnitude", 2, 3)
    network = Network(network.state, pruned("magnitude", 0.3, devices))
    state, alive = jax.device_get((network.state, network.masks))
    after = jax.device_get(recalibrate(this, network).state)
    module = session.steps.module.clone(axis_name=None)
    expected, dataset = state.batch_stats, session.dataset
    params = apply_masks(alive, state.params)
    samples = batches.train_batches(dataset.train, experiment.batch, this.draw, 0, epochs=9)
    for _, batch in zip(range(7), samples, strict=False):
        images = augment.normalise(batch["images"], dataset.mean, dataset.std)
        variables = {"params": params, "batch_stats": expected}
        _, changed = module.apply(variables, images, train=True, mutable=["batch_stats"])
        expected = changed["batch_stats"]
    assert any(
        np.abs(a - b).max() > 1e-3
        for a, b in zip(*map(jax.tree.leaves, (state.batch_stats, expected)), strict=True)
    )
    for a, b in zip(*map(jax.tree.leaves, (after.batch_stats, expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    rest = state._replace(batch_stats=after.batch_stats)
    for a, b in zip(*map(jax.tree.leaves, (after, rest)), strict=True):
        np.testing.assert_array_equal(a, b)


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
