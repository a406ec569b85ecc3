"""A network of layers that go wrong, and the masks of a round on it."""

import dataclasses
from functools import cache

import jax
import jax.numpy as jnp
from flax import linen as nn

from fairgrape_jax import masks, parallel
from fairgrape_jax.config import Experiment, Scoring
from fairgrape_jax.data import load, source
from fairgrape_jax.rounds import select
from fairgrape_jax.rounds.session import Network
from tests.helpers.experiments import opened


class Odd(nn.Module):
    """Layers that go wrong: without a weight, without a signal, all alike, hardly any."""

    num_classes: int
    axis_name: str | None = None
    dtype: type = jnp.float32

    @nn.compact
    def __call__(self, x, train=False):
        how, init = {"dtype": self.dtype}, nn.initializers
        y = nn.Conv(4, (3, 3), **how, name="conv")(x)
        y += nn.Conv(4, (3, 3), kernel_init=init.zeros, **how, name="zero")(x)
        y += nn.relu(nn.Conv(4, (3, 3), bias_init=init.constant(-1e3), **how, name="dead")(x))
        y = nn.BatchNorm(use_running_average=not train, axis_name=self.axis_name, **how)(y)
        y = nn.relu(y).mean((1, 2))
        y += nn.Dense(4, kernel_init=init.constant(0.1), **how, name="tied")(y)
        y += nn.Dense(1, **how, name="few")(y)
        y = nn.Dense(self.num_classes, **how, name="head")(y)
        return y.astype(jnp.promote_types(self.dtype, jnp.float32))


@cache
def built(devices):
    """The session of the odd network on so many devices, and the network."""
    dataset = load(source("synthetic", samples=240, groups=3, size=8))
    experiment = Experiment(source("synthetic"), "odd", scoring=Scoring(0.5, micro_batch=8))
    return opened(experiment, dataset, devices)


def with_scoring(session, **changes):
    """The session with other fields of `scoring`."""
    scoring = dataclasses.replace(session.experiment.scoring, **changes)
    experiment = dataclasses.replace(session.experiment, scoring=scoring)
    return dataclasses.replace(session, experiment=experiment)


def pruned(name, density, devices=1, allocation="uniform", alive=None, seed=0):
    """The masks of a round, as a run makes them."""
    session, network = built(devices)
    # The fixed point's program is compiled for each number of groups: for one of the methods.
    how = "threshold" if name == "fairgrape" else "greedy"
    session = with_scoring(session, allocation=allocation, select=how)
    experiment = dataclasses.replace(session.experiment, min_keep_per_layer=1)
    session = dataclasses.replace(session, experiment=experiment)
    network = network if alive is None else Network(network.state, alive)
    chosen, _ = select.select(session, network, name, density=density, seed=seed)
    return parallel.replicate(chosen, session.devices)


def alive_in(tree):
    return {row["layer"]: row["alive"] for row in masks.sparsity_table(jax.device_get(tree))}
