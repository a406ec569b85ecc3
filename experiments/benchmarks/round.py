"""A whole round, by parts: importance, selection, retraining, evaluation, and their shares.

Command:  python -m experiments.benchmarks.round [--model resnet18] [--size 64] [--groups 7]
          [--images 448] [--steps 14] [--method fairgrape] [--json FILE]
Importance is scored on `--fraction` of the pictures, selection keeps `--keep` of the weights,
retraining is `--steps` steps (an epoch by default), evaluation is of as many pictures as there are
to train on.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.benchmarks.timing import (
    add_json,
    pictures,
    seconds,
    show,
)
from fairgrape_jax import parallel
from fairgrape_jax.config import Experiment, Scoring
from fairgrape_jax.data import batches, source
from fairgrape_jax.data.dataset import Dataset
from fairgrape_jax.methods import METHODS, Problem, prune
from fairgrape_jax.rounds.predict import predict
from fairgrape_jax.rounds.score import importance
from fairgrape_jax.rounds.session import Network, initial_network, open_session
from fairgrape_jax.training import Carry


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--groups", type=int, default=7)
    parser.add_argument("--images", type=int, default=448, help="pictures to train on")
    parser.add_argument("--micro-batch", type=int, default=16)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=0, help="steps of retraining; 0: an epoch")
    parser.add_argument("--fraction", type=float, default=0.2, help="of the pictures, scored")
    parser.add_argument("--keep", type=float, default=0.9, help="of the weights")
    parser.add_argument("--select", default="threshold", choices=("threshold", "greedy"))
    parser.add_argument("--method", default="fairgrape", choices=METHODS)
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--json", type=Path, help="append the rows to this file")
    options = parser.parse_args()

    dataset = pictures(options.groups, options.images // options.groups, options.size)
    parts = round_parts(options, dataset)
    for work in parts.values():  # not counted: it compiles
        seconds(work)
    times: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(options.repeats):
        for name, work in parts.items():
            times[name].append(seconds(work))
    medians = {name: statistics.median(each) for name, each in times.items()}
    whole = sum(medians.values())
    rows: list[dict[str, Any]] = [
        {"part": name, "seconds": round(value, 3), "share %": round(100 * value / whole, 1)}
        for name, value in medians.items()
    ]
    rows.append({"part": "a round", "seconds": round(whole, 3), "share %": 100.0})
    epoch = batches.steps_per_epoch(options.images, options.batch)
    print(
        f"{options.model}, {options.size} pixels, {options.groups} groups, {options.images} images,"
        f" {options.steps or epoch} steps of {options.batch}, {options.devices} of "
        f"{jax.devices()[0].device_kind}:"
    )
    show(rows)
    add_json(options.json, vars(options), rows)


def round_parts(options: argparse.Namespace, dataset: Dataset) -> dict[str, Callable[[], Any]]:
    """What a round does, in its order; each part works on what the part before it left."""
    experiment = Experiment(
        source("synthetic"),
        options.model,
        batch=options.batch,
        scoring=Scoring(options.fraction, options.micro_batch),
        precision=options.precision,
    )
    session = open_session(experiment, dataset, parallel.local_devices(options.devices))
    first = initial_network(session, seed=0)
    held: dict[str, Any] = {"carry": Carry(first.state), "alive": first.masks}

    def network(masks: Any) -> Network:
        return Network(held["carry"].state, masks)

    def score() -> Any:
        held["scores"] = importance(session, network(first.masks), seed=0)
        return held["scores"]

    def select() -> Any:
        problem = Problem(
            jax.device_get(held["carry"].state.params),
            jax.device_get(first.masks),
            lambda over: held["scores"],
            select=options.select,
        )
        chosen = prune(METHODS[options.method], problem, options.keep)
        held["alive"] = parallel.replicate(chosen, session.devices)
        return held["alive"]

    def retrain() -> Any:
        count = options.steps or batches.steps_per_epoch(len(dataset.train), options.batch)
        done = 0
        while done < count:
            for samples in batches.train_batches(dataset.train, options.batch, 0, 0):
                batch = parallel.split_batch(samples, session.devices)
                held["carry"], report = session.steps.train(
                    held["carry"], held["alive"], batch, np.float32(1e-5)
                )
                done += 1
                if done == count:
                    break
        return report.loss

    def evaluate() -> Any:
        return predict(session, network(held["alive"]), "test").losses

    return {
        "importance": score,
        "selection": select,
        "retraining": retrain,
        "evaluation": evaluate,
    }


if __name__ == "__main__":
    main()
