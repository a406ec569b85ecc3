"""The Taylor criterion of filters, against activations times their gradients."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fairgrape_jax.data import load
from fairgrape_jax.losses.distillation import Performance
from fairgrape_jax.methods.taylor_filters import TAYLOR, score
from fairgrape_jax.remedies import Remedy
from fairgrape_jax.rounds.select import make_problem, select
from tests.helpers.experiments import TINY, opened


def loss_of(z, head):
    """Of the outputs of a convolution."""
    return jnp.square(jnp.tanh(z).mean(axis=(1, 2)) @ head).sum()


def test_a_filter_counts_by_the_activation_times_its_gradient():
    rng = np.random.default_rng(0)
    x, kernel, head = (
        jnp.asarray(rng.standard_normal(shape), jnp.float32)
        for shape in ((4, 6, 6, 2), (3, 3, 2, 5), (5, 3))
    )
    mask = rng.random(kernel.shape) < 0.7
    mask[..., 4] = False  # a filter that is gone
    kernel = jnp.where(mask, kernel, 0)

    def convolve(kernel):
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers)

    z = convolve(kernel)
    expected = np.abs((z * jax.grad(loss_of)(z, head)).sum(axis=(0, 1, 2)))
    gradient = jax.grad(lambda kernel: loss_of(convolve(kernel), head))(kernel)
    values = TAYLOR.of_gradient(
        {"w": mask, "b": None}, {"w": kernel, "b": 0}, {"w": gradient, "b": 0}
    )
    assert values["b"] is None
    np.testing.assert_allclose(values["w"].sum(axis=(0, 1, 2)), expected, rtol=1e-4, atol=1e-6)
    assert not np.asarray(values["w"])[~mask].any()
    for number in range(5):
        alive = np.asarray(values["w"])[..., number][mask[..., number]]
        assert np.ptp(alive) == 0 if alive.size else number == 4


@pytest.mark.parametrize("of", ["none", "flops"])
def test_a_round_keeps_the_filters_of_largest_score(of):
    scoring = dataclasses.replace(TINY.scoring, structures=of)
    session, network = opened(dataclasses.replace(TINY, scoring=scoring), load(TINY.data))
    masks, _ = select(session, network, "taylor-filters", density=0.5, seed=0)
    scores = score(make_problem(session, network, seed=0))["conv1"]["kernel"].sum(axis=(0, 1, 2))
    kept = masks["conv1"]["kernel"].any(axis=(0, 1, 2))
    assert scores[kept].min() >= scores[~kept].max()
    if of == "flops":
        assert (masks["conv1"]["kernel"].all(axis=(0, 1, 2)) == kept).all()


def test_filters_can_be_scored_by_the_performance_weighted_loss():
    """As in the paper: of the unpruned network's outputs, whose part in the loss changes scores."""
    dataset = load(TINY.data)
    scores = []
    for remedy in (Remedy(), Remedy(pw=Performance(weights=True, labels=True))):
        session, network = opened(dataclasses.replace(TINY, remedy=remedy), dataset)
        problem = make_problem(session, network, seed=0, dense=network)
        scores.append(score(problem)["conv2"]["kernel"])
    assert all(np.isfinite(leaf).all() for leaf in scores)
    assert not np.allclose(*scores, rtol=1e-3)
