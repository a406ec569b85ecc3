"""What a run leaves for its reader: report.html, report.md, metrics.csv and plots.

From the files of its rounds: every number is recomputed from the predictions of each evaluated
model; nothing needs a device.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from fairgrape_jax import config, escape, storage
from fairgrape_jax.config import protocols
from fairgrape_jax.errors import UsageError
from fairgrape_jax.progress import say
from fairgrape_jax.reports import charts, document, sections
from fairgrape_jax.reports.cautions import cautions
from fairgrape_jax.reports.document import Block, Bullets, Document, Figure, Table, Text, table
from fairgrape_jax.reports.results import Cell, Model, compared, read
from fairgrape_jax.storage.files import write_text

# What the tables give an interval for, in this order; group metrics take a place per group.
STATISTICS = ("accuracy", "group_accuracy", "group_change", "rho_accuracy", "rho_change")
MOST_TASKS = 4  # of many tasks, those whose classes are drawn


def write(runs: Sequence[Path], out: Path) -> None:
    """Write the report of one or several runs to `out`.

    UsageError for a directory that is no run, has no complete stage, or was made on other groups
    or tasks than the first.
    """
    from fairgrape_jax.reports import plots  # imports matplotlib, which nothing else needs

    models = [model for run in runs for model in read(run, label=len(runs) > 1)]
    if all(model.record["method"] == "dense" for model in models):
        raise UsageError(f"{runs[0]}: no round is complete yet; run it on first")
    first = models[0].record
    for model in models:
        if (model.record["groups"], model.record["tasks"]) != (first["groups"], first["tasks"]):
            raise UsageError(f"{model.name}: made on other groups or tasks than {models[0].name}")
    cells = compared(models)
    with storage.name_path_in_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        write_csv(out / "metrics.csv", models)
        plots.accuracy_over_rounds(out / "accuracy_over_rounds.png", models)
        plots.accuracy_and_disparity(out / "accuracy_and_disparity.png", models)
        plots.change_per_group(out / "change_per_group.png", cells)
        plots.importance_share(out / "importance_share.png", models)
        write_text(out / "report.md", render(runs, models, cells))
        page = document.page(to_document(runs, models, cells))
        write_text(out / "report.html", page)
    say(short(cells, first["groups"]))
    say(f"report: {out / 'report.html'} (and report.md)")


def write_csv(path: Path, models: Iterable[Model]) -> None:
    """One row per model with every metric; metrics per group take a column per group."""
    rows = []
    for model in models:
        row = {"method": model.name, "seed": model.seed, "round": model.record["round"]}
        row["density"] = model.density
        for name, value in model.record["test"].items():
            if isinstance(value, list):
                for group, number in zip(model.record["groups"], value, strict=True):
                    row[f"{name}:{group}"] = number
            else:
                row[name] = value
        rows.append(row)
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(escape.cells(rows[0]))
    writer.writerows(escape.cells(row.get(name, "") for name in rows[0]) for row in rows)
    write_text(path, text.getvalue())


def render(runs: Sequence[Path], models: Sequence[Model], cells: Sequence[Cell]) -> str:
    """The text of report.md."""
    groups = models[0].record["groups"]
    predicted = models[0].predicted
    sizes = np.bincount(predicted.groups, minlength=len(groups))
    members = ", ".join(f"{name} {size:,}" for name, size in zip(groups, sizes, strict=True))
    main, ends = overview(cells, groups), last_rounds(cells)
    stored = config.read(runs[0] / "config.json")
    versions = ", ".join(f"{name} {version}" for name, version in stored["versions"].items())
    devices = stored["devices"]
    parts = [
        f"# {escape.markdown(', '.join(run.name for run in runs))}",
        f"Test samples: {len(predicted.groups):,} ({escape.markdown(members)}). Numbers are "
        "percentages and percentage points: the mean over seeds, in brackets the 95 % bootstrap "
        "interval over test samples (within groups, paired with the dense network) and seeds. "
        "Change: accuracy minus the dense network's of the same seed. rho: sample standard "
        "deviation over groups of accuracy (A) and of change (D), per seed, then averaged.",
        "## Methods by weights left",
        table(main.header, main.rows),
        "## All metrics, after the last round",
        table(*sections.statistics(ends, groups)),
        "\n".join(
            f"- {escape.markdown(line)}"
            for line in cautions(ends, groups, models[0].record["tasks"]) + lowered(models)
        ),
        "## Every seed",
        every_seed(cells, groups),
        "## Error rates",
        error_rates(cells, groups),
        "## Plots",
        "![Accuracy of each group over the rounds](accuracy_over_rounds.png)",
        "![Accuracy, worst group and disparity against weights left](accuracy_and_disparity.png)",
        "![Change of each group by method](change_per_group.png)",
        "![Share of importance of each group by layer](importance_share.png)",
        "## How this was made",
        *protocol(runs[0]),
        f"`fairgrape run` with the settings in config.json; {versions}; {devices['count']} x "
        f"{devices['kind']} ({devices['platform']}). Every round of every seed: metrics.csv. "
        "Every prediction: predictions.csv of each round.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def last_rounds(cells: Sequence[Cell]) -> list[Cell]:
    """Each method after its last round, its name saying what is left."""
    pruned = {cell.name: cell for cell in cells if not cell.dense_itself}
    return [dataclasses.replace(cell, name=title(cell)) for cell in pruned.values()]


def protocol(run: Path) -> list[str]:
    """What the protocol of a run changes for its methods."""
    return ["\n".join(protocols.told(config.load(run / "config.json")))]


def overview(cells: Sequence[Cell], groups: Sequence[str]) -> Table:
    """The main table: a row per method and density."""
    header = ["method", "weights %", "seeds", "overall"]
    header += [*groups, *[f"change {name}" for name in groups], "rho(A)", "rho(D)"]
    rows = []
    for c in cells:
        row = [c.name, f"{100 * c.density:.1f}", str(len(c.models))]
        for name in STATISTICS:
            if c.dense_itself and "change" in name:
                row += ["-"] * len(c.mean[name])
                continue
            sign = "+" if name == "group_change" else ""
            row += [
                f"{mean:{sign}.2f} [{low:{sign}.2f}, {high:{sign}.2f}]"
                for mean, low, high in zip(c.mean[name], c.low[name], c.high[name], strict=True)
            ]
        rows.append(row)
    return Table(header, rows)


def short(cells: Sequence[Cell], groups: Sequence[str]) -> str:
    """A few columns for a terminal: the dense networks, and each method at its last round."""
    last = {cell.name: cell for cell in cells}.values()  # a later round replaces an earlier one
    rows = [["method", "weights %", "overall", *groups, "rho(D)", "95 % interval"]]
    for c in last:
        numbers = [f"{c.mean['accuracy'][0]:.1f}"]
        for accuracy, change in zip(c.mean["group_accuracy"], c.mean["group_change"], strict=True):
            numbers.append(f"{accuracy:.1f} ({change:+.1f})")
        spread = f"{c.mean['rho_change'][0]:.2f}"
        interval = f"{c.low['rho_change'][0]:.2f} - {c.high['rho_change'][0]:.2f}"
        rows.append([c.name, f"{100 * c.density:.1f}", *numbers, spread, interval])
    header, *lines = rows
    return document.text_table(header, lines, numbers="left")


def every_seed(cells: Sequence[Cell], groups: Sequence[str]) -> str:
    """The same without averaging: single runs jump at high sparsity, so all are shown."""
    header = ["method", "weights %", "seed", "overall", *groups, "rho(A)", "rho(D)", "worst", "gap"]
    rows = []
    for c in cells:
        for model in c.models:
            test = model.record["test"]
            numbers = [test["accuracy"], *test["group_accuracy"], test["rho_accuracy"]]
            numbers += [test["rho_change"], test["worst_group"], test["gap"]]
            rows.append(
                [c.name, f"{100 * c.density:.1f}", str(model.seed), *[f"{x:.2f}" for x in numbers]]
            )
    return table(header, rows)


def error_rates(cells: Sequence[Cell], groups: Sequence[str]) -> str:
    """FPR and FNR, overall and per group, averaged over seeds."""
    header = ["method", "weights %", "FPR", *[f"FPR {name}" for name in groups]]
    header += ["FNR", *[f"FNR {name}" for name in groups]]
    rows = []
    for c in cells:
        tests = [model.record["test"] for model in c.models]
        values = [
            np.mean([np.array([t[rate], *t[f"group_{rate}"]], float) for t in tests], axis=0)
            for rate in ("fpr", "fnr")
        ]
        numbers = [f"{x:.2f}" for x in np.concatenate(values)]
        rows.append([c.name, f"{100 * c.density:.1f}", *numbers])
    return table(header, rows)


def to_document(runs: Sequence[Path], models: Sequence[Model], cells: Sequence[Cell]) -> Document:
    """The report as a document, for its HTML form."""
    first = models[0]
    groups = first.record["groups"]
    classes = [names for _, names in first.record["tasks"]]
    pruned = [cell for cell in cells if not cell.dense_itself]
    last = last_rounds(cells)
    header, rows = sections.statistics(last, groups)
    sizes = cells[0].sizes
    members = ", ".join(f"{name} {size:,}" for name, size in zip(groups, sizes, strict=True))
    stored = config.read(runs[0] / "config.json")
    settings = {k: v for k, v in stored["experiment"].items() if not isinstance(v, dict)}
    made = [f"`{name}`: {value}" for name, value in (settings | stored["versions"]).items()]
    device = "{count} x {kind} ({platform})".format(**stored["devices"])
    rates: list[Block] = []
    for one in last if len(classes) == 1 else []:
        rates += sections.class_table(one, classes[0])
    for task, (name, _) in enumerate(first.record["tasks"][:MOST_TASKS]):
        if len(classes) > 1:
            rates.append(Text(f"Task {name}"))
        rates += sections.class_figures(last, groups, classes[task], task)
    return Document(
        ", ".join(run.name for run in runs),
        [
            (
                "",
                [
                    Text(
                        f"{len(first.predicted.groups):,} test samples ({members}), "
                        f"{len({model.seed for model in models})} seeds. "
                        f"{sections.MEANING} {sections.MEANING_OF_CHANGES}"
                    )
                ],
            ),
            (
                "Before reading on",
                [
                    Bullets(
                        cautions(last, groups, first.record["tasks"]) + lowered(models)
                        or ["Nothing."]
                    )
                ],
            ),
            ("Methods by weights left", [overview(cells, groups)]),
            ("All metrics, after the last round", [Table(header, rows)]),
            ("Groups, after the last round", sections.group_figures(last, groups)),
            ("Disparity against sparsity", sections.against_sparsity(pruned)),
            ("Error rates of classes and groups, after the last round", rates),
            ("Share of importance by layer", importance_figures(models)),
            ("Samples that pruning changed", exemplars(last, groups)),
            (
                "How this was made",
                [Text(f"`fairgrape run` on {device}."), *told(runs[0]), Bullets(made, most=40)],
            ),
        ],
    )


def lowered(models: Sequence[Model]) -> list[str]:
    """A line for each network whose training went back from a number that was not finite."""
    return [
        f"{model.name}, seed {model.seed}, round {model.record['round']}: trained at rates x "
        f"{math.prod(one['factor'] for one in past):g}, {past[0]['what']} not being finite before"
        for model in models
        if (past := model.record.get("rollbacks"))
    ]


def told(run: Path) -> list[Block]:
    """What the protocol of a run changes for its methods, as blocks."""
    first, *rest = protocols.told(config.load(run / "config.json"))
    return [Text(first), *([Bullets([line.removeprefix("- ") for line in rest])] if rest else [])]


def title(cell: Cell) -> str:
    """A method and what it left.

    >>> title(Cell("taylor", 0.1, 2, [], [], {}, {}, {}, {}, ()))
    'taylor, 10 %'
    """
    return f"{cell.name}, {100 * cell.density:.3g} %"


def importance_figures(models: Sequence[Model]) -> list[Block]:
    """Each group's share of importance in every layer (Fig. 5): dense, and after each method."""
    figures: list[Block] = []
    scored = [model for model in models if "importance" in model.record]
    for name in dict.fromkeys(model.name for model in scored):
        own = [model.record["importance"] for model in scored if model.name == name]
        layers, groups = list(own[0]), scored[0].record["groups"]
        totals = np.array([[of[layer] for layer in layers] for of in own])  # (S, L, G)
        shares = totals / np.maximum(totals.sum(axis=-1, keepdims=True), np.finfo(float).tiny)
        drawn = charts.shares(f"Importance: {name}", layers, groups, shares.mean(axis=0))
        figures.append(Figure(name, drawn))
    return figures


def exemplars(cells: Sequence[Cell], groups: Sequence[str]) -> list[Block]:
    """The PIEs of each method: how many of each group, and the first by their test number."""
    blocks: list[Block] = [
        Text(f"{sections.EXEMPLARS} Ids are the index in predictions.csv, from 0.")
    ]
    for cell in cells:
        said = np.stack([model.predicted.predictions for model in cell.models])
        dense = np.stack([model.dense.predictions for model in cell.models])
        hit = (said != dense).any(axis=-1).all(axis=0)  # in any task, by every model
        members = cell.models[0].predicted.groups
        blocks += sections.exemplars(cell.name, hit, members, groups, str)
    return blocks
