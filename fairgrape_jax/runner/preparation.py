"""What comes before the choice of a round, for methods by which pruned weights may come back.

ROUND/hidden: the weights that a round has pruned, for methods that remember them.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from fairgrape_jax import config, masks
from fairgrape_jax.masks import Tree
from fairgrape_jax.parallel import hosts
from fairgrape_jax.rounds.saves import EpochRecord, save
from fairgrape_jax.rounds.select import open_masks
from fairgrape_jax.rounds.session import Network, Session, place_on_devices
from fairgrape_jax.runner import layout
from fairgrape_jax.runner.round import Round
from fairgrape_jax.runner.train import train
from fairgrape_jax.storage import checkpoint, remove_tree

HIDDEN = "hidden"  # in the directory of a round


class Prepared(NamedTuple):
    """What a round chooses from.

    Attributes:
        network: on the devices.
        carried: what the ingredients of its preparation carried in the end, by name.
        history: the record of each epoch that was trained before the choice.
    """

    network: Network
    carried: Tree = ()
    history: tuple[EpochRecord, ...] = ()


def prepare_choice(this: Round, network: Network, *, dense: Network, scored: Session) -> Prepared:
    """The network that a round chooses from: as it is, trained once more, or with weights back.

    What was trained is kept until the round is over.

    Args:
        this: the round.
        network: at its start; the devices take over the buffers of its state.
        dense: the network before pruning.
        scored: the session with the groups that scores look at.
    """
    row, session = this.row, this.session
    if row.remembers and this.number > 1:
        network = remember(this, network)
    preparation = row.prepares
    if preparation is None or (this.number == 1 and not preparation.first):
        return Prepared(network)
    if preparation.all_weights:
        network = open_masks(session, network)
    if session.experiment.reset_optimizer:
        state = network.state
        fresh = state._replace(opt_state=session.steps.optimizer.init(state.params))
        network = place_on_devices(session, Network(fresh, network.masks))
    stages = [config.retraining(session.experiment)]
    place = train(this, network, stages, dense=dense, scored=scored, preparation=preparation)
    if not this.chosen.exists():
        save(this.preparation_slots, place)
        this.preparation_slots.wait()
    return Prepared(Network(place.state, network.masks), place.carried, place.history)


def remember(this: Round, network: Network) -> Network:
    """The network with pruned weights as they were when they were pruned.

    Args:
        this: the round, not the first.
        network: at its start, pruned weights at zero.
    """
    state, alive = jax.device_get((network.state, network.masks))
    like = masks.select_prunable(alive, state.params)
    hidden = checkpoint.restore(_place(this, this.number - 1), like)
    params = masks.map_masked(
        lambda m, w, h: w if m is None else np.where(m, w, h), alive, state.params, hidden
    )
    return place_on_devices(this.session, Network(state._replace(params=params), alive))


def keep_hidden(this: Round, network: Network, chosen: Tree) -> None:
    """Keep the weights that a round prunes, where they may come back in a later one.

    Args:
        this: the round.
        network: that it chose from.
        chosen: its masks.
    """
    if not this.row.remembers or this.number == this.count:
        return
    alive, params = jax.device_get((chosen, network.state.params))
    weights = masks.select_prunable(alive, params)
    hidden = jax.tree.map(lambda m, w: np.where(m, np.zeros_like(w), w), alive, weights)
    checkpoint.save(_place(this, this.number), hidden)


def forget_hidden(this: Round) -> None:
    """Remove the pruned weights of earlier rounds that cannot be gone on from any more.

    Args:
        this: a round that is complete.
    """
    if not this.row.remembers or not hosts.is_process_0():
        return
    for number in range(1, this.number):
        place = _place(this, number)
        if this.number == this.count or not (place.parent / "checkpoint").is_dir():
            remove_tree(place, ignore_errors=True)


def _place(this: Round, number: int) -> Path:
    return layout.round_directory(this.directory.parent, number) / HIDDEN
