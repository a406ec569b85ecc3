"""The dense training of a seed, its points that methods start from or return to, and its end."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from fairgrape_jax import config, parallel
from fairgrape_jax.config import protocols
from fairgrape_jax.parallel import hosts
from fairgrape_jax.rounds.session import (
    Network,
    Session,
    initial_network,
)
from fairgrape_jax.runner import layout, predictions, resume
from fairgrape_jax.runner.finish import finish
from fairgrape_jax.runner.round import Round, restore, time_into
from fairgrape_jax.runner.train import train
from fairgrape_jax.storage import checkpoint
from fairgrape_jax.training.evaluate import Predictions
from fairgrape_jax.training.state import State


class Dense(NamedTuple):
    """The dense network of a seed, and its predictions on the test split."""

    network: Network
    predictions: Predictions


def dense_stage(session: Session, directory: Path, seed: int) -> Dense:
    """The dense network of a seed: restored if it is complete, else trained.

    Args:
        session: the run.
        directory: that of the run.
        seed: of the training.
    """
    this, network = Round(session, directory, seed), initial_network(session, seed)
    points = protocols.starting_epochs(session.experiment)
    if restored := restore_dense(this, network, points):
        return restored

    def keep(epoch: int, state: State) -> None:
        if epoch in points:
            tree = {"state": state, "masks": network.masks}
            checkpoint.save(layout.epoch_directory(this.directory, epoch) / "checkpoint", tree)

    seconds: dict[str, float] = {}
    with time_into(seconds, "train"):
        place = train(this, network, [session.experiment.dense], after=keep)
    network = Network(place.state, network.masks)
    return Dense(network, finish(this, network, place, details={"seconds": seconds}))


def restore_dense(this: Round, like: Network, points: set[int]) -> Dense | None:
    """The dense network of a seed and its predictions if all of it is complete and sound.

    Args:
        this: the stage.
        like: a network of the same shapes.
        points: the epochs of the dense training that are needed too.
    """
    kept = [layout.epoch_directory(this.directory, epoch) / "checkpoint" for epoch in points]
    sound = resume.is_intact(this.directory) and not any(map(checkpoint.damaged_files, kept))
    if not parallel.broadcast_from_process_0(sound):
        return None
    if hosts.is_process_0():
        layout.remove_partial(this.directory)  # a kill may have come before
    dataset = this.session.dataset
    tasks = [(task.name, task.classes) for task in dataset.tasks]
    tested = predictions.read_predictions(this.directory / "predictions.csv", dataset.groups, tasks)
    return Dense(restore(this.session, this.directory, like), tested)


def network_at(this: Round, point: config.Point, dense: Network) -> Network:
    """The network of the dense training at a point of it; `dense` is that at its end.

    Args:
        this: a round of the method.
        point: of the dense training.
        dense: the network at its end.
    """
    if point == "dense":
        return dense
    network = initial_network(this.session, this.seed)
    if point == "initial":
        return network
    stage = layout.stage_directory(this.run, this.seed)
    return restore(this.session, layout.epoch_directory(stage, point.number), network)
