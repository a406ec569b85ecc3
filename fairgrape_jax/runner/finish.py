"""What a stage ends with: its predictions, each group's importance, and its record.

The record, metrics.json, comes last and makes the stage complete.
"""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fairgrape_jax import masks, metrics, parallel
from fairgrape_jax.config import Experiment
from fairgrape_jax.data.dataset import Dataset
from fairgrape_jax.masks import Tree
from fairgrape_jax.parallel import hosts
from fairgrape_jax.progress import say
from fairgrape_jax.recovery import rollback
from fairgrape_jax.rounds import score, steps, train
from fairgrape_jax.rounds.steps import Steps
from fairgrape_jax.runner import layout, predictions
from fairgrape_jax.scoring import importance
from fairgrape_jax.storage import checkpoint, resumable
from fairgrape_jax.training import evaluate
from fairgrape_jax.training.step import State


@dataclasses.dataclass(frozen=True)
class Run:
    """What stays the same from the first stage of a run to the last."""

    experiment: Experiment
    directory: Path
    dataset: Dataset
    steps: Steps


def tested(run: Run, directory: Path, state: State, alive: Tree) -> evaluate.Predictions:
    """What the network of a stage says of the test split."""
    keep = directory / "partial/test"
    what = run.experiment, run.steps, state, alive, run.dataset.test
    return steps.predict(*what, keep, whole=True)


def group_totals(
    run: Run, directory: Path, state: State, alive: Tree, seed: int, dense: State | None = None
) -> dict[str, list[float]]:
    """The importance of each group in each layer, for the shares of Fig. 5."""
    keep = directory / "partial/totals"
    place = resumable.Place(keep, {"step": int(state.step)}, run.steps.devices)
    there, totals = resumable.read(place)
    if not there:
        scores = score.importance(
            *(run.experiment, run.steps, state, alive, run.dataset),
            seed=round_seed(seed, 0),
            dense=dense,
            keep=keep.with_name("totals_scoring"),
        )
        totals = importance.layer_totals(jax.tree.leaves(scores))
        resumable.write(place, 1, totals)
    by_name = dict(zip(masks.layer_names(alive), totals, strict=True))
    return {name: by_name[name].tolist() for name in run.steps.layers}


def finish(
    run: Run,
    directory: Path,
    state: State,
    alive: Tree,
    predicted: evaluate.Predictions,
    dense: evaluate.Predictions,
    record: dict[str, Any],
) -> None:
    """Write a stage; its metrics.json comes last and makes it complete.

    Process 0 writes; the others take part in what all must do together. RuntimeError if their
    parameters are no longer the same.
    """
    if not parallel.processes_agree((state, alive)):
        raise RuntimeError(f"{directory}: the processes hold different parameters; see many_hosts")
    with contextlib.ExitStack() as pending:  # written during the evaluation
        tree = {"state": state, "masks": alive}
        pending.callback(checkpoint.begin_save(directory / "checkpoint", tree))
        what = run.experiment, run.steps, state, alive, run.dataset.validation
        seen = steps.predict(*what, directory / "partial/validation")
    if not hosts.is_process_0():
        return
    host_masks = jax.device_get(alive)
    checkpoint.save_masks(directory / "masks.npz", host_masks)
    predictions.write_predictions(directory / "predictions.csv", predicted, run.dataset)
    counts, dense_counts = (tally(run.dataset, p) for p in (predicted, dense))
    record = record | {
        "density": masks.density(host_masks),
        "test": metrics.evaluate_all(counts, dense_counts, len(run.dataset.groups)),
        "validation_accuracy": metrics.accuracy(tally(run.dataset, seen)),
        "groups": list(run.dataset.groups),
        "tasks": [[task.name, list(task.classes)] for task in run.dataset.tasks],
        "layers": sorted(
            masks.sparsity_table(host_masks),
            key=lambda row: run.steps.layers.index(row["layer"]),
        ),
    }
    if past := rollback.recorded(directory):
        record["rollbacks"] = past
    layout.seal(directory, record)
    train.forget(directory)
    layout.write_log(run.directory)
    say(summary(record))


def tally(dataset: Dataset, predicted: evaluate.Predictions) -> list[np.ndarray]:
    """Counts of each task, from predictions."""
    return metrics.tally(
        predicted.labels,
        predicted.predictions,
        predicted.groups,
        len(dataset.groups),
        dataset.classes,
    )


def summary(record: dict[str, Any]) -> str:
    """One line of metrics for a stage."""
    test = record["test"]
    groups = "  ".join(
        f"{name} {value:.1f} ({change:+.1f})"
        for name, value, change in zip(
            record["groups"], test["group_accuracy"], test["group_change"], strict=True
        )
    )
    place = f"round {record['round']}/{record['rounds']}" if record["round"] else ""
    spent = sum(record["seconds"].values())
    return (
        f"seed {record['seed']} {record['method']:<9} {place:<11} "
        f"weights {100 * record['density']:5.1f} %  test {test['accuracy']:.1f}  {groups}  "
        f"rho(D) {test['rho_change']:.2f}  {spent:.1f} s"
    )


def round_seed(seed: int, number: int) -> int:
    """The seed of a round's scoring sample; every round draws anew."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
