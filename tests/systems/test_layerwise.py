"""Channels by incoming activations: of the network pruned so far, and by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fairgrape_jax.data import load
from fairgrape_jax.methods import METHODS
from fairgrape_jax.methods.layerwise import ACTIVITY
from fairgrape_jax.rounds import select
from fairgrape_jax.rounds.scored_network import make_scored_network
from tests.helpers.experiments import opened
from tests.helpers.ingredient_runs import TINY


@pytest.fixture(scope="module")
def problem():
    session, network = opened(TINY, load(TINY.data), 1, seed=1)
    return session, select.make_problem(session, network, seed=0)


def test_what_comes_in_is_what_the_layers_before_make(problem):
    """By the network's formulas, for each layer, on one batch with a sample that does not count."""
    session, question = problem
    images = jnp.asarray(session.dataset.train.images[:5])
    valid = np.array([1, 1, 0, 1, 1], bool)
    network = make_scored_network(session.steps.module, session.dataset, "pure")({})
    batch = {"images": images, "labels": None, "valid": valid}
    params = jax.tree.map(jnp.asarray, question.params)
    means = ACTIVITY(network, params, question.masks, batch, None)
    x = (images / 255.0 - jnp.asarray(session.dataset.mean)) / jnp.asarray(session.dataset.std)
    for name in question.layers:
        kernel, bias = params[name]["kernel"], params[name]["bias"]
        if kernel.ndim == 2 and x.ndim == 4:
            x = x.reshape(len(x), -1)
        expected = jnp.abs(x[valid]).reshape(-1, x.shape[-1]).mean(axis=0)
        rows = np.broadcast_to(np.asarray(expected)[:, None], kernel.shape)
        np.testing.assert_allclose(means[name]["kernel"], rows, rtol=1e-4, atol=1e-6)
        if kernel.ndim == 4:
            x = jax.lax.conv_general_dilated(
                x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            x = jax.nn.relu(x + bias)
            b, h, w, c = x.shape
            x = x.reshape(b, h // 2, 2, w // 2, 2, c).max(axis=(2, 4))
        else:
            x = jax.nn.relu(x @ kernel + bias)


def test_layers_see_what_is_pruned_before_them(problem):
    """The second layer's choice is that of activations of the pruned first two."""
    _, question = problem
    chosen = METHODS["layerwise"].choose(question, 0.4)
    name = question.layers[2]
    masks = {
        layer: dict(mask) if layer in question.layers[:2] else question.masks[layer]
        for layer, mask in chosen.items()
    }
    params = jax.tree.map(
        lambda mask, leaf: leaf if mask is None else np.where(mask, leaf, 0),
        masks,
        question.params,
        is_leaf=lambda leaf: leaf is None,
    )
    mean = question.average(ACTIVITY, params=params)[name]["kernel"][0, :, 0]
    stays = chosen[name]["kernel"].any(axis=1)
    assert 0 < stays.sum() < len(stays)
    assert mean[stays].min() >= mean[~stays].max()
    once = METHODS["layerwise-once"].choose(question, 0.4)
    before = question.average(ACTIVITY)[name]["kernel"][0, :, 0]
    stays = once[name]["kernel"].any(axis=1)
    assert before[stays].min() >= before[~stays].max()
    first = chosen[question.layers[0]]["kernel"]
    assert first.all()
