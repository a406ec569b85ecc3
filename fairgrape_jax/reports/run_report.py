"""The report of runs: the answer first, then methods against methods, groups, layers, samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from fairgrape_jax import config
from fairgrape_jax.reports import (
    against,
    cautions,
    confusion,
    definitions,
    exemplars,
    figures,
    layers,
    metric_tables,
    provenance,
    run_figures,
    run_summary,
    run_tables,
    thumbnails,
)
from fairgrape_jax.reports.blocks import (
    Block,
    Bullets,
    Definitions,
    Document,
    Folded,
    Table,
    Text,
)
from fairgrape_jax.reports.confusion import Answers
from fairgrape_jax.reports.results import Cell, measured_costs
from fairgrape_jax.reports.run_results import Results, answers_of, changed_samples

Pictures = Callable[[Sequence[int]], Mapping[int, str]]


def report(results: Results, pictures: Pictures | None = None) -> Document:
    """The report as a document.

    Args:
        results: what it is made from.
        pictures: gives the data: addresses of test samples, for thumbnails.
    """
    groups, last = results.groups, results.last
    dense = [cell for cell in results.cells if cell.dense_itself]
    answers = answers_of(results)
    sections: list[tuple[str, list[Block]]] = [
        ("", run_summary.first_screen(results)),
        ("Methods against methods", methods_against_methods(results)),
        ("Who is taken for whom", errors_by_group(results, answers)),
        (
            "Accuracy over the rounds",
            [
                run_figures.accuracy_over_rounds(results.models),
                *run_tables.overview(results.cells, groups),
                *run_figures.against_sparsity(results.cells),
            ],
        ),
        (
            "Where weights are left, and whose importance",
            [*layers.weights_left(last), *layers.importance_share(results.models)],
        ),
        ("Size, operations, time", layers.costs([*dense, *last], measured_costs([*dense, *last]))),
        ("Samples that pruning changed", changed_sample_blocks(last, groups, pictures)),
        ("Cautions", [Bullets(caution_lines(results) or ["Nothing of note."], most=12)]),
        *run_tables.from_outside(results.models, last, groups),
        (
            "Every number",
            [
                Folded(
                    "All metrics, after the last round",
                    [Table(*metric_tables.statistics(last, groups))],
                ),
                Folded("Every seed", [run_tables.every_seed(results.cells, groups)]),
                Text("Every round of every seed: metrics.csv."),
            ],
        ),
        ("How this was made", provenance.provenance(results.runs)),
        ("Definitions", [Definitions(definitions.terms())]),
    ]
    return Document(
        run_summary.title(results), [(heading, blocks) for heading, blocks in sections if blocks]
    )


def methods_against_methods(results: Results) -> list[Block]:
    """Which group loses most by each method, and which methods differ.

    Args:
        results: what the report is made from.
    """
    last, groups = results.last, results.groups
    blocks: list[Block] = []
    if results.compared is not None and results.standing.leader >= 0:
        names = [cell.name for cell in last]
        blocks += against.difference_blocks(names, results.compared, results.standing.leader)
    lines = cautions.findings(last, groups)
    nothing = "Of no method do these data tell which group loses most."
    return [
        *blocks,
        Bullets(lines) if lines else Text(nothing),
        run_figures.change_per_group(results.cells, groups),
    ]


def errors_by_group(results: Results, answers: Sequence[Answers]) -> list[Block]:
    """Right answers and confusion per group, rates of classes, the plane of error rates.

    Args:
        results: what the report is made from.
        answers: of each task.
    """
    blocks: list[Block] = []
    for task, each in enumerate(answers):
        if len(results.tasks) > 1:
            blocks.append(Text(f"Task {results.tasks[task][0]}:"))
        blocks += confusion.label_by_group(results.ranked[0], task, each)
        blocks += confusion.right_answers(results.ranked, task, each)
        blocks += confusion.matrices(each)
        planes = figures.class_figures(results.ranked, results.groups, each.classes, task)
        blocks.append(Folded("Where error rates moved", planes))
        if len(results.tasks) == 1:
            tables = [
                block
                for cell in results.ranked
                for block in metric_tables.class_table(cell, each.classes)
            ]
            blocks.append(Folded("Rates of each class", tables))
    return blocks


def caution_lines(results: Results) -> list[str]:
    """All that a reader must know, each once, the gravest first.

    Args:
        results: what the report is made from.
    """
    changed = [
        line for run in results.runs for line in config.describe(provenance.registered(run))[1]
    ]
    return [
        *changed,
        *provenance.rollback_notes(results.models),
        *cautions.cautions(results.last, results.groups, results.tasks),
    ]


def changed_sample_blocks(
    cells: Sequence[Cell], groups: Sequence[str], pictures: Pictures | None
) -> list[Block]:
    """The PIEs of each method: how many of each group, and the first by name or test number.

    Args:
        cells: each method after its last round.
        groups: their names.
        pictures: gives the data: addresses of test samples.

    Returns:
        A text, how many, and for each method its ids and pictures.
    """
    predicted = cells[0].models[0].predicted
    ids = predicted.names or list(map(str, range(len(predicted.groups))))
    if predicted.names is None and predicted.places is not None:
        ids = list(map(str, predicted.places.tolist()))
    what = "the index in predictions.csv, from 0" if predicted.names is None else "file names"
    changes = {cell.name: changed_samples(cell) for cell in cells}
    same = {k: hit for k, hit in changes.items() if len(hit) == len(predicted.groups)}
    blocks: list[Block] = [Text(f"{exemplars.EXEMPLARS} Ids are {what}.")]
    blocks.append(exemplars.count_table(same, predicted.groups, groups))
    addresses: Mapping[int, str] = {}
    if pictures is not None:
        first = [np.flatnonzero(hit)[: thumbnails.MOST].tolist() for hit in changes.values()]
        addresses = pictures(sorted({row for rows in first for row in rows}))
        blocks.append(Text(f"Pictures: of the first {thumbnails.MOST} of each method."))
    for name, hit in same.items():
        blocks += exemplars.listed(name, hit, id_of=ids.__getitem__, thumbnails=addresses)
    return blocks
