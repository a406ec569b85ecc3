"""The terms of the retraining loss: closed forms, torch's values and gradients, and whole runs."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fairgrape_jax import config, losses, parallel, remedies
from fairgrape_jax.config import Execution, Experiment, Scoring, Stage
from fairgrape_jax.data import load, source
from fairgrape_jax.errors import UsageError
from fairgrape_jax.losses.distillation import TERMS, Outputs, Performance
from fairgrape_jax.remedies import REMEDIES, Remedy
from fairgrape_jax.rounds import steps
from fairgrape_jax.rounds.retraining import retraining_step
from fairgrape_jax.rounds.session import initial_network
from fairgrape_jax.runner import run as rounds
from fairgrape_jax.training import Carry
from tests.helpers.datasets import GOLDEN_FILES
from tests.helpers.experiments import opened

GOLDEN = GOLDEN_FILES / "losses_torch.npz"
DATA = source("synthetic", samples=240, groups=2, classes=3, size=8, seed=1)
TINY = Experiment(
    data=DATA,
    model="cnn",
    methods=("fairgrape",),
    sparsity=0.5,
    keep_per_round=0.5,
    dense=Stage((1,), (1e-2,)),
    retrain=Stage((1,), (1e-3,)),
    final=Stage(),
    scoring=Scoring(fraction=0.5, micro_batch=16, select="greedy"),
    batch=16,
    execution=Execution(devices=1),
)


def golden():
    with np.load(GOLDEN) as file:
        return {name: file[name] for name in file.files}


@pytest.mark.parametrize("name", TERMS)
def test_terms_of_features_and_their_gradients_are_torchs(name):
    g = golden()
    own, dense = (jnp.asarray(g[k].transpose(0, 2, 3, 1), jnp.float32) for k in ("own", "dense"))
    value, gradient = jax.jit(jax.value_and_grad(TERMS[name]))(own, dense)
    np.testing.assert_allclose(value, g[name], rtol=2e-5)
    expected = g[f"{name}.gradient"].transpose(0, 2, 3, 1)
    np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=2e-6 * np.abs(expected).max())


def test_distillation_and_performance_weights_are_torchs():
    g = golden()
    logits, taught = (jnp.asarray(g[k], jnp.float32) for k in ("logits", "taught"))
    labels = jnp.asarray(g["labels"])[:, None]
    options = Performance(weights=True, labels=True, alpha=0.3, gamma=2.5)

    def kd(x):
        return losses.distillation(x, taught, (7,), 4.0).mean()

    def pw(x):
        return losses.performance_cross_entropy(x, taught, labels, (7,), options).mean()

    for name, loss in (("kd", kd), ("pw", pw)):
        value, gradient = jax.jit(jax.value_and_grad(loss))(logits)
        np.testing.assert_allclose(value, g[name], rtol=1e-5)
        np.testing.assert_allclose(gradient, g[f"{name}.gradient"], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize(
    "loss",
    [
        lambda own, dense, labels: losses.cross_entropy(own, labels, (3, 2)),
        lambda own, dense, labels: losses.distillation(own, dense, (3, 2), 4.0),
        lambda own, dense, labels: losses.performance_cross_entropy(
            own, dense, labels, (3, 2), Performance(weights=True, labels=True)
        ),
    ],
    ids=["cross_entropy", "distillation", "performance_cross_entropy"],
)
def test_losses_of_narrow_logits_are_computed_in_float32(loss, dtype):
    """A network of somebody else's may give what it computed in: none of it is lost any further."""
    rng = np.random.default_rng(4)
    narrow = jnp.asarray(3 * rng.normal(size=(2, 64, 5)), dtype)
    labels = jnp.asarray(rng.integers(0, [3, 2], (64, 2)))
    each = loss(*narrow, labels)
    assert each.dtype == jnp.float32
    np.testing.assert_array_equal(each, loss(*narrow.astype(jnp.float32), labels))


def test_distillation_at_a_high_temperature_compares_logits():
    """T^2 KL -> half the mean squared difference of centred logits (Hinton et al., 2015)."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 5, 4))
    a, b = (x - x.mean(axis=1, keepdims=True) for x in (a, b))
    found = losses.distillation(jnp.asarray(a), jnp.asarray(b), (4,), 50.0)
    np.testing.assert_allclose(found, np.square(a - b).mean(axis=1) / 2, rtol=0.05)


def test_switches_of_the_performance_weighted_loss():
    rng = np.random.default_rng(1)
    logits, dense = jnp.asarray(rng.normal(size=(2, 8, 5)), jnp.float32)
    labels = jnp.asarray(rng.integers(0, [3, 2], (8, 2)))
    classes = (3, 2)

    def loss(**options):
        found = losses.performance_cross_entropy(
            logits, dense, labels, classes, Performance(**options)
        )
        return np.asarray(found)

    plain = np.asarray(losses.cross_entropy(logits, labels, classes))
    np.testing.assert_allclose(loss(), plain, rtol=1e-6)
    np.testing.assert_allclose(loss(weights=True, alpha=1.0), plain, rtol=1e-6)
    np.testing.assert_allclose(loss(weights=True, gamma=0.0), plain, rtol=1e-6)
    heads = [(logits[:, :3], dense[:, :3]), (logits[:, 3:], dense[:, 3:])]
    by_hand = []
    for t, (own, other) in enumerate(heads):
        p = np.exp(other) / np.exp(other).sum(axis=1, keepdims=True)
        score = p[np.arange(8), labels[:, t]]
        each = -np.asarray(jax.nn.log_softmax(own))[np.arange(8), labels[:, t]]
        by_hand.append((0.2 + 0.8 * (1 - score) ** 3) * each)
    np.testing.assert_allclose(
        loss(weights=True, alpha=0.2, gamma=3.0), np.mean(by_hand, axis=0), rtol=1e-5
    )
    right = np.stack([np.asarray(other).argmax(axis=1) for _, other in heads], 1) == labels
    wrong_everywhere = ~right.any(axis=1)
    assert wrong_everywhere.any()
    soft = loss(labels=True)
    np.testing.assert_allclose(soft[wrong_everywhere], plain[wrong_everywhere], rtol=1e-6)
    assert np.all(np.abs(soft - plain)[right.all(axis=1)] > 1e-3)


@pytest.mark.parametrize("name", TERMS)
def test_terms_vanish_for_equal_features_and_their_gradient_is_finite_at_zero(name):
    features = jnp.asarray(np.random.default_rng(2).normal(size=(4, 3, 3, 2)), jnp.float32)
    assert abs(TERMS[name](features, features)) < 1e-6
    zero = jnp.zeros_like(features)
    assert np.isfinite(jax.jit(jax.grad(TERMS[name]))(zero, features)).all()
    if name != "hints":  # what a scale does not change
        assert abs(TERMS[name](3 * features, features)) < 1e-6
    flat = features.reshape(4, -1)
    assert np.isfinite(TERMS[name](flat, 2 * flat))


@pytest.mark.parametrize("name", REMEDIES)
def test_the_loss_is_the_weighted_sum_of_its_terms(name):
    remedy = REMEDIES[name]
    rng = np.random.default_rng(3)

    def outputs():
        features = {k: jnp.asarray(rng.normal(size=(4, 2, 2, 3)), jnp.float32) for k in "ab"}
        return Outputs(jnp.asarray(rng.normal(size=(4, 3)), jnp.float32), features)

    own, dense = outputs(), outputs()
    labels = jnp.array([[0], [1], [2], [0]])
    found = remedies.retraining_loss(remedy, own, dense, labels, (3,))
    if remedy.pw.on:
        plain = losses.performance_cross_entropy(own.logits, dense.logits, labels, (3,), remedy.pw)
    else:
        plain = losses.cross_entropy(own.logits, labels, (3,))
    expected = remedy.ce * plain.mean()
    expected += remedy.kd * losses.distillation(own.logits, dense.logits, (3,), 4.0).mean()
    last = own.features["b"], dense.features["b"]
    expected += remedy.similarity * losses.similarity_preservation(*last)
    expected += remedy.pkt * losses.probabilistic_transfer(*last)
    for key in "ab":
        pair = own.features[key], dense.features[key]
        expected += remedy.attention * losses.attention_transfer(*pair)
        expected += remedy.hints * losses.hint(*pair)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.whole(but=1)
@pytest.mark.parametrize("name", ["at+kd", "sp", "pkt", "pw"])
def test_a_step_of_retraining_is_the_same_on_one_device_and_on_eight(name):
    """Terms of pairs look at the whole batch wherever its parts lie."""
    dataset, after = load(DATA), {}
    for count in (1, 8):
        experiment = dataclasses.replace(
            TINY, remedy=REMEDIES[name], optimizer="sgd", momentum=0.0, batch=32
        )
        session, dense = opened(experiment, dataset, count, seed=1)
        network = initial_network(session, seed=0)
        start = jax.device_get(network.state.params)
        samples = dataset.train.take(np.arange(32))
        batch = {"images": samples.images, "labels": samples.labels}
        step = retraining_step(session.steps, experiment.remedy, dense.state)
        cut = parallel.split_batch(batch, session.devices)
        carry, report = step(Carry(network.state), network.masks, cut, np.float32(1))
        moved = jax.tree.map(lambda a, b: a - b, jax.device_get(carry.state.params), start)
        after[count] = float(report.loss), jax.tree.leaves(moved)
    assert after[1][0] == pytest.approx(after[8][0], rel=1e-5)
    for a, b in zip(after[1][1], after[8][1], strict=True):
        assert np.linalg.norm(a - b) <= 1e-4 * np.linalg.norm(a)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A whole run for each remedy, made when first asked for."""
    root, made = tmp_path_factory.mktemp("runs"), {}

    def run(remedy):
        if remedy not in made:
            made[remedy] = root / str(len(made))
            rounds.run(dataclasses.replace(TINY, remedy=remedy, seeds=(0,)), made[remedy])
        return made[remedy] / "seed_0"

    return run


def history(stage):
    return json.loads((stage / "metrics.json").read_text())["history"]


def test_the_dense_network_is_the_teacher_and_only_while_retraining(runs):
    """By distillation alone, what is left to learn is the divergence, not the labels."""
    taught, plain = runs(Remedy(ce=0.0, kd=1.0)), runs(Remedy())
    assert 0 < history(taught / "fairgrape" / "round_01")[0]["loss"] < 0.5
    assert history(taught / "dense") == history(plain / "dense")
    assert not [path for path in taught.rglob("*") if path.name in ("teacher", "logits")]


@pytest.mark.whole
def test_performance_weights_change_importance_and_retraining_where_they_are_asked_to(runs):
    masks, losses_of = {}, {}
    for name, pw in {
        "off": Performance(),
        "retrain": Performance(weights=True, gamma=1.0, alpha=0.1, prune=False),
        "prune": Performance(weights=True, gamma=1.0, alpha=0.1, retrain=False),
    }.items():
        stage = runs(Remedy(pw=pw)) / "fairgrape" / "round_01"
        with np.load(stage / "masks.npz") as file:
            masks[name] = np.concatenate([file[key].ravel().view(np.uint8) for key in file.files])
        losses_of[name] = history(stage)
    np.testing.assert_array_equal(masks["off"], masks["retrain"])
    assert np.any(masks["off"] != masks["prune"])
    assert losses_of["off"] != losses_of["retrain"]


BAD = {
    "remedy.kd: -1.0 is negative": Remedy(kd=-1.0),
    "all its weights are zero": Remedy(ce=0.0),
    "remedy.temperature: 0.0": Remedy(temperature=0.0),
    "remedy.pw.alpha: 2.0 is not": Remedy(pw=Performance(alpha=2.0)),
}


@pytest.mark.parametrize("message", BAD)
def test_a_remedy_that_cannot_be_is_refused(message):
    with pytest.raises(UsageError, match=message):
        config.check(dataclasses.replace(TINY, remedy=BAD[message]))


def test_features_are_named_and_checked():
    dataset, devices = load(DATA), parallel.local_devices(1)
    wrong = dataclasses.replace(TINY, remedy=Remedy(hints=1.0, features=("conv3",)))
    with pytest.raises(UsageError, match="'conv3' is no module of cnn: choose from conv1, conv2"):
        steps.build(wrong, dataset, devices)
    found = steps.with_features(
        dataclasses.replace(TINY, remedy=Remedy(hints=1.0)),
        steps.build(TINY, dataset, devices).module,
        dataset,
    )
    assert found.features == ("conv1", "conv2")
    restored = config.from_dict(config.to_dict(dataclasses.replace(TINY, remedy=REMEDIES["pw"])))
    assert restored.remedy == REMEDIES["pw"]
