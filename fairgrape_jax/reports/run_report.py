"""The report of runs: its sections, from every evaluated model and the compared ones."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from fairgrape_jax import config
from fairgrape_jax.config import protocols
from fairgrape_jax.metrics import METRICS
from fairgrape_jax.reports import differences, run_figures, sections, thumbnails
from fairgrape_jax.reports.cautions import cautions, findings
from fairgrape_jax.reports.document import Block, Bullets, Document, Table, Text
from fairgrape_jax.reports.results import Cell, Model

# What the main table gives an interval for, in order; group metrics take a place per group.
STATISTICS = ("accuracy", "group_accuracy", "group_change", "rho_accuracy", "rho_change")
Pictures = Callable[[Sequence[int]], Mapping[int, str]]
MOST_TASKS = 4  # of many tasks, those whose classes are drawn


def report(
    runs: Sequence[Path],
    models: Sequence[Model],
    cells: Sequence[Cell],
    pictures: Pictures | None = None,
) -> Document:
    """The report as a document.

    Args:
        runs: their directories; the first one's settings are shown.
        models: every evaluated network.
        cells: those that are compared, the dense networks first.
        pictures: gives the data: addresses of test samples, for thumbnails.
    """
    record = models[0].record
    groups, tasks = record["groups"], record["tasks"]
    last = last_rounds(cells)
    notes = [*cautions(last, groups, tasks), *rollback_notes(models)]
    notes += [line for run in runs for line in config.describe(registered(run))[1]]
    return Document(
        ", ".join(run.name for run in runs),
        [
            ("", [Text(introduction(models, cells))]),
            ("Before reading on", [Bullets(notes or ["Nothing of note."])]),
            ("Methods by weights left", [overview(cells, groups)]),
            (
                "Which differences the samples tell, after the last round",
                difference_blocks(last, groups),
            ),
            ("All metrics, after the last round", [Table(*sections.statistics(last, groups))]),
            *from_outside(models, last, groups),
            (
                "Groups, after the last round",
                [
                    *sections.group_figures(last, groups),
                    run_figures.change_per_group(cells, groups),
                ],
            ),
            ("Accuracy over the rounds", [run_figures.accuracy_over_rounds(models)]),
            ("Disparity against sparsity", run_figures.against_sparsity(cells)),
            ("Every seed", [every_seed(cells, groups)]),
            ("Error rates", [error_rates(cells, groups), *class_rates(last, groups, tasks)]),
            ("Share of importance by layer", run_figures.importance_share(models)),
            ("Samples that pruning changed", exemplars(last, groups, pictures)),
            ("How this was made", provenance(runs)),
        ],
    )


def introduction(models: Sequence[Model], cells: Sequence[Cell]) -> str:
    """How many samples and seeds there are, and what the numbers mean.

    Args:
        models: evaluated networks.
        cells: a method after a round, each.

    Returns:
        A paragraph.
    """
    groups = models[0].record["groups"]
    members = [f"{name} {size:,}" for name, size in zip(groups, cells[0].sizes, strict=True)]
    ungrouped = cells[0].total - int(cells[0].sizes.sum())
    members += [f"in no group {ungrouped:,}"] * (ungrouped > 0)
    return (
        f"{cells[0].total:,} test samples ({', '.join(members)}), "
        f"{len({model.seed for model in models})} seeds. {sections.MEANING} "
        f"{sections.MEANING_OF_CHANGES}"
    )


def last_rounds(cells: Sequence[Cell]) -> list[Cell]:
    """Each method after its last round, its name saying what is left.

    Args:
        cells: a method after a round, each.

    Returns:
        Of each pruned method the last one.
    """
    pruned = {cell.name: cell for cell in cells if not cell.dense_itself}
    return [dataclasses.replace(cell, name=title(cell)) for cell in pruned.values()]


def title(cell: Cell) -> str:
    """A method and what it left.

    Args:
        cell: a method after a round.

    Returns:
        Its name and the percent of the weights.

    Example:
        >>> title(Cell("taylor", 0.1, 2, [], [], {}, {}, {}, {}, ()))
        'taylor, 10 %'
    """
    return f"{cell.name}, {100 * cell.density:.3g} %"


def overview(cells: Sequence[Cell], groups: Sequence[str]) -> Table:
    """The main table: a row per method and density.

    Args:
        cells: a method after a round, each.
        groups: their names.

    Returns:
        The table.
    """
    header = ["method", "weights %", "seeds", "overall"]
    header += [*groups, *[f"change {name}" for name in groups], "rho(A)", "rho(D)"]
    rows = []
    for cell in cells:
        row = [cell.name, f"{100 * cell.density:.1f}", str(len(cell.models))]
        for name in STATISTICS:
            if cell.dense_itself and "change" in name:
                row += ["-"] * len(cell.mean[name])
                continue
            sign = "+" if name == "group_change" else ""
            row += [
                f"{one.value:{sign}.2f} [{one.low:{sign}.2f}, {one.high:{sign}.2f}]"
                for one in sections.intervals(cell, name)
            ]
        rows.append(row)
    return Table(header, rows)


def difference_blocks(cells: Sequence[Cell], groups: Sequence[str]) -> list[Block]:
    """Which group loses most by each method, and which methods differ.

    Args:
        cells: a method after a round, each.
        groups: their names.

    Returns:
        The findings, and a table of the differences between methods.
    """
    lines = findings(cells, groups)
    nothing = "Of no method do these samples tell which group loses most."
    return [Bullets(lines) if lines else Text(nothing), *compare_methods(cells)]


def compare_methods(cells: Sequence[Cell]) -> list[Block]:
    """Each method minus the one with the smallest rho(Delta), on the same samples and seeds.

    Args:
        cells: a method after a round, each.

    Returns:
        A note and a table; none for a single method.
    """
    if len(cells) < 2:
        return []
    seeds = sorted(set.intersection(*[{m.seed for m in cell.models} for cell in cells]))
    first = cells[0].models[0].predicted
    same = all(
        np.array_equal(model.predicted.labels, first.labels)
        and np.array_equal(model.predicted.groups, first.groups)
        for cell in cells
        for model in cell.models
    )
    if not seeds or not same:
        return [Text("The methods share no seed, or not their samples: they are not compared.")]
    networks = [[m for m in cell.models if m.seed in seeds] for cell in cells]
    for each in networks:
        each.sort(key=lambda model: model.seed)
    compared = differences.compare_models(
        np.stack(
            [[m.predicted.predictions == m.predicted.labels for m in each] for each in networks]
        ),
        np.stack([m.dense.predictions == m.dense.labels for m in networks[0]]),
        first.groups,
        cells[0].num_groups,
    )
    return sections.difference_table([cell.name for cell in cells], compared)


def every_seed(cells: Sequence[Cell], groups: Sequence[str]) -> Table:
    """The same without averaging: single runs jump at high sparsity, so all are shown.

    Args:
        cells: a method after a round, each.
        groups: their names.

    Returns:
        The table.
    """
    header = ["method", "weights %", "seed", "overall", *groups, "rho(A)", "rho(D)", "worst", "gap"]
    rows = []
    for cell in cells:
        for model in cell.models:
            test = model.record["test"]
            numbers = [test["accuracy"], *test["group_accuracy"], test["rho_accuracy"]]
            numbers += [test["rho_change"], test["worst_group"], test["gap"]]
            percent = f"{100 * cell.density:.1f}"
            rows.append([cell.name, percent, str(model.seed), *[f"{x:.2f}" for x in numbers]])
    return Table(header, rows)


def error_rates(cells: Sequence[Cell], groups: Sequence[str]) -> Table:
    """FPR and FNR, overall and per group, averaged over seeds.

    Args:
        cells: a method after a round, each.
        groups: their names.

    Returns:
        The table.
    """
    header = ["method", "weights %", "FPR", *[f"FPR {name}" for name in groups]]
    header += ["FNR", *[f"FNR {name}" for name in groups]]
    rows = []
    for cell in cells:
        tests = [model.record["test"] for model in cell.models]
        values = [
            np.mean([np.array([t[rate], *t[f"group_{rate}"]], float) for t in tests], axis=0)
            for rate in ("fpr", "fnr")
        ]
        numbers = [sections.format_value(x) for x in np.concatenate(values)]
        rows.append([cell.name, f"{100 * cell.density:.1f}", *numbers])
    return Table(header, rows)


def class_rates(
    cells: Sequence[Cell], groups: Sequence[str], tasks: Sequence[tuple[str, Sequence[str]]]
) -> list[Block]:
    """Rates of each class after the last round, as a table where there is one task, and drawn.

    Args:
        cells: a method after a round, each.
        groups: their names.
        tasks: the name of each task and the names of its classes.

    Returns:
        Tables and figures.
    """
    blocks: list[Block] = []
    for cell in cells if len(tasks) == 1 else []:
        blocks += sections.class_table(cell, tasks[0][1])
    for number, (name, classes) in enumerate(tasks[:MOST_TASKS]):
        if len(tasks) > 1:
            blocks.append(Text(f"Task {name}"))
        blocks += sections.class_figures(cells, groups, classes, number)
    return blocks


def rollback_notes(models: Sequence[Model]) -> list[str]:
    """A line for each network whose training went back from a number that was not finite.

    Args:
        models: evaluated networks.

    Returns:
        The lines.
    """
    return [
        f"{model.name}, seed {model.seed}, round {model.record['round']}: trained at rates x "
        f"{math.prod(one['factor'] for one in past):g}, {past[0]['what']} not being finite before"
        for model in models
        if (past := model.record.get("rollbacks"))
    ]


def exemplars(
    cells: Sequence[Cell], groups: Sequence[str], pictures: Pictures | None
) -> list[Block]:
    """The PIEs of each method: how many of each group, and the first by name or test number.

    Args:
        cells: a method after a round, each.
        groups: their names.
        pictures: gives the data: addresses of test samples; None for no thumbnails.

    Returns:
        A text, and for each method its counts, ids and pictures.
    """
    predicted = cells[0].models[0].predicted
    ids = predicted.names or list(map(str, range(len(predicted.groups))))
    if predicted.names is None and predicted.places is not None:
        ids = list(map(str, predicted.places.tolist()))
    what = "the index in predictions.csv, from 0" if predicted.names is None else "file names"
    blocks: list[Block] = [Text(f"{sections.EXEMPLARS} Ids are {what}.")]
    changes = {cell.name: changed_samples(cell) for cell in cells}
    addresses: Mapping[int, str] = {}
    if pictures is not None:
        first = [np.flatnonzero(hit)[: thumbnails.MOST].tolist() for hit in changes.values()]
        addresses = pictures(sorted({row for rows in first for row in rows}))
        blocks.append(Text(f"Pictures: of the first {thumbnails.MOST} of each method."))
    for name, hit in changes.items():
        blocks += sections.exemplars(
            name,
            hit,
            predicted.groups,
            groups,
            id_of=ids.__getitem__,
            thumbnails=addresses,
        )
    return blocks


def registered(run: Path) -> list[config.Registered]:
    """The rows from outside that a run has used.

    Args:
        run: its directory.

    Returns:
        As config.json has them.
    """
    return config.read(run / "config.json").get("registered", [])


def from_outside(
    models: Sequence[Model], cells: Sequence[Cell], groups: Sequence[str]
) -> list[tuple[str, list[Block]]]:
    """A section of the metrics that are not of this package, as the run has recorded them.

    Nobody's code is run for a report: there are no intervals, but the range of the seeds.

    Args:
        models: every evaluated network.
        cells: each method after its last round.
        groups: their names.

    Returns:
        A title with its blocks; nothing where there are no such metrics.
    """
    networks = {"dense": [model for model in models if model.record["method"] == "dense"]}
    networks |= {cell.name: list(cell.models) for cell in cells}
    tests = {name: [model.record["test"] for model in each] for name, each in networks.items()}
    known = dict.fromkeys(name for each in tests.values() for test in each for name in test)
    rows = []
    for metric in (name for name in known if name not in METRICS.built_in):
        places = enumerate(groups) if metric.startswith("group_") else [(None, "")]
        for place, group in places:
            row = [f"{metric} {group}".rstrip()]
            for each in tests.values():
                values = [test.get(metric) for test in each]
                values = [v if place is None or v is None else v[place] for v in values]
                row.append(value_and_range(values))
            rows.append(row)
    if not rows:
        return []
    text = (
        "Metrics that were registered from outside, as the run has recorded them: the mean over "
        "seeds, in brackets the lowest and the highest."
    )
    table = Table(["", *tests], rows)
    return [("Metrics from outside, after the last round", [Text(text), table])]


def value_and_range(values: Sequence[float | None]) -> str:
    """The mean of numbers with the lowest and the highest of several.

    Args:
        values: one for each seed, None where it is not defined.

    Returns:
        A text; n/a where one is missing.

    Example:
        >>> value_and_range([1.0, 2.0]), value_and_range([1.0]), value_and_range([1.0, None])
        ('1.50 [1.00, 2.00]', '1.00', 'n/a')
    """
    known = [v for v in values if v is not None]
    if len(known) < len(values) or not known:
        return "n/a"
    mean = sections.format_value(float(np.mean(known)))
    return f"{mean} [{min(known):,.2f}, {max(known):,.2f}]" if len(known) > 1 else mean


def changed_samples(cell: Cell) -> np.ndarray:
    """The samples on which every network differs from its dense one, in any task.

    Args:
        cell: a method after a round.

    Returns:
        (N,) bool.
    """
    predictions = np.stack([model.predicted.predictions for model in cell.models])
    dense = np.stack([model.dense.predictions for model in cell.models])
    return (predictions != dense).any(axis=-1).all(axis=0)


def provenance(runs: Sequence[Path]) -> list[Block]:
    """Devices, versions and settings, and what the protocol changes for each method.

    Args:
        runs: their directories; the first one's settings are shown.

    Returns:
        Texts and lists.
    """
    stored = config.read(runs[0] / "config.json")
    settings = {k: v for k, v in stored["experiment"].items() if not isinstance(v, dict)}
    made = [f"`{name}`: {value}" for name, value in (settings | stored["versions"]).items()]
    device = "{count} x {kind} ({platform})".format(**stored["devices"])
    first, *rest = protocols.describe(config.load_for_report(runs[0] / "config.json"))
    where = (
        f"`fairgrape run` on {device}. Every round of every seed: metrics.csv. Every prediction: "
        "predictions.csv of each round."
    )
    lines = [line.removeprefix("- ") for line in rest]
    lines += [line for run in runs for line in config.describe(registered(run))[0]]
    return [Text(where), Text(first), *([Bullets(lines)] if lines else []), Bullets(made, most=40)]
