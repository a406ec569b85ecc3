"""AutoPrune's steps on problems small enough to enumerate."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fairgrape_jax import parallel
from fairgrape_jax.remedies import HeldOut
from fairgrape_jax.systems import auxiliary

TRUE = np.array([1.5, -1.1, 0.9, -0.3, 0.2, -0.1], np.float32)


def trained(slope, m, weights, mu, steps=400, rate=0.02):
    """m after steps on the loss sum (t - TRUE)^2 of an orthogonal design, w fixed."""

    def loss(t):
        return jnp.square(t - TRUE).sum()

    @jax.jit
    def step(m):
        gradient = jax.grad(loss)(jnp.where(m >= 0, weights, 0))
        return auxiliary.auxiliary_step(m, weights, gradient, slope=slope, rate=rate, mu=mu)

    for _ in range(steps):
        m = step(m)
    return np.asarray(m)


def best_subset(weights, count):
    """The subset of so many weights of least loss, of all there are."""

    def loss(kept):
        return sum((weights[i] * (i in kept) - TRUE[i]) ** 2 for i in range(len(TRUE)))

    return set(min(itertools.combinations(range(len(TRUE)), count), key=loss))


@pytest.mark.parametrize("slope", auxiliary.SLOPES)
def test_the_largest_auxiliary_parameters_are_the_best_subset(slope):
    """From equal parameters, weights that are right: those whose loss is worth the price stay."""
    m = trained(slope, jnp.full(6, 0.05), jnp.asarray(TRUE), mu=1.0)
    assert set(np.argsort(-m)[:3]) == best_subset(TRUE, 3)
    assert (m[3:] < m[:3].min()).all()


@pytest.mark.parametrize("slope", auxiliary.SLOPES)
def test_a_weight_that_was_cut_by_mistake_comes_back(slope):
    """Recoverability: its m was below zero, its w is untouched, its gradient brings it back."""
    weights = jnp.asarray(TRUE)
    m = jnp.full(6, 0.05).at[0].set(-0.2)
    found = trained(slope, m, weights, mu=0.0, steps=200, rate=0.05)
    assert found[0] >= 0
    np.testing.assert_array_equal(weights, TRUE)


@pytest.mark.parametrize("slope", auxiliary.SLOPES)
def test_the_sign_of_a_weight_counts_and_not_its_size(slope):
    m, gradient = jnp.array([0.3, 0.3]), jnp.array([0.5, -0.5])
    weights = jnp.array([10.0, -0.1])
    moved = auxiliary.auxiliary_step(m, weights, gradient, slope=slope, rate=1.0, mu=0.0)
    np.testing.assert_allclose(moved[0], moved[1])
    assert moved[0] < 0.3


def test_the_slopes_are_the_papers():
    m = jnp.array([-2.0, 0.0, 2.0])
    np.testing.assert_allclose(auxiliary.SLOPES["linear"](m), [1, 1, 1])
    np.testing.assert_allclose(auxiliary.SLOPES["leaky"](m), [0.1, 1, 1], rtol=1e-6)
    sigmoid = 1 / (1 + np.exp(-np.asarray(m)))
    np.testing.assert_allclose(auxiliary.SLOPES["softplus"](m), sigmoid, rtol=1e-6)


@pytest.mark.parametrize("devices", [1, 2, 4])
def test_the_worst_groups_loss_and_gradient_are_those_of_the_whole_batch(devices):
    losses = jnp.array([1.0, 3.0, 2.0, 5.0, 0.5, 9.0, 4.0, 2.0])
    groups = jnp.array([0, 1, 0, 1, 0, -1, 1, 2])

    def each(values, ids):
        return jax.value_and_grad(lambda v: auxiliary.worst_loss(HeldOut(v, v, ids), 4))(values)

    parts = losses.reshape(devices, -1), groups.reshape(devices, -1)
    value, gradient = jax.vmap(each, axis_name=parallel.AXIS)(*parts)
    assert float(value.mean()) == pytest.approx(4.0)
    expected = np.where(np.asarray(groups) == 1, 1 / 3, 0)
    np.testing.assert_allclose(gradient.reshape(-1) / devices, expected, rtol=1e-6)
