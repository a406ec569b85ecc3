"""What per-group importance costs beside a plain gradient pass over the same images.

Command:  python -m experiments.benchmarks.importance [--model resnet18] [--size 64]
          [--groups 2 7 14] [--batch 16] [--executions single vmap]
          [--rows pure mixed official] [--json FILE]
Rows, measured in turn in one run, with their ratio to the first one:
  gradient pass             the gradient of the mean loss over all G x B images, one batch
  gradient pass, B a call   the same in G calls of B images
  FORMULA, EXECUTION        ours: G micro-batches of B images of one group added to the sums
  mixed form, EXECUTION     ours: one batch of all images, one forward and G backward passes
  G passes                  G gradients over the whole batch, each of one group through a mask
  official procedure        the same, and every gradient copied to the host (by default once: slow)
Below: ours over G passes, and the memory of the accumulating step beside that of a training step.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.timing import (
    add_json,
    interleaved,
    pictures,
    show,
    table,
)
from fairgrape_jax import models, parallel, scoring
from fairgrape_jax.config import Execution, Experiment, Scoring
from fairgrape_jax.data import batches, source
from fairgrape_jax.data.dataset import Dataset
from fairgrape_jax.rounds.scored_network import make_scored_network
from fairgrape_jax.rounds.session import initial_network, open_session
from fairgrape_jax.scoring.importance import Formula
from fairgrape_jax.scoring.statistics import GRADIENT, SQUARES
from fairgrape_jax.training import Carry

BASE = "gradient pass"
ROWS = ["pure", "mixed", "official"]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--groups", type=int, nargs="+", default=[2, 7, 14])
    parser.add_argument("--batch", type=int, default=16, help="images per group and micro-batch")
    parser.add_argument("--executions", nargs="*", default=["single", "vmap"])
    parser.add_argument("--formulas", nargs="*", default=list(get_args(Formula)))
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--slow-repeats", type=int, default=1, help="of the last two rows")
    parser.add_argument("--rows", nargs="*", default=ROWS, choices=ROWS)
    parser.add_argument("--json", type=Path, help="append the rows to this file")
    options = parser.parse_args()
    rows = []
    for groups in options.groups:
        rows += measure(options, groups)
    add_json(options.json, vars(options), rows)


def measure(options: argparse.Namespace, groups: int) -> list[dict[str, Any]]:
    """All rows for one number of groups, printed."""
    dataset = pictures(groups, options.batch, options.size)
    build = Builder(options, dataset)
    base = build.gradient()
    split = dataset.train
    pieces = [slice(i, i + options.batch) for i in range(0, len(split), options.batch)]
    everyone = np.ones(len(split), bool)

    def pass_over(part: slice) -> Any:
        return base(split.images[part], split.labels[part], everyone[part])

    work: dict[str, Callable[[], Any]] = {
        BASE: lambda: pass_over(slice(None)),
        f"{BASE}, {options.batch} a call": lambda: [pass_over(part) for part in pieces][-1],
    }
    for execution in options.executions:
        for formula in options.formulas if "pure" in options.rows else ():
            work[f"{formula}, {execution}"] = build.grouped(formula, execution)
        if "mixed" in options.rows:
            name = f"mixed form, {execution}"
            work[name] = build.grouped("sum-of-squares", execution, mixed=True)
    times = interleaved(work, options.repeats)
    rows = table(times, BASE)
    if "official" in options.rows:
        pairs = [official(base, dataset, groups) for _ in range(options.slow_repeats)]
        passes = min(passes for passes, _ in pairs)
        slow = {"G passes": [passes], "official procedure": [min(sum(pair) for pair in pairs)]}
        rows += table({BASE: [min(times[BASE])]} | slow, BASE)[1:]
    about = f"{options.model}, {options.size} pixels, {options.precision}"
    print(f"\n{about}, {groups} groups of {options.batch} images:")
    show(rows)
    if {"pure", "official"} <= set(options.rows):
        best = min(min(each) for name, each in times.items() if name.startswith("sum-of"))
        print(f"sum-of-squares over G passes: {best / passes:.3f}; 1/G is {1 / groups:.3f}")
    memory = build.memory()
    for name, value in memory.items():
        print(f"{name}: {value / 1e6:.1f} MB")
    return [row | {"groups": groups} for row in rows] + [{"groups": groups} | memory]


def official(gradient: Any, dataset: Dataset, groups: int) -> tuple[float, float]:
    """Seconds of G masked passes over the whole batch, and of copying each gradient to the host."""
    split = dataset.train
    jax.block_until_ready(gradient(split.images, split.labels, split.groups >= 0))
    passes = copies = 0.0
    total: dict[int, Any] = {}
    for k in range(groups):
        started = time.perf_counter()
        gradients = jax.block_until_ready(gradient(split.images, split.labels, split.groups == k))
        passes += time.perf_counter() - started
        started = time.perf_counter()
        total[k] = jax.tree.map(lambda leaf: np.array(leaf, copy=True), gradients)
        copies += time.perf_counter() - started
    return passes, copies


@dataclasses.dataclass(frozen=True)
class Builder:
    """The steps of a run with the benchmark's options, on one device."""

    options: argparse.Namespace
    dataset: Dataset

    def experiment(self, scores: Scoring, execution: Execution | None = None) -> Experiment:
        """A run with this scoring; a training batch is a micro-batch."""
        options = self.options
        return Experiment(
            source("synthetic"),
            options.model,
            scoring=scores,
            batch=options.batch,
            precision=options.precision,
            execution=execution or Execution(),
        )

    def gradient(self) -> Any:
        """(images, labels, valid) -> the gradient of their mean loss, in eval mode."""
        module = models.create(
            self.options.model, sum(self.dataset.classes), dtype=self.options.precision
        )
        make_network = make_scored_network(module, self.dataset, "pure")
        shape = jnp.zeros((1, *self.dataset.shape))
        variables = jax.jit(module.init)(jax.random.key(0), shape)
        loss = make_network(variables.get("batch_stats", {})).loss
        compiled = jax.jit(jax.grad(loss))
        return lambda *data: compiled(variables["params"], *data)

    def grouped(self, formula: Formula, execution: Any, mixed: bool = False) -> Callable[[], Any]:
        """Adds all pictures to the sums once; the sums go on from call to call."""
        size = len(self.dataset.train) if mixed else self.options.batch
        scores = Scoring(1.0, size, formula, form="mixed" if mixed else "pure")
        experiment = self.experiment(scores, Execution(micro_batches=execution))
        session = open_session(experiment, self.dataset, parallel.local_devices(1))
        network = initial_network(session, seed=0)
        compiled, state, alive = session.steps, network.state, network.masks
        groups = len(self.dataset.groups)
        plan = batches.group_batches(
            self.dataset.train, 1.0, size, groups, 0, over="all" if mixed else "groups"
        )
        schedule = scoring.assign_micro_batches(
            plan.group, groups, 1, 1 if mixed else compiled.slots
        )
        step = compiled.accumulate_mixed if mixed else compiled.accumulate
        accumulate = step(SQUARES if formula == "sum-of-squares" else GRADIENT, groups, size)
        sums = [scoring.empty_sums(alive, groups, compiled.devices)]

        def work() -> Any:
            for batch in scoring.micro_batches(self.dataset.train, plan, schedule):
                sums[0] = accumulate(sums[0], state.params, state.batch_stats, alive, None, batch)
            return sums[0]

        return work

    def memory(self) -> dict[str, int]:
        """Bytes of the G sums, and of the two compiled steps beyond their arguments and results."""
        experiment = self.experiment(Scoring(1.0, self.options.batch))
        session = open_session(experiment, self.dataset, parallel.local_devices(1))
        network = initial_network(session, seed=0)
        compiled, state, alive = session.steps, network.state, network.masks
        groups = len(self.dataset.groups)
        sums = scoring.empty_sums(alive, groups, compiled.devices)
        plan = batches.group_batches(self.dataset.train, 1.0, self.options.batch, groups, 0)
        schedule = scoring.assign_micro_batches(plan.group, groups, 1, compiled.slots)
        batch = next(scoring.micro_batches(self.dataset.train, plan, schedule))
        lower: Any = compiled.accumulate(SQUARES, groups, self.options.batch)
        accumulate = lower.lower(sums, state.params, state.batch_stats, alive, None, batch)
        samples = next(batches.train_batches(self.dataset.train, self.options.batch, 0, 0))
        pieces = parallel.split_batch(samples, compiled.devices)
        lower = compiled.train
        train = lower.lower(Carry(state), alive, pieces, np.float32(0))
        temporary = [x.compile().memory_analysis().temp_size_in_bytes for x in (accumulate, train)]
        return {
            "sums of G groups": sum(leaf.nbytes for leaf in jax.tree.leaves(sums.rows)),
            "one block": sum(leaf.nbytes for leaf in jax.tree.leaves(sums.block)),
            "temporary, accumulating step": temporary[0],
            "temporary, training step": temporary[1],
        }


if __name__ == "__main__":
    main()
