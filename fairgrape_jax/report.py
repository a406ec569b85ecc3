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
from typing import Any

import numpy as np

from fairgrape_jax import (
    charts,
    config,
    document,
    evaluate,
    integrity,
    layout,
    protocols,
    recorded,
    sections,
    storage,
    words,
)
from fairgrape_jax.comparison import Comparison, cautions, compare
from fairgrape_jax.document import Block, Bullets, Document, Figure, Table, Text, table
from fairgrape_jax.errors import UsageError
from fairgrape_jax.progress import say

# The parts of weights at which methods are compared: of the rounds of a run, the nearest ones.
LEVELS = (0.5, 0.25, 0.1, 0.05, 0.02, 0.01)
# What the tables give an interval for, in this order; group metrics take a place per group.
STATISTICS = ("accuracy", "group_accuracy", "group_change", "rho_accuracy", "rho_change")
MOST_TASKS = 4  # of many tasks, those whose classes are drawn


@dataclasses.dataclass(frozen=True)
class Model:
    """One evaluated network: a stage of a run, with its record and its test predictions."""

    name: str  # the method, behind the run's name where several runs are compared
    seed: int
    record: dict[str, Any]
    predicted: evaluate.Predictions
    dense: evaluate.Predictions

    @property
    def density(self) -> float:
        """Weights alive over all prunable weights."""
        return self.record["density"]


@dataclasses.dataclass(frozen=True)
class Cell(Comparison):
    """One method at one density: the comparison of its models, one per seed."""

    models: tuple[Model, ...]

    @property
    def dense_itself(self) -> bool:
        """Whether these are the unpruned networks."""
        return self.models[0].record["method"] == "dense"


def write(runs: Sequence[Path], out: Path) -> None:
    """Write the report of one or several runs to `out`.

    UsageError for a directory that is no run, has no complete stage, or was made on other groups
    or tasks than the first.
    """
    from fairgrape_jax import plots  # imports matplotlib, which nothing else needs

    models = [model for run in runs for model in read(run, label=len(runs) > 1)]
    if all(model.record["method"] == "dense" for model in models):
        raise UsageError(f"{runs[0]}: no round is complete yet; run it on first")
    first = models[0].record
    for model in models:
        if (model.record["groups"], model.record["tasks"]) != (first["groups"], first["tasks"]):
            raise UsageError(f"{model.name}: made on other groups or tasks than {models[0].name}")
    cells = compared(models)
    with storage.naming(out):
        out.mkdir(parents=True, exist_ok=True)
        write_csv(out / "metrics.csv", models)
        plots.accuracy_over_rounds(out / "accuracy_over_rounds.png", models)
        plots.accuracy_and_disparity(out / "accuracy_and_disparity.png", models)
        plots.change_per_group(out / "change_per_group.png", cells)
        plots.importance_share(out / "importance_share.png", models)
        integrity.write_text(out / "report.md", render(runs, models, cells))
        page = document.page(to_document(runs, models, cells))
        integrity.write_text(out / "report.html", page)
    say(short(cells, first["groups"]))
    say(f"report: {out / 'report.html'} (and report.md)")


def read(run: Path, label: bool = False) -> list[Model]:
    """All complete stages of a run; dense networks first, then by method, seed and round."""
    if not (run / "config.json").exists():
        raise UsageError(f"{run}: not a run (no config.json)")
    order = config.load(run / "config.json").methods
    found = [(record, directory) for directory, record in layout.records(run)]
    if not found:
        raise UsageError(f"{run}: no stage is complete yet")
    for record, directory in found:
        recorded.check(run, directory, record)
        if record["method"] not in ("dense", *order):
            raise UsageError(f"{directory}: of a method that is not in the run's config.json")
    rank = {"dense": -1} | {name: place for place, name in enumerate(order)}
    found.sort(key=lambda x: (rank[x[0]["method"]], x[0]["seed"], x[0]["round"]))
    dense: dict[int, evaluate.Predictions] = {}
    models = []
    for record, directory in found:
        predicted = recorded.predictions(directory, record)
        if record["method"] == "dense":
            dense[record["seed"]] = predicted
        if record["seed"] not in dense:
            raise UsageError(
                f"{run}: the dense network of seed {record['seed']} is damaged or gone"
            )
        if len(predicted.groups) != len(dense[record["seed"]].groups):
            raise UsageError(f"{directory}: not the samples of the dense network's predictions")
        name = f"{run.name}:{record['method']}" if label else record["method"]
        models.append(Model(name, record["seed"], record, predicted, dense[record["seed"]]))
    return models


def compared(models: Sequence[Model], replicates: int = 1000) -> list[Cell]:
    """A cell per method and compared density; the dense networks are the first ones."""
    cells = []
    for name in dict.fromkeys(model.name for model in models):
        own = [model for model in models if model.name == name]
        for number in compared_rounds(own):
            chosen = tuple(model for model in own if model.record["round"] == number)
            cells.append(cell(chosen, replicates))
    return cells


def compared_rounds(models: Sequence[Model]) -> list[int]:
    """The rounds nearest to LEVELS, and the last one; of those that every seed has completed."""
    seeds = {model.seed for model in models}
    density: dict[int, float] = {}
    for number in {model.record["round"] for model in models}:
        here = [model for model in models if model.record["round"] == number]
        if {model.seed for model in here} == seeds:
            density[number] = here[0].density
    if not density:
        return []
    nearest = [min(density, key=lambda n: abs(np.log(density[n] / level))) for level in LEVELS]
    close = [n for n, level in zip(nearest, LEVELS, strict=True) if 0.7 < density[n] / level < 1.5]
    return sorted({*close, max(density)})


def cell(models: tuple[Model, ...], replicates: int) -> Cell:
    """Mean over seeds and 95 % bootstrap interval of every statistic, for one method and round."""
    record, first = models[0].record, models[0].predicted
    found = compare(
        models[0].name,
        models[0].density,
        first.labels,
        first.groups,
        np.stack([model.predicted.predictions for model in models]),
        np.stack([model.dense.predictions for model in models]),
        [len(classes) for _, classes in record["tasks"]],
        len(record["groups"]),
        replicates=replicates,
    )
    fields = {field.name: getattr(found, field.name) for field in dataclasses.fields(found)}
    return Cell(**fields, models=models)


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
    writer.writerow(words.cells(rows[0]))
    writer.writerows(words.cells(row.get(name, "") for name in rows[0]) for row in rows)
    integrity.write_text(path, text.getvalue())


def render(runs: Sequence[Path], models: Sequence[Model], cells: Sequence[Cell]) -> str:
    """The text of report.md."""
    groups = models[0].record["groups"]
    predicted = models[0].predicted
    sizes = np.bincount(predicted.groups, minlength=len(groups))
    members = ", ".join(f"{name} {size:,}" for name, size in zip(groups, sizes, strict=True))
    main, ends = overview(cells, groups), last_rounds(cells)
    classes = [names for _, names in models[0].record["tasks"]]
    stored = config.read(runs[0] / "config.json")
    versions = ", ".join(f"{name} {version}" for name, version in stored["versions"].items())
    devices = stored["devices"]
    parts = [
        f"# {words.markdown(', '.join(run.name for run in runs))}",
        f"Test samples: {len(predicted.groups):,} ({words.markdown(members)}). Numbers are "
        "percentages and percentage points: the mean over seeds, in brackets the 95 % bootstrap "
        "interval over test samples (within groups, paired with the dense network) and seeds. "
        "Change: accuracy minus the dense network's of the same seed. rho: sample standard "
        "deviation over groups of accuracy (A) and of change (D), per seed, then averaged.",
        "## Methods by weights left",
        table(main.header, main.rows),
        "## All metrics, after the last round",
        table(*sections.statistics(ends, groups)),
        "\n".join(
            f"- {words.markdown(line)}"
            for line in cautions(ends, groups, classes) + lowered(models)
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
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


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
                        f"{len({model.seed for model in models})} seeds. {sections.MEANING}"
                    )
                ],
            ),
            (
                "Before reading on",
                [Bullets(cautions(last, groups, classes) + lowered(models) or ["Nothing."])],
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

    >>> title(Cell("taylor", 0.1, [], [], {}, {}, {}, ()))
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
