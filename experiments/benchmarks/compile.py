"""What compiling a run's programs costs: CPU seconds and peak memory, each in a process of its own.

Command:  python -m experiments.benchmarks.compile [--models resnet18 mobilenet_v2] [--sizes 64]
          [--batch 32] [--groups 7] [--augmentation none] [--programs train score ...] [--json FILE]
Programs: init (fresh parameters, all of the first call), train (the step with masks and optimizer),
score (micro-batches of one group added to the sums), select (greedy over all layers), evaluate.
"Traced" are the CPU seconds of tracing and lowering in Python, "compiled" those of XLA; what is
called (init, select) has "again", a second call, in which nothing is compiled. "Peak" is the most
resident memory of the process, less what it held before.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.benchmarks.timing import add_json, pictures, show
from fairgrape_jax import parallel, scoring
from fairgrape_jax.config import Experiment, Scoring
from fairgrape_jax.data import batches, source
from fairgrape_jax.masks import full_masks
from fairgrape_jax.methods import METHODS, Problem, prune
from fairgrape_jax.rounds.session import Network, Session, initial_network, open_session
from fairgrape_jax.scoring.statistics import SQUARES
from fairgrape_jax.training import Carry
from fairgrape_jax.training.state import init_state


def main() -> None:
    """Measure each program in a process of its own, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["resnet18", "mobilenet_v2"])
    parser.add_argument("--sizes", type=int, nargs="+", default=[64])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--groups", type=int, default=7)
    parser.add_argument("--augmentation", default="none")
    parser.add_argument("--optimizer", default="adam")
    parser.add_argument("--lift", default="pmap")
    parser.add_argument("--programs", nargs="+", default=list(PROGRAMS), choices=list(PROGRAMS))
    parser.add_argument("--here", action="store_true", help="in this process, one row as JSON")
    parser.add_argument("--json", type=Path, help="append the rows to this file")
    options = parser.parse_args()
    if options.here:
        print(json.dumps(measure(options)))
        return
    rows = []
    for model in options.models:
        for size in options.sizes:
            for program in options.programs:
                rows.append(in_its_process(options, model, size, program))
                print(rows[-1], flush=True)
    show(rows)
    add_json(options.json, vars(options), rows)


def in_its_process(
    options: argparse.Namespace, model: str, size: int, program: str
) -> dict[str, Any]:
    """The row of one program, measured without any cache of compiled programs."""
    command = [sys.executable, "-m", "experiments.benchmarks.compile", "--here"]
    command += ["--models", model, "--sizes", str(size), "--programs", program]
    for name in ("batch", "groups", "augmentation", "optimizer", "lift"):
        command += [f"--{name}", str(getattr(options, name))]
    environment = {**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "false"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """The row of the first model, size and program."""
    (model, *_), (size, *_), (program, *_) = options.models, options.sizes, options.programs
    dataset = pictures(options.groups, max(2, -(-options.batch // options.groups)), size)
    experiment = Experiment(
        source("synthetic"),
        model,
        batch=options.batch,
        optimizer=options.optimizer,
        augmentation=options.augmentation,
        scoring=Scoring(1.0, options.batch),
    )
    experiment = dataclasses.replace(
        experiment, execution=dataclasses.replace(experiment.execution, lift=options.lift)
    )
    session = open_session(experiment, dataset, parallel.local_devices(1))
    prepared = PROGRAMS[program](session)
    before, start = peak_bytes(), time.process_time()
    lowered = prepared()
    traced = time.process_time() - start
    if lowered is not None:
        lowered.compile()
    seconds, peak = time.process_time() - start, peak_bytes() - before
    if lowered is None:
        prepared()
    again = time.process_time() - start - seconds
    return {
        "model": model,
        "pixels": size,
        "row": program,
        "traced": round(traced, 1) if lowered is not None else "",
        "compiled": round(seconds - traced, 1) if lowered is not None else "",
        "CPU seconds": round(seconds, 1),
        "again": round(again, 1) if lowered is None else "",
        "peak, GB": round(peak / 1e9, 2),
    }


def peak_bytes() -> int:
    """The most memory that this process has had resident."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def initialise(session: Session) -> Callable[[], Any]:
    """Fresh parameters, optimizer state included: the whole call."""
    return lambda: jax.block_until_ready(initial_network(session, 0)) and None


def train(session: Session) -> Callable[[], Any]:
    """The training step, every mask there."""
    network = abstract(session)
    samples = next(batches.train_batches(session.dataset.train, session.experiment.batch, 0, 0))
    batch = parallel.split_batch(samples, session.devices)
    step: Any = session.steps.train
    return lambda: step.lower(Carry(network.state), network.masks, batch, np.float32(0))


def score(session: Session) -> Callable[[], Any]:
    """The step that adds micro-batches of one group to the sums."""
    network, groups = abstract(session), len(session.dataset.groups)
    size = session.experiment.scoring.micro_batch
    plan = batches.group_batches(session.dataset.train, 1.0, size, groups, 0)
    schedule = scoring.assign_micro_batches(plan.group, groups, 1, session.steps.slots)
    batch = next(scoring.micro_batches(session.dataset.train, plan, schedule))
    sums = jax.eval_shape(lambda: scoring.empty_sums(network.masks, groups, session.devices))
    step: Any = session.steps.accumulate(SQUARES, groups, size)
    state = network.state
    return lambda: step.lower(sums, state.params, state.batch_stats, network.masks, None, batch)


def evaluate(session: Session) -> Callable[[], Any]:
    """The evaluation step."""
    network = abstract(session)
    split, size = session.dataset.test, session.experiment.batch
    read = next(iter(batches.padded_batches(split, size, (0, 1), 0)))
    samples = {name: value for name, value in read.items() if name != "groups"}
    batch = parallel.split_batch(samples, session.devices)
    step: Any = session.steps.evaluate
    state = network.state
    return lambda: step.lower(state.params, state.batch_stats, network.masks, batch)


def select(session: Session) -> Callable[[], Any]:
    """FairGRAPE's choice from drawn scores, on the host: the whole call."""
    masks = jax.tree.map(lambda m: np.ones(m.shape, bool), abstract(session).masks)
    rng, groups = np.random.default_rng(0), len(session.dataset.groups)
    scores = jax.tree.map(lambda m: rng.random((groups, *m.shape), np.float32), masks)
    problem = Problem(scores, masks, lambda over: scores)
    return lambda: prune(METHODS["fairgrape"], problem, 0.9) and None


def abstract(session: Session) -> Network:
    """A network by shapes alone: nothing is computed for what is only compiled."""
    init = functools.partial(
        init_state, session.steps.module, session.dataset, session.steps.optimizer
    )
    state = jax.eval_shape(init, 0)
    masks = full_masks(state.params)
    return Network(state, jax.tree.map(lambda m: jax.ShapeDtypeStruct(m.shape, bool), masks))


PROGRAMS: dict[str, Callable[[Session], Callable[[], Any]]] = {
    "init": initialise,
    "train": train,
    "score": score,
    "evaluate": evaluate,
    "select": select,
}


if __name__ == "__main__":
    main()
