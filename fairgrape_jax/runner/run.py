"""The story of a run: train dense, then score, select and retrain, round after round.

Every stage (the dense training, each round) is a directory of its own; its metrics.json is written
last and marks it complete. Running again does what is missing: the same command resumes.

RUN/config.json, metrics.jsonl, seed_0/dense/, seed_0/METHOD/round_01/, ...
each stage: checkpoint/, masks.npz, predictions.csv, metrics.json
seed_0/dense/epoch_03: the dense training at an epoch that a method starts from or returns to
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fairgrape_jax import config, data, masks, parallel, storage
from fairgrape_jax.config import Experiment, Stage, protocols
from fairgrape_jax.errors import UsageError
from fairgrape_jax.methods import METHODS
from fairgrape_jax.parallel import hosts, preemption
from fairgrape_jax.progress import bar, say
from fairgrape_jax.recovery import batch_size, replay, rollback
from fairgrape_jax.rounds import cluster, select, steps, train
from fairgrape_jax.runner import (
    disk_space,
    finish,
    layout,
    predictions,
    preflight,
    resume,
    retention,
)
from fairgrape_jax.runner.finish import Run
from fairgrape_jax.storage import checkpoint, lock
from fairgrape_jax.storage.files import write_json
from fairgrape_jax.training import evaluate
from fairgrape_jax.training.step import State

Tree = masks.Tree


def run(experiment: Experiment, directory: Path, shard: tuple[int, int] = (0, 1)) -> bool:
    """Do, or finish, the whole experiment in `directory`; returns whether it is complete.

    shard: (i, n), do the i-th of n parts of the study's runs (`resume.shards`); several processes,
    each with a part of its own, share the directory.

    Everything that can be wrong with the request is looked at first: UsageError then, and nothing
    is written. TrainingError if a number is not finite or a device has no memory left, OSError if
    a file cannot be written; complete rounds stay and can be resumed.
    """
    config.check(experiment)
    devices = parallel.local_devices(experiment.devices)
    # All together before the reading, which may take one host longer than another: connections
    # between hosts are made in the first exchange, and that has a time limit.
    parallel.broadcast_from_process_0(0)
    preflight.check_directory(experiment, directory)
    if hosts.is_process_0():
        storage.check_writable(directory)
    with bar("reading") as move:
        dataset = data.load(experiment.data, move)
    preflight.check_fit(experiment, dataset, parallel.device_count(devices))
    given = [np.frombuffer(json.dumps(config.to_dict(experiment)).encode(), np.uint8)]
    splits = (dataset.train, dataset.validation, dataset.test)
    if not parallel.processes_agree([given, *(split.evidence() for split in splits)]):
        raise UsageError(
            "--distributed: the processes were given different options or read different data; "
            "start all with the same command on the same files"
        )
    compiled = steps.build(experiment, dataset, devices)
    first = steps.initial_state(experiment, compiled, dataset, experiment.seeds[0])
    full = masks.full_masks(first.params)
    preflight.check_layers(experiment, full, compiled.layers)
    if hosts.is_process_0():
        disk_space.check(experiment, directory, (first, full), dataset)
    del first  # a network that would stay on the devices
    for line in (*dataset.notes, *preflight.notes(experiment, devices[0].platform)):
        say(f"note: {line}")
    parallel.broadcast_from_process_0(0)  # no process looks at the directory from here on
    if hosts.is_process_0():
        write_config(experiment, directory, devices)
        lock.remove_leftovers(directory)
    this = Run(experiment, directory, dataset, compiled)
    parts = resume.shards(experiment, shard[1])
    with batch_size.advice(experiment, dataset, devices):
        for seed in experiment.seeds:
            methods = [method for other, method in parts[shard[0]] if other == seed]
            if not methods:
                continue
            owner = next(i for i, part in enumerate(parts) if (seed, experiment.methods[0]) in part)
            if owner != shard[0]:
                wait_for(this, seed, f"shard {owner}/{shard[1]}")
            root = directory / f"seed_{seed}"
            with resume.writing(root / "dense.lock"):
                state, dense = dense_stage(this, seed)
            for method in methods:
                with resume.writing(root / f"{method}.lock"):
                    prune_rounds(this, seed, method, state, dense)
    if hosts.is_process_0():
        layout.write_log(directory)  # whole again, wherever its last writer was stopped
    missing = [unit for unit in resume.shards(experiment, 1)[0] if not finished(this, *unit)]
    say(f"complete: {directory}" if not missing else f"this shard is complete: {directory}")
    return not missing


def finished(run: Run, seed: int, name: str) -> bool:
    """Whether the last round of a method is complete."""
    last = len(config.densities(protocols.of_method(run.experiment, name)))
    root = run.directory / f"seed_{seed}" / name
    done = layout.complete(layout.round_directory(root, last))
    return bool(parallel.broadcast_from_process_0(done))


def wait_for(run: Run, seed: int, owner: str, seconds: float = 5) -> None:
    """Return when the dense network of `seed` is complete, which another process trains."""
    directory, said = run.directory / f"seed_{seed}" / "dense", False
    while not parallel.broadcast_from_process_0(layout.complete(directory)):
        if not said:
            say(f"waiting for {directory}, which {owner} trains: start that one too")
        said = True
        preemption.stop_if_requested("the wait for another shard")
        time.sleep(seconds)


def write_config(experiment: Experiment, directory: Path, devices: list[jax.Device]) -> None:
    """RUN/config.json: every field, with versions and machine; kept as it is on resuming."""
    path = directory / "config.json"
    if path.exists():
        return
    directory.mkdir(parents=True, exist_ok=True)
    packages = ("fairgrape-jax", "jax", "flax", "optax", "orbax-checkpoint", "numpy")
    write_json(
        path,
        {
            "format": config.FORMAT,
            "experiment": config.to_dict(experiment),
            "versions": {name: importlib.metadata.version(name) for name in packages}
            | {"python": platform.python_version()},
            "devices": {
                "kind": devices[0].device_kind,
                "platform": devices[0].platform,
                "count": parallel.device_count(devices),
                "processes": parallel.process_index_and_count()[1],
            },
        },
    )


def dense_stage(run: Run, seed: int) -> tuple[State, evaluate.Predictions]:
    """The dense network of `seed`, trained or restored, and its predictions on the test split."""
    directory = run.directory / f"seed_{seed}" / "dense"
    state = steps.initial_state(run.experiment, run.steps, run.dataset, seed)
    full = steps.initial_masks(run.steps, state)
    kept = [layout.epoch_directory(directory, epoch) for epoch in protocols.points(run.experiment)]
    sound = resume.intact(directory) and not any(
        checkpoint.damaged_files(k / "checkpoint") for k in kept
    )
    if parallel.broadcast_from_process_0(sound):
        if hosts.is_process_0():
            train.forget(directory)  # a kill may have come before
        state, full = restore(run, directory, state, full)
        tasks = [(task.name, task.classes) for task in run.dataset.tasks]
        said = predictions.read_predictions(
            directory / "predictions.csv", run.dataset.groups, tasks
        )
        return state, said
    title = f"seed {seed} dense"
    started = time.perf_counter()
    plan = [run.experiment.dense]

    def keep(epoch: int, state: State) -> None:
        if epoch in protocols.points(run.experiment):
            tree = {"state": state, "masks": full}
            checkpoint.save(layout.epoch_directory(directory, epoch) / "checkpoint", tree)

    state, history = train_stages(
        run, directory, state, full, plan, seed=seed, title=title, after=keep
    )
    kept_place = train.kept(directory, state, history, run.steps.devices)
    with kept_place, replay.written(directory, full, seed, run.dataset):
        predicted = finish.tested(run, directory, state, full)
        record = {
            "seed": seed,
            "method": "dense",
            "round": 0,
            "rounds": 0,
            "seconds": {"train": time.perf_counter() - started},
            "history": history,
            "importance": finish.group_totals(run, directory, state, full, seed),
        }
        finish.finish(run, directory, state, full, predicted, predicted, record)
    return state, predicted


def state_at(run: Run, seed: int, epoch: int | None, dense: State) -> State:
    """The state of the dense training at an epoch; 0 for the initial one, None for the last."""
    if epoch is None:
        return dense
    state = steps.initial_state(run.experiment, run.steps, run.dataset, seed)
    if not epoch:
        return state
    directory = layout.epoch_directory(run.directory / f"seed_{seed}" / "dense", epoch)
    return restore(run, directory, state, steps.initial_masks(run.steps, state))[0]


def prune_rounds(run: Run, seed: int, name: str, state: State, dense: evaluate.Predictions) -> None:
    """All rounds of one method, from the dense network's `state` or the point that the method
    starts from; complete ones are passed over."""
    experiment = protocols.of_method(run.experiment, name)
    densities = config.densities(experiment)
    root = run.directory / f"seed_{seed}" / name
    done = int(parallel.broadcast_from_process_0(resume.last_intact(root, len(densities))))
    # A kill may have come before these were done.
    retention.prune(root, done, experiment.checkpoints)
    if hosts.is_process_0():
        for number in range(1, done + 1):
            train.forget(layout.round_directory(root, number))
    if done == len(densities):
        return
    groups = cluster.scored_by(
        experiment, run.steps, run.dataset, state, root.parent / "clusters.npz", seed
    )
    unpruned, origin = state, None
    if METHODS[name].rewinds:
        # On the host: a step would take over buffers that a rewound state shares with it.
        origin = state_at(run, seed, config.point(experiment, "rewind"), state)
        origin = jax.tree.map(np.array, jax.device_get(origin))
    state = state_at(run, seed, config.point(experiment, "start"), state)
    # A step takes over the buffers of its state: the dense one must serve the next method too.
    state = jax.tree.map(lambda x: x.copy(), state)
    alive = steps.initial_masks(run.steps, state)
    if done:
        state, alive = restore(run, layout.round_directory(root, done), state, alive)
    for number in range(done + 1, len(densities) + 1):
        last, directory = number == len(densities), layout.round_directory(root, number)
        title = f"seed {seed} {name} round {number}/{len(densities)}"
        seconds: dict[str, float] = {}
        started = time.perf_counter()
        density, draw = densities[number - 1], finish.round_seed(seed, number)
        with replay.written(directory, alive, seed, run.dataset):
            alive, details = select.select(
                *(experiment, run.steps, groups, name, state, alive, density, draw, unpruned),
                directory / "partial",
            )
        for line in select.unsolved(details):
            say(f"{title}: {line}")
        seconds["score and select"] = time.perf_counter() - started
        state = pruned(run, state, alive, origin)
        started = time.perf_counter()
        plan = [experiment.retrain, experiment.final] if last else [experiment.retrain]
        step = steps.retraining(experiment, run.steps, unpruned)
        state, history = train_stages(
            run, directory, state, alive, plan, seed=seed, title=title, step=step
        )
        seconds["train"] = time.perf_counter() - started
        kept = train.kept(directory, state, history, run.steps.devices)
        with kept, replay.written(directory, alive, seed, run.dataset):
            predicted = finish.tested(run, directory, state, alive)
            record = {
                "seed": seed,
                "method": name,
                "round": number,
                "rounds": len(densities),
                "seconds": seconds,
                "history": history,
                "selection": details,
            }
            if last:
                given = run, directory, state, alive, seed, unpruned
                record["importance"] = finish.group_totals(*given)
            finish.finish(run, directory, state, alive, predicted, dense, record)
        retention.prune(root, number, experiment.checkpoints)


def pruned(run: Run, state: State, alive: Tree, origin: State | None = None) -> State:
    """The state with pruned weights at zero and, if so configured, a fresh optimizer.

    origin: the point to return to, with its parameters and batch statistics; the counters go on.
    """
    if origin is not None:
        state = state._replace(params=origin.params, batch_stats=origin.batch_stats)
    params = masks.apply_masks(alive, state.params)
    state = state._replace(params=params)
    if run.experiment.reset_optimizer or origin is not None:
        state = state._replace(opt_state=run.steps.optimizer.init(params))
    return parallel.replicate(state, run.steps.devices)


def train_stages(
    run: Run, directory: Path, state: State, alive: Tree, plan: list[Stage], **how: Any
) -> tuple[State, list[dict[str, float]]]:
    """All epochs of the stages in `plan`; a partial save in `directory` is picked up."""
    given = run.experiment, run.steps, run.dataset, state, alive, plan
    return rollback.run_stages(*given, directory=directory, **how)


def restore(run: Run, directory: Path, state: State, alive: Tree) -> tuple[State, Tree]:
    """A stage's state and masks, on every device."""
    like = {"state": state, "masks": alive}
    found = checkpoint.restore(directory / "checkpoint", like)
    placed = parallel.replicate(found, run.steps.devices)
    return placed["state"], placed["masks"]
