"""Running statistics of batch norm, taken anew for a network that has been pruned or retrained.

They are running means of what training saw while the weights moved. In a network of few weights,
which a step changes much, they lag behind: evaluation then sees another network than training did.
"""

from __future__ import annotations

import itertools

import jax
import numpy as np

from fairgrape_jax import parallel
from fairgrape_jax.data import batches
from fairgrape_jax.rounds.retraining import retraining_step
from fairgrape_jax.rounds.session import Network
from fairgrape_jax.runner.round import Round
from fairgrape_jax.systems.quantised import with_leaves_of, without_quantisers
from fairgrape_jax.training.epoch import Step
from fairgrape_jax.training.state import Carry


def recalibrate_pruned(this: Round, network: Network) -> Network:
    """The network with its new masks, before it is retrained.

    Args:
        this: the round.
        network: with its new masks; its quantisers have seen nothing.
    """
    count = this.session.experiment.remedy.recalibrate
    return recalibrate(this, network, count, this.session.steps.train)


def recalibrate_retrained(this: Round, network: Network, dense: Network) -> Network:
    """The network at the end of its retraining, as it runs from then on.

    Args:
        this: the round.
        network: as it was retrained.
        dense: the network before pruning, for a loss that looks at it.
    """
    session = this.session
    remedy, step = session.experiment.remedy, session.steps.train
    if session.experiment.quantise.active:
        step = retraining_step(session.steps, remedy, dense.state, ingredients=())
    return recalibrate(this, network, remedy.recalibrate_after, step)


def recalibrate(this: Round, network: Network, count: int, step: Step) -> Network:
    """The network with running statistics taken from pictures as it sees them now.

    Parameters, optimizer, counters and the ranges of quantisers stay as they are: steps at a rate
    of zero, of which nothing else is kept. Whoever comes back to the round takes the same steps.

    Args:
        this: the round.
        network: which one; the devices keep its buffers.
        count: of batches; 0 leaves the network as it is.
        step: of a training, called as `Steps.train`.
    """
    session, state = this.session, network.state
    if not count or not jax.tree.leaves(without_quantisers(state.batch_stats)):
        return network
    split, batch, devices = session.dataset.train, session.experiment.batch, session.devices
    epochs = -(-count // batches.steps_per_epoch(len(split), batch))
    place = parallel.process_index_and_count()
    samples = batches.train_batches(split, batch, this.draw, 0, part=place, epochs=epochs)
    rows = (parallel.split_batch(each, devices) for each in itertools.islice(samples, count))
    copy = jax.tree.map(lambda x: x.copy(), state)
    carry = Carry(copy, parallel.replicate(np.True_, devices))
    for placed in parallel.prefetch_to_devices(rows, devices):
        carry, _ = step(carry, network.masks, placed, np.float32(0))
    statistics = without_quantisers(carry.state.batch_stats)
    batch_stats = with_leaves_of(state.batch_stats, statistics)
    return Network(state._replace(batch_stats=batch_stats), network.masks)
