"""The end of a stage: its predictions, each group's importance, and its record.

The record, metrics.json, comes last and makes the stage complete.
"""

from __future__ import annotations

import contextlib
import dataclasses

import jax
import numpy as np

from fairgrape_jax import masks, metrics, parallel, tracking
from fairgrape_jax.masks import Tree
from fairgrape_jax.metrics import thresholds
from fairgrape_jax.parallel import hosts
from fairgrape_jax.progress import say
from fairgrape_jax.recovery import rollback
from fairgrape_jax.rounds import score
from fairgrape_jax.rounds.predict import predict, tally
from fairgrape_jax.rounds.saves import Place, save_on_stop
from fairgrape_jax.rounds.scoring_plan import Summary
from fairgrape_jax.rounds.session import Network, Session
from fairgrape_jax.runner import layout, predictions
from fairgrape_jax.runner.round import Round
from fairgrape_jax.scoring import importance
from fairgrape_jax.storage import checkpoint
from fairgrape_jax.training.evaluate import Predictions


def finish(
    this: Round,
    network: Network,
    place: Place,
    *,
    details: layout.Record,
    dense: Network | None = None,
    dense_predictions: Predictions | None = None,
) -> Predictions:
    """Evaluate a trained stage and write it; the last round of a method with its importance.

    Args:
        this: the stage.
        network: as it was trained.
        place: the end of its training, saved if a notice comes here.
        details: what the record says besides.
        dense: the network before pruning, for a loss that looks at it.
        dense_predictions: what the metrics are compared with; the stage's own if None.

    Returns:
        The predictions on the test split.
    """
    with save_on_stop(this.slots, place), this.noting_not_finite(network):
        tested = predict(this.session, network, "test", this.passes)
        record = {
            "seed": this.seed,
            "method": this.method,
            "round": this.number,
            "rounds": this.count,
            "history": list(place.history),
            **details,
        }
        if this.number == this.count:
            record["importance"] = group_totals(this, network, dense)
        write(this, network, record, tested=tested, dense=dense_predictions or tested)
    return tested


def group_totals(this: Round, network: Network, dense: Network | None) -> dict[str, list[float]]:
    """The importance of each group in each layer, for the shares of Fig. 5.

    Args:
        this: the last round of a method.
        network: as it was trained.
        dense: the network before pruning, for a loss that looks at it.
    """

    def totals(scores: Tree) -> list[np.ndarray]:
        return importance.layer_totals(jax.tree.leaves(scores))

    first_draw = Round(this.session, this.run, this.seed).draw
    by_layer = score.importance(
        this.session,
        network,
        seed=first_draw,
        dense=dense,
        fold=this.passes,
        summary=Summary("totals", totals),
    )
    names = masks.layer_names(network.masks)
    by_name = dict(zip(names, jax.tree.leaves(by_layer), strict=True))
    return {name: by_name[name].tolist() for name in this.session.steps.layers}


def write(
    this: Round,
    network: Network,
    record: layout.Record,
    *,
    tested: Predictions,
    dense: Predictions,
) -> None:
    """Write a stage; its metrics.json comes last and makes it complete.

    Process 0 writes; the others take part in what all must do together. RuntimeError if their
    parameters are no longer the same.

    Args:
        this: the stage.
        network: as it was trained.
        record: what metrics.json says besides the metrics.
        tested: the predictions on the test split.
        dense: those that the metrics are compared with.
    """
    session, directory = this.session, this.directory
    if not parallel.processes_agree((network.state, network.masks)):
        raise RuntimeError(f"{directory}: the processes hold different parameters; see many_hosts")
    with contextlib.ExitStack() as pending:  # written during the evaluation
        tree = {"state": network.state, "masks": network.masks}
        pending.callback(checkpoint.begin_save(directory / "checkpoint", tree))
        validated = predict(session, network, "validation", this.passes)
    if not hosts.is_process_0():
        return
    host_masks = jax.device_get(network.masks)
    checkpoint.save_masks(directory / "masks.npz", host_masks)
    predictions.write_predictions(directory / "predictions.csv", tested, session.dataset)
    counts, dense_counts = (tally(session.dataset, p) for p in (tested, dense))
    record = record | {
        "density": masks.density(host_masks),
        "test": metrics.evaluate_all(
            counts, dense_counts, len(session.dataset.groups), session.metrics
        ),
        "validation_accuracy": metrics.accuracy(tally(session.dataset, validated)),
        "groups": list(session.dataset.groups),
        "tasks": [[task.name, list(task.classes)] for task in session.dataset.tasks],
        "layers": sorted(
            masks.sparsity_table(host_masks),
            key=lambda row: session.steps.layers.index(row["layer"]),
        ),
    }
    record |= thresholds_by_group(session, validated, tested, dense_counts)
    if past := rollback.read_rollbacks(directory):
        record["rollbacks"] = past
    layout.write_record(directory, record)
    tracking.log_round(record)
    layout.remove_partial(directory)
    layout.write_log(this.run)
    say(summary(record))


def thresholds_by_group(
    session: Session, validated: Predictions, tested: Predictions, dense_counts: metrics.Counts
) -> layout.Record:
    """What the test split gives with a threshold for each group, taken from the validation split.

    Apart from the metrics of the stage, for it looks at the group of a person at test time.

    Args:
        session: the run.
        validated: predictions on the validation split.
        tested: those on the test split.
        dense_counts: of the network before pruning, by the usual threshold.

    Returns:
        A part of the record; nothing where a task has other than two classes, or no scores.
    """
    tasks, count = session.dataset.tasks, len(session.dataset.groups)
    scores = validated.scores, tested.scores
    if any(len(task.classes) != 2 for task in tasks) or any(each is None for each in scores):
        return {}
    limits = {}
    for number, task in enumerate(tasks):
        columns = slice(2 * number, 2 * number + 2)
        logits = thresholds.logits_of(np.asarray(validated.scores)[:, columns])
        labels, groups = validated.labels[:, number], validated.groups
        limits[task.name] = thresholds.group_thresholds(logits, labels, groups, count).tolist()
    answers = thresholds.answer(
        np.asarray(tested.scores), tested.groups, np.array([*limits.values()])
    )
    decided = dataclasses.replace(tested, predictions=answers)
    names = ("accuracy", "worst_group", "rho_change", "group_accuracy")
    measured = metrics.evaluate_all(tally(session.dataset, decided), dense_counts, count, names)
    uses = "the group of each sample at test time"
    return {"thresholds_by_group": {"uses": uses, "thresholds": limits, **measured}}


def summary(record: layout.Record) -> str:
    """One line of metrics for a stage.

    Args:
        record: of the stage.
    """
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
        f"weights {100 * record['density']:5.1f} %  validation {record['validation_accuracy']:.1f}"
        f"  test {test['accuracy']:.1f}  {groups}  rho(D) {test['rho_change']:.2f}  {spent:.1f} s"
    )
