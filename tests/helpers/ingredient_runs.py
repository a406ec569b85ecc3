"""Trainings with ingredients of retraining: one step of them, and whole ones that are stopped."""

import dataclasses
from contextlib import contextmanager
from functools import cache

import jax
import numpy as np
import pytest

from fairgrape_jax import parallel, passes
from fairgrape_jax.config import Execution, Experiment, Scoring, Stage
from fairgrape_jax.data import batches, load, source
from fairgrape_jax.remedies import INGREDIENTS, Remedy, active
from fairgrape_jax.rounds import ingredients, steps, train
from fairgrape_jax.rounds.ingredients import TakingPart
from fairgrape_jax.rounds.retraining import retraining_step
from fairgrape_jax.rounds.session import Session, initial_network
from fairgrape_jax.storage import resumable
from fairgrape_jax.storage.resumable import Passes
from fairgrape_jax.storage.slots import Slots
from fairgrape_jax.training import Carry
from tests.helpers.experiments import opened

TINY = Experiment(
    data=source("synthetic", samples=240, groups=3, classes=3, size=8, seed=1),
    model="cnn",
    methods=("magnitude",),
    sparsity=0.5,
    keep_per_round=0.5,
    dense=Stage((1,), (1e-2,)),
    retrain=Stage((2,), (1e-3,)),
    final=Stage(),
    scoring=Scoring(fraction=0.5, micro_batch=16, select="greedy"),
    batch=32,
    execution=Execution(devices=1),
)


@contextmanager
def only(row, options):
    """While the body runs, another row of the table is on in every remedy."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(INGREDIENTS, "new", dataclasses.replace(row, options=lambda remedy: options))
        begun.cache_clear()
        yield
    begun.cache_clear()


@cache
def without_remedy(devices: int):
    """The session and the dense network before training, of all remedies."""
    return opened(dataclasses.replace(TINY, optimizer="sgd"), load(TINY.data), devices, seed=1)


@cache
def begun(remedy: Remedy, devices: int = 1):
    """The session, the dense network, what takes part and the step of a retraining."""
    session, dense = without_remedy(devices)
    experiment = dataclasses.replace(session.experiment, remedy=remedy)
    retrain = steps.build(experiment, session.dataset, session.devices).retrain
    session = Session(
        experiment, session.dataset, dataclasses.replace(session.steps, retrain=retrain)
    )
    taking = TakingPart(active(remedy), session, dense)
    step = retraining_step(session.steps, remedy, dense.state, session.dataset)
    return session, taking, step


def one_step(remedy, devices: int, begin=begun):
    """The loss, the change of the parameters and what is carried, after a step at rate 1.

    Of SGD: its first step is along the gradient, whatever the momentum.
    """
    session, taking, step = begin(remedy, devices)
    network = initial_network(session, seed=0)
    before = jax.device_get(network.state.params)
    carried = ingredients.start(taking, network, 1, session.devices, passes.fold)
    samples = next(
        batches.train_batches(
            session.dataset.train, 32, 0, 0, order=taking.order, held_out=taking.held_out
        )
    )
    cut = parallel.split_batch(samples, session.devices)
    carry = Carry(network.state, carried=carried)
    carry, report = step(carry, network.masks, cut, np.float32(1))
    after = jax.device_get(carry.state.params)
    moved = jax.tree.map(lambda a, b: a - b, after, before)
    return float(report.loss), moved, jax.device_get(carry.carried)


class StoppedError(Exception):
    """A stop in the middle."""


def trained(remedy, directory, stop_after=None, begin=begun):
    """The place after two epochs, saved at every step; stopped after so many steps, if any."""
    session, taking, step = begin(remedy)
    network, count = initial_network(session, seed=0), 0

    def counted(*args):
        nonlocal count
        if stop_after is not None and count == stop_after:
            raise StoppedError
        count += 1
        return step(*args)

    training = train.Training(
        session=session,
        masks=network.masks,
        step=counted,
        seed=0,
        title="",
        slots=Slots(directory / "partial"),
        passes=Passes(directory / "partial/passes", session.devices),
        taking=taking,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resumable, "SAVE_EVERY", 0.0)
        patch.setattr(resumable, "LOOK_EVERY", 1)
        place = train.run_stages(training, network.state, [Stage((2,), (1e-3,))])
    return jax.device_get((place.state, place.carried)), place.history
