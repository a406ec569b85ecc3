"""What the official code does otherwise than its paper, each as a switch that can be on alone."""

import dataclasses

import jax
import numpy as np
import pytest

from fairgrape_jax import config, losses
from fairgrape_jax.config import Scoring
from fairgrape_jax.data import batches, load
from fairgrape_jax.errors import UsageError
from fairgrape_jax.rounds import score
from fairgrape_jax.scoring.statistics import SQUARES
from fairgrape_jax.selection import select_greedy
from fairgrape_jax.training.finite import NotFiniteError
from tests.helpers.experiments import TINY, opened

SEED = 5


def scored(devices=1, over="groups", spoil=None, **fields):
    """Importance in TINY's untrained network, with its session and the network."""
    experiment = dataclasses.replace(TINY, scoring=Scoring(0.3, 16, select="greedy", **fields))
    session, network = opened(experiment, load(TINY.data), devices)
    if spoil is not None:
        params = jax.tree.map(lambda w: w * spoil, network.state.params)
        network = dataclasses.replace(network, state=network.state._replace(params=params))
    return score.importance(session, network, over=over, seed=SEED), session, network


def adam(gradient, moments, step):
    """One step's direction by the formulas of Kingma and Ba, in float64."""
    first, second = moments
    first = 0.9 * first + 0.1 * gradient
    second = 0.999 * second + 0.001 * gradient**2
    corrected = first / (1 - 0.9**step), second / (1 - 0.999**step)
    return corrected[0] / (np.sqrt(corrected[1]) + 1e-8), (first, second)


@pytest.mark.whole(but=1)
@pytest.mark.parametrize("devices", [1, 2])
def test_accumulated_gradients_are_never_cleared_and_the_copy_steps(devices):
    """The official loop, written out: add to the gradient, step, square the stepped weights."""
    found, session, network = scored(devices, gradients="accumulated")
    data = session.dataset
    plan = batches.group_batches(data.train, 0.3, 16, 3, SEED)
    before = jax.device_get(network.state.params)

    def mean_loss(params, images, labels):
        images = (images / 255.0 - np.float32(data.mean)) / np.float32(data.std)
        logits = session.steps.module.apply({"params": params}, images)
        return losses.cross_entropy(logits, labels, data.classes).mean()

    gradient = jax.jit(jax.grad(mean_loss))
    leaves, structure = jax.tree.flatten(before)
    weights = [leaf.astype(np.float64) for leaf in leaves]
    total = [np.zeros_like(leaf) for leaf in weights]
    moments = [(0 * leaf, 0 * leaf) for leaf in weights]
    sums, count = {}, np.zeros(3)
    for step, (rows, valid, k) in enumerate(zip(*plan, strict=True), 1):
        part = data.train.take(rows[valid])
        params = structure.unflatten([w.astype(np.float32) for w in weights])
        new = jax.tree.leaves(gradient(params, part.images.astype(np.float32), part.labels))
        count[k] += 1
        for i in range(len(weights)):
            total[i] = total[i] + new[i]
            direction, moments[i] = adam(total[i], moments[i], step)
            weights[i] = weights[i] - 1e-4 * direction
            sums[k, i] = sums.get((k, i), 0) + (weights[i] * total[i]) ** 2
    expected = [
        np.stack([sums[k, i] / count[k] for k in range(3)])
        for i, name in enumerate(jax.tree_util.tree_leaves_with_path(before))
        if name[0][-1].key == "kernel"
    ]
    assert len(plan.group) > 6
    for a, b in zip(jax.tree.leaves(found), expected, strict=True):
        assert a.shape == b.shape
        assert np.linalg.norm(a - b) <= 1e-4 * np.linalg.norm(b)
    # It is another measure, and the network itself has not moved.
    plain = jax.tree.leaves(scored(devices)[0])
    assert np.linalg.norm(plain[0] - expected[0]) > 0.5 * np.linalg.norm(plain[0])
    after = jax.device_get(network.state.params)
    jax.tree.map(np.testing.assert_array_equal, before, after)


def test_pruned_weights_stay_at_zero_in_the_copy_that_moves():
    _, session, network = scored(gradients="accumulated")
    half = jax.tree.map(
        lambda mask: np.arange(mask.size).reshape(mask.shape) % 2 == 0, network.masks
    )
    network = dataclasses.replace(network, masks=jax.device_put(half))
    tree = score.importance(session, network, over="groups", seed=SEED)
    for leaf, mask in zip(jax.tree.leaves(tree), jax.tree.leaves(half), strict=True):
        assert not np.asarray(leaf)[:, ~mask].any()
        assert np.asarray(leaf)[:, mask].any()


def test_one_row_over_all_samples_is_accumulated_too():
    tree, *_ = scored(over="all", gradients="accumulated", divide="last")
    same, *_ = scored(over="all", gradients="accumulated")
    for leaf, other in zip(jax.tree.leaves(tree), jax.tree.leaves(same), strict=True):
        assert len(leaf) == 1
        np.testing.assert_array_equal(leaf, other)  # one row is divided in any case


def test_what_is_not_finite_is_named():
    with pytest.raises(NotFiniteError, match="in the scores of accumulated gradients"):
        scored(gradients="accumulated", spoil=np.inf)


@pytest.mark.parametrize("gradients", ["cleared", "accumulated"])
def test_the_last_sum_alone_is_divided(gradients):
    """All sums but the last are as many times larger as the group has micro-batches."""
    every, session, _ = scored(gradients=gradients)
    last, *_ = scored(gradients=gradients, divide="last")
    plan = batches.group_batches(session.dataset.train, 0.3, 16, 3, SEED)
    times = np.bincount(plan.group).astype(np.float64)
    assert times[0] > 1
    times[-1] = 1
    for a, b in zip(jax.tree.leaves(last), jax.tree.leaves(every), strict=True):
        np.testing.assert_allclose(a, b * times.reshape(-1, *[1] * (b.ndim - 1)), rtol=1e-5)


@pytest.mark.parametrize("over", ["groups", (0, 2)])
def test_dividing_the_last_alone_leaves_a_divisor_for_groups_without_samples(over):
    rows, valid = np.zeros((2, 1), int), np.ones((2, 4), bool)
    counts = score.scoring.divisors(rows, valid, 3, SQUARES, last_alone=over == "groups")
    assert counts.tolist() == ([1, 0, 0] if over == "groups" else [2, 0, 0])


@pytest.mark.parametrize("groups", [2, 3, 7])
@pytest.mark.parametrize("deficit", ["relative", "absolute"])
def test_where_the_scale_of_the_last_group_matters(deficit, groups):
    """Not to the relative deficit, nor to the absolute one of two groups, which are the same."""
    rng = np.random.default_rng(groups)
    importance = rng.lognormal(0, 2, (groups, 3000)).astype(np.float32)
    alive = np.ones(3000, bool)
    scale = np.where(np.arange(groups) == groups - 1, 2.0**-6, 1)[:, None]
    whole = select_greedy(importance, alive, 300, deficit=deficit)
    scaled = select_greedy(importance * scale, alive, 300, deficit=deficit)
    matters = deficit == "absolute" and groups > 2
    assert np.array_equal(whole, scaled) != matters
    if groups == 2:
        np.testing.assert_array_equal(whole, select_greedy(importance, alive, 300))


@pytest.mark.parametrize(
    ("scoring", "message"),
    [
        (Scoring(gradients="accumulated", formula="square-of-mean"), "scoring.gradients: accum"),
        (Scoring(gradients="accumulated", form="mixed"), "scoring.gradients: accumulated"),
        (Scoring(gradients="none"), "scoring.gradients"),
        (Scoring(divide="first"), "scoring.divide"),
    ],
    ids=str,
)
def test_what_does_not_go_with_them_is_refused(scoring, message):
    with pytest.raises(UsageError, match=message):
        config.check(dataclasses.replace(TINY, scoring=scoring))


def test_groups_that_lie_on_devices_cannot_be_accumulated():
    execution = dataclasses.replace(TINY.execution, shard_groups=True)
    spread = dataclasses.replace(
        TINY, execution=execution, scoring=Scoring(gradients="accumulated")
    )
    with pytest.raises(UsageError, match=r"execution\.shard_groups: accumulated gradients go"):
        config.check(spread)
