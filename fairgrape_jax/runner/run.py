"""The story of a run: train dense, then score, select and retrain, round after round.

Every stage (the dense training, each round) is a directory of its own; its metrics.json is written
last and marks it complete. Running again does what is missing: the same command resumes.

RUN/config.json, metrics.jsonl, seed_0/dense/, seed_0/METHOD/round_01/, ...
each stage: checkpoint/, masks.npz, predictions.csv, metrics.json
seed_0/dense/epoch_03: the dense training at an epoch that a method starts from or returns to
"""

from __future__ import annotations

import functools
import time
from pathlib import Path
from typing import Any

from fairgrape_jax import config, parallel
from fairgrape_jax.config import Experiment
from fairgrape_jax.masks import Tree
from fairgrape_jax.parallel import hosts, preemption
from fairgrape_jax.progress import say
from fairgrape_jax.recovery import batch_size
from fairgrape_jax.rounds import cluster
from fairgrape_jax.rounds.epochs import split_stage
from fairgrape_jax.rounds.select import Details
from fairgrape_jax.rounds.session import (
    Network,
    Session,
    copy_on_devices,
    copy_to_host,
)
from fairgrape_jax.runner import layout, resume, retention
from fairgrape_jax.runner.dense import Dense, dense_stage, network_at
from fairgrape_jax.runner.finish import finish
from fairgrape_jax.runner.pace import Pace, Place, epochs_of
from fairgrape_jax.runner.preparation import forget_hidden, keep_hidden, prepare_choice
from fairgrape_jax.runner.prepare import prepare
from fairgrape_jax.runner.recalibrate import recalibrate_pruned, recalibrate_retrained
from fairgrape_jax.runner.round import Round, choose, prune, restore, time_into
from fairgrape_jax.runner.train import approach, train
from fairgrape_jax.storage import clusters
from fairgrape_jax.training.state import State


def run(
    experiment: Experiment,
    directory: Path,
    shard: tuple[int, int] = (0, 1),
    *,
    accept_changed_plugins: bool = False,
) -> bool:
    """Do, or finish, the whole experiment in a directory.

    Args:
        experiment: what to do.
        directory: where; several processes, each with a shard of its own, may share it.
        shard: (i, n), do the i-th of n parts of the study's runs (`resume.shards`).
        accept_changed_plugins: go on where a row from outside (`config.register`) is not what it
            was when the run was begun; its report says so.

    Returns:
        Whether the experiment is complete.

    Raises:
        UsageError: if something is wrong with the request; all that can be is checked first, and
            nothing is written.
        TrainingError: if a number is not finite, or a device has no memory left.
        Preempted: after a notice.
        OSError: if a file cannot be written. In the last three cases complete rounds stay, and the
            same call goes on.
    """
    session = prepare(experiment, directory, accept_changed_plugins)
    with batch_size.advise_on_error(experiment, session.dataset, session.devices):
        pace = Pace(epochs_left(session, directory, shard))
        for seed in experiment.seeds:
            run_seed(session, directory, seed, shard, pace)
    if hosts.is_process_0():
        layout.write_log(directory)  # whole again, wherever its last writer was stopped
    units = resume.shards(experiment, 1)[0]
    complete = all(is_finished(session, directory, *unit) for unit in units)
    say(f"complete: {directory}" if complete else f"this shard is complete: {directory}")
    return complete


def epochs_left(session: Session, directory: Path, shard: tuple[int, int]) -> dict[Place, int]:
    """The epochs of each stage of a shard that is not complete.

    Args:
        session: the run.
        directory: that of the run.
        shard: (i, n), the part of the study that this process does.
    """
    units = resume.shards(session.experiment, shard[1])[shard[0]]
    stages = [Round(session, directory, seed) for seed in dict.fromkeys(seed for seed, _ in units)]
    for seed, method in units:
        stages += rounds_of(session, directory, seed, method)
    return {
        (one.seed, one.method, one.number): epochs_of(one.session.experiment, one.number, one.count)
        for one in stages
        if not layout.is_complete(one.directory)
    }


def run_seed(
    session: Session, directory: Path, seed: int, shard: tuple[int, int], pace: Pace
) -> None:
    """The dense training of a seed, and this shard's methods on it.

    Args:
        session: the run.
        directory: that of the run.
        seed: which one.
        shard: (i, n), the part of the study that this process does.
        pace: of the run.
    """
    parts = resume.shards(session.experiment, shard[1])
    methods = [method for other, method in parts[shard[0]] if other == seed]
    if not methods:
        return
    first = (seed, session.experiment.methods[0])
    owner = next(i for i, part in enumerate(parts) if first in part)
    if owner != shard[0]:
        wait_for_dense(directory, seed, f"shard {owner}/{shard[1]}")
    root = directory / f"seed_{seed}"
    with resume.hold_lock(root / "dense.lock"):
        dense = dense_stage(session, directory, seed)
    pace.finished((seed, "dense", 0))
    for method in methods:
        with resume.hold_lock(root / f"{method}.lock"):
            prune_rounds(session, directory, seed, method, dense=dense, pace=pace)


def wait_for_dense(directory: Path, seed: int, owner: str, seconds: float = 5) -> None:
    """Return when the dense network of a seed is complete, which another process trains.

    Args:
        directory: that of the run.
        seed: whose dense training.
        owner: the shard that trains it, in words.
        seconds: between two looks.
    """
    stage, announced = layout.stage_directory(directory, seed), False
    while not parallel.broadcast_from_process_0(layout.is_complete(stage)):
        if not announced:
            say(f"waiting for {stage}, which {owner} trains: start that one too")
        announced = True
        preemption.stop_if_requested("the wait for another shard")
        time.sleep(seconds)


def is_finished(session: Session, directory: Path, seed: int, method: str) -> bool:
    """Whether the last round of a method is complete.

    Args:
        session: the run.
        directory: that of the run.
        seed: of the rounds.
        method: of the experiment.
    """
    last = rounds_of(session, directory, seed, method)[-1]
    return bool(parallel.broadcast_from_process_0(layout.is_complete(last.directory)))


def rounds_of(session: Session, directory: Path, seed: int, method: str) -> list[Round]:
    """The rounds of a method, with the experiment as the method is put through it.

    Args:
        session: the run.
        directory: that of the run.
        seed: of the rounds.
        method: of the experiment.
    """
    of_method = session.of_method(method)
    count = len(config.densities(of_method.experiment))
    numbers = range(1, count + 1)
    return [Round(of_method, directory, seed, method, number, count) for number in numbers]


def prune_rounds(
    session: Session, directory: Path, seed: int, method: str, *, dense: Dense, pace: Pace
) -> None:
    """All rounds of one method, each from the one before; complete ones are passed over.

    Args:
        session: the run.
        directory: that of the run.
        seed: of the rounds.
        method: of the experiment.
        dense: the dense network of the seed.
        pace: of the run.
    """
    rounds = rounds_of(session, directory, seed, method)
    done = last_complete_round(rounds)
    if done == len(rounds):
        return
    path, samples = directory / f"seed_{seed}" / "clusters.npz", len(session.dataset.train)
    kept = functools.partial(clusters.read_or_make, path, samples, session.devices)
    scored = cluster.session_for_scoring(
        rounds[0].session, dense.network, seed=seed, read_or_make=kept
    )
    origin = rewind_state(rounds[0], dense.network)
    network = starting_network(rounds, done, dense.network)
    for this in rounds[done:]:
        network = one_round(this, network, scored=scored, dense=dense, origin=origin)
        pace.finished((seed, method, this.number))
        checkpoints = session.experiment.execution.checkpoints
        retention.remove_checkpoints(this.directory.parent, this.number, checkpoints)
        forget_hidden(this)


def last_complete_round(rounds: list[Round]) -> int:
    """The number of the round to go on from; what a kill left half done of it is done.

    Args:
        rounds: of the method.
    """
    root, experiment = rounds[0].directory.parent, rounds[0].session.experiment
    done = int(parallel.broadcast_from_process_0(resume.last_intact_round(root, len(rounds))))
    retention.remove_checkpoints(root, done, experiment.execution.checkpoints)
    if hosts.is_process_0():
        for this in rounds[:done]:
            layout.remove_partial(this.directory)
    return done


def rewind_state(this: Round, dense: Network) -> State | None:
    """The state that the weights return to after each choice; None for a method that goes on.

    On the host: a step would take over buffers that a rewound state shares with it.

    Args:
        this: a round of the method.
        dense: the dense network.
    """
    if not this.row.rewinds:
        return None
    point = this.session.experiment.rewind
    return copy_to_host(network_at(this, point, dense)).state


def starting_network(rounds: list[Round], done: int, dense: Network) -> Network:
    """The network before the first round that is to be done.

    Args:
        rounds: of the method.
        done: how many are complete.
        dense: the dense network.
    """
    this = rounds[0]
    point = this.session.experiment.start
    # A step takes over the buffers of its state: the dense one must serve the next method too.
    network = copy_on_devices(network_at(this, point, dense))
    return restore(this.session, rounds[done - 1].directory, network) if done else network


def one_round(
    this: Round, network: Network, *, scored: Session, dense: Dense, origin: State | None
) -> Network:
    """Score, select, prune and retrain; the network at the end of the round.

    Args:
        this: the round.
        network: at its start; the devices take over the buffers of its state.
        scored: the session with the groups that scores look at.
        dense: the network before pruning, and its predictions.
        origin: what the weights return to.
    """
    experiment, seconds = this.session.experiment, dict[str, float]()
    density, last = config.densities(experiment)[this.number - 1], this.number == this.count
    network, carried, before = prepare_choice(this, network, dense=dense.network, scored=scored)
    method, retrain = this.row, config.retraining(experiment)
    options: dict[str, Any] = {"density": density, "dense": dense.network}

    def choose_from(network: Network, carried: Tree) -> tuple[Tree, Details]:
        with time_into(seconds, "score and select"):
            return choose(this, network, session=scored, carried=carried, **options)

    choice = choose_from(network, carried) if method.chooses_first else None
    if method.approach is not None:
        first, retrain = split_stage(retrain, experiment.approach.part)
        with time_into(seconds, "approach"):
            chosen = choice[0] if choice else None
            place = approach(this, network, first, scored=scored, chosen=chosen, **options)
        network, carried = Network(place.state, network.masks), place.carried
        before = (*before, *place.history)
    chosen, details = choice or choose_from(network, carried)
    keep_hidden(this, network, chosen)
    network = prune(this, network, chosen, origin)
    stages = [retrain, experiment.final] if last else [retrain]
    network = recalibrate_pruned(this, network)
    with time_into(seconds, "train"):
        place = train(this, network, stages, dense=dense.network, scored=scored)
    network = recalibrate_retrained(this, Network(place.state, network.masks), dense.network)
    finish(
        this,
        network,
        place,
        details={"seconds": seconds, "selection": details}
        | ({"before_choice": list(before)} if before else {}),
        dense=dense.network,
        dense_predictions=dense.predictions,
    )
    return network
