"""Small experiments whose numbers are made not finite, and losses that do it."""

import dataclasses
from functools import cache

from fairgrape_jax import data, parallel
from fairgrape_jax.config import Stage
from fairgrape_jax.data import batches
from fairgrape_jax.losses import classification
from tests.helpers.experiments import TINY, opened, with_fields

SHORT = dataclasses.replace(TINY, seeds=(0,), methods=("magnitude",), final=Stage(), sparsity=0.5)
plain = classification.cross_entropy


@cache
def pictures():
    return data.load(TINY.data)


def built(**changes):
    """A session, its first network and its first batch, of the network "normed"."""
    experiment = with_fields(TINY, **{"model": "normed", "batch": 32} | changes)
    dataset = pictures()
    session, network = opened(experiment, dataset, experiment.execution.devices)
    samples = next(batches.train_batches(dataset.train, 32, 0, 0))
    return session, network, parallel.split_batch(samples, session.devices)


def with_kernel(state, layer, scale):
    """The state with the kernel of a layer multiplied."""
    kernel = {layer: state.params[layer] | {"kernel": scale * state.params[layer]["kernel"]}}
    return state._replace(params=state.params | kernel)


def times(scale):
    return lambda *args: scale * plain(*args)
