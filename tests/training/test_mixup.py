"""Mixup: pairs by run, epoch and sample, closed forms of its loss, and where it must not be."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from fairgrape_jax import config, losses, parallel, remedies
from fairgrape_jax.config import Experiment, Scoring, Stage
from fairgrape_jax.data import augment, load, source
from fairgrape_jax.data.batches import train_batches
from fairgrape_jax.errors import UsageError
from fairgrape_jax.losses.distillation import Outputs, Performance
from fairgrape_jax.remedies import REMEDIES, Remedy
from fairgrape_jax.rounds import score
from fairgrape_jax.rounds.predict import predict
from fairgrape_jax.runner import preflight
from fairgrape_jax.runner.run import run
from fairgrape_jax.training import Carry
from tests.helpers.experiments import opened, with_fields

KEY = jax.random.key(5)
DATA = source("synthetic", samples=240, groups=2, classes=3, size=8, noise=0.5, seed=1)
EXPERIMENT = Experiment(
    data=DATA,
    model="mlp",
    sparsity=0.5,
    keep_per_round=0.5,
    dense=Stage((2,), (1e-2,)),
    retrain=Stage((1,), (1e-3,)),
    final=Stage(),
    scoring=Scoring(fraction=0.5, micro_batch=16),
    batch=32,
    augmentation="flip",
    mixup=0.4,
    optimizer="sgd",
)


def built(devices: int, experiment: Experiment = EXPERIMENT):
    dataset = load(experiment.data)
    return dataset, *opened(experiment, dataset, devices)


def mixed(alpha, ids, images, labels, epoch=0, key=KEY):
    call = jax.jit(augment.mixup, static_argnums=0)
    return call(alpha, key, jnp.int32(epoch), jnp.asarray(ids), images, labels=labels)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_shares_are_drawn_from_beta(alpha):
    ids = np.arange(4000)
    nothing = jnp.zeros((4000, 1, 1, 1)), jnp.zeros((4000, 1), int)
    share = np.asarray(mixed(alpha, ids, *nothing).share)
    assert stats.kstest(share, stats.beta(alpha, alpha).cdf).pvalue > 1e-3


def test_pairs_belong_to_run_epoch_and_sample_and_not_to_a_batch():
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (8, 4, 4, 3), np.uint8), np.arange(8)[:, None]
    ids = np.array([50, 3, 7, 1, 0, 99, 12, 4])
    whole = mixed(0.4, ids, images, labels, 2)
    for part in (slice(0, 2), slice(2, 8)):
        some = mixed(0.4, ids[part], images[part], labels[part], 2)
        for one, all_of_them in zip(some, whole, strict=True):
            np.testing.assert_allclose(one, all_of_them[part], rtol=1e-5)
    share = np.asarray(whole.share)[:, None, None, None]
    np.testing.assert_allclose(
        whole.images, share * images + (1 - share) * images[[1, 0, 3, 2, 5, 4, 7, 6]], atol=1e-3
    )
    for other in (
        mixed(0.4, ids, images, labels, 3),
        mixed(0.4, ids + 1, images, labels, 2),
        mixed(0.4, ids, images, labels, 2, jax.random.key(6)),
    ):
        assert (np.abs(np.asarray(other.share) - whole.share) > 1e-3).sum() > 4


def test_the_loss_of_a_step_is_the_closed_form():
    dataset, session, network = built(1)
    compiled, state, alive = session.steps, network.state, network.masks
    batch = next(train_batches(dataset.train, 32, 0, 0))
    variables = jax.device_get(network.variables)
    run_key = jax.random.wrap_key_data(np.array(state.key))
    images = augment.augment_batch(augment.flip, run_key, 0, batch["ids"], batch["images"])
    keys = augment._keys(run_key, augment.MIXUP_STREAM, 0, batch["ids"])
    share = np.asarray(jax.vmap(lambda key: jax.random.beta(key, 0.4, 0.4))(keys), np.float64)
    other = np.arange(32) ^ 1
    part = share[:, None, None, None]
    pictures = part * np.asarray(images, np.float64) + (1 - part) * np.asarray(images)[other]
    cut = parallel.split_batch(batch, compiled.devices)
    _, seen = compiled.train(Carry(state), alive, cut, 1e-2)

    inputs = augment.normalise(jnp.asarray(pictures, jnp.float32), dataset.mean, dataset.std)
    module = compiled.module.clone(axis_name=None)
    logits, _ = module.apply(variables, inputs, train=True, mutable=["batch_stats"])
    log_p = np.asarray(jax.nn.log_softmax(logits), np.float64)
    labels = batch["labels"][:, 0]
    of_own, of_other = (-log_p[np.arange(32), who] for who in (labels, labels[other]))
    assert (labels != labels[other]).any()
    expected = (share * of_own + (1 - share) * of_other).mean()
    assert float(seen.loss) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", [name for name in REMEDIES if name != "pw"])
def test_remedies_take_the_mixed_cross_entropy_and_are_else_the_same(name):
    rng = np.random.default_rng(0)
    own, dense = (
        Outputs(
            jnp.asarray(rng.normal(size=(6, 3)), jnp.float32),
            {"last": jnp.asarray(rng.normal(size=(6, 2, 2, 4)), jnp.float32)},
        )
        for _ in range(2)
    )
    labels, others = rng.integers(0, 3, (2, 6, 1))
    share = jnp.asarray(rng.uniform(size=6), jnp.float32)
    remedy = REMEDIES[name]
    found = remedies.retraining_loss(remedy, own, dense, labels, (3,), mixed=(others, share))
    plain, one, other = (
        remedies.retraining_loss(dataclasses.replace(remedy, ce=ce), own, dense, of, (3,))
        for ce, of in ((0.0, labels), (remedy.ce, labels), (remedy.ce, others))
    )
    assert np.isfinite(float(found))
    # With one share for all, the cross-entropies are those of the labels and of the others.
    half = remedies.retraining_loss(
        remedy, own, dense, labels, (3,), mixed=(others, jnp.full(6, 0.25))
    )
    assert float(half) == pytest.approx(float(0.25 * one + 0.75 * other), rel=1e-4)
    of_all = losses.mixed_cross_entropy(own.logits, labels, others, share, (3,)).mean()
    assert float(found - plain) == pytest.approx(remedy.ce * float(of_all), rel=1e-2, abs=1e-4)


def trained(devices: int, start=None, done: int = 0):
    """An epoch of steps; from step `done` on, with the state of then. Losses and states."""
    dataset, session, network = built(devices)
    state = network.state if start is None else parallel.replicate(start, session.devices)
    carry, seen = Carry(state), []
    batches = train_batches(dataset.train, 32, 0, 0, start=done)
    for batch in batches:
        cut = parallel.split_batch(batch, session.devices)
        carry, report = session.steps.train(carry, network.masks, cut, np.float32(1e-2))
        seen.append((float(report.loss), jax.device_get(carry.state)))
    return seen


@pytest.mark.whole
def test_training_does_not_depend_on_the_devices_and_goes_on_after_a_stop():
    one = trained(1)
    assert len(one) == 6
    for devices in (2, 8):
        for (loss, state), (alone, expected) in zip(trained(devices), one, strict=True):
            assert loss == pytest.approx(alone, rel=1e-4)
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
                state.params,
                expected.params,
            )
    resumed = trained(1, one[2][1], done=3)
    for (loss, state), (expected_loss, expected) in zip(resumed, one[3:], strict=True):
        assert loss == expected_loss
        jax.tree.map(np.testing.assert_array_equal, state, expected)


def test_it_is_off_by_default_and_changes_training_alone():
    assert Experiment(data=DATA, model="cnn").mixup == 0
    off = dataclasses.replace(EXPERIMENT, mixup=0.0)
    found = []
    for experiment in (EXPERIMENT, off):
        dataset, session, network = built(2, experiment)
        scores = score.importance(session, network, seed=0)
        seen = predict(session, network, "validation")
        batch = next(train_batches(dataset.train, 32, 0, 0))
        assert batch.keys() == {"images", "labels", "ids"}  # no row of a batch is padding
        cut = parallel.split_batch(batch, session.devices)
        step = session.steps.train
        loss = float(step(Carry(network.state), network.masks, cut, np.float32(0))[1].loss)
        found.append((jax.tree.leaves(scores), dataclasses.astuple(seen), loss))
    (scores, seen, loss), (plain_scores, plain, without) = found
    assert loss != without
    for mine, theirs in zip((*scores, *seen), (*plain_scores, *plain), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_run_with_a_remedy_mixes_and_is_whole(tmp_path):
    experiment = with_fields(
        EXPERIMENT, remedy=Remedy(ce=0.1, kd=0.9), methods=("magnitude",), devices=2
    )
    run(experiment, tmp_path / "run")
    assert (tmp_path / "run" / "seed_0" / "magnitude" / "round_01" / "metrics.json").exists()
    with pytest.raises(UsageError, match="mixup"):
        run(dataclasses.replace(experiment, mixup=0.0), tmp_path / "run")


@pytest.mark.parametrize("alpha", [-0.1, float("nan"), float("inf")])
def test_an_impossible_alpha_is_named(alpha):
    with pytest.raises(UsageError, match=r"mixup: .* is (no alpha|not a finite number)"):
        config.check(dataclasses.replace(EXPERIMENT, mixup=alpha))


def test_what_cannot_be_mixed_is_refused():
    weighted = Performance(weights=True)
    with pytest.raises(UsageError, match="mixup: the performance-weighted loss"):
        config.check(dataclasses.replace(EXPERIMENT, remedy=Remedy(pw=weighted)))
    for remedy in (Remedy(pw=dataclasses.replace(weighted, retrain=False)), REMEDIES["sp+kd"]):
        config.check(dataclasses.replace(EXPERIMENT, remedy=remedy))
    odd = dataclasses.replace(EXPERIMENT, batch=24)
    with pytest.raises(UsageError, match="multiple of 16"):
        preflight.check_fit(odd, load(DATA), 8)
    preflight.check_fit(odd, load(DATA), 4)
