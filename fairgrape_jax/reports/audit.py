"""The bias audit: what compression did to whom, from tables of predictions of any framework."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fairgrape_jax import escape, metrics, storage
from fairgrape_jax.errors import UsageError
from fairgrape_jax.reports import document, prediction_tables, sections
from fairgrape_jax.reports.comparison import STATISTICS, Comparison, cautions, compare, pooled
from fairgrape_jax.reports.document import Block, Bullets, Document, Table, Text
from fairgrape_jax.reports.prediction_tables import Columns, Words


@dataclasses.dataclass(frozen=True)
class Request:
    """What to audit. compressed: sets of models by name, a file per model (say, per seed)."""

    dense: tuple[Path, ...]
    compressed: dict[str, tuple[Path, ...]]
    columns: Columns = dataclasses.field(default_factory=Columns)
    positive: str = ""
    """The positive class of two; the second one in order if empty."""
    missing: Literal["error", "drop"] = "error"
    """What to do with samples that are not in every file."""
    min_group: int = 1
    """Samples of groups with fewer are left out of everything."""
    convention: metrics.Convention = "simon-says"
    """The convention of CEV and SDE."""
    replicates: int | None = None
    """Bootstrap replicates; by default 1,000, or 200 where there are very many kinds of samples."""


@dataclasses.dataclass(frozen=True)
class Audit:
    """What was found. labels, members: (N,) codes; dense, said: predictions, (D, N) and by set."""

    request: Request
    ids: Any
    labels: np.ndarray
    members: np.ndarray
    dense: np.ndarray
    said: dict[str, np.ndarray]
    classes: tuple[str, ...]
    groups: tuple[str, ...]
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...]


def audit(request: Request) -> Audit:
    """Read, match, count and compare. UsageError for whatever cannot be used as it is."""
    check(request)
    paths = [*request.dense, *[path for files in request.compressed.values() for path in files]]
    read = {path: prediction_tables.read(path, request.columns) for path in dict.fromkeys(paths)}
    matched, dropped = prediction_tables.aligned(
        list(read.values()), drop=request.missing == "drop"
    )
    found = dict(zip(read, matched, strict=True))
    group_column = " x ".join(request.columns.groups)
    label = prediction_tables.agreed(matched, "label", request.columns.label)
    group = prediction_tables.agreed(matched, "group", group_column)
    notes = []
    if dropped:
        notes.append(f"{dropped:,} samples were left out: they are not in every file.")
    labelled = label.codes >= 0
    if not labelled.all():
        raise UsageError(f"{paths[0]}: {int((~labelled).sum()):,} samples have no label")
    keep = group.codes >= 0
    if not keep.all():
        notes.append(f"{int((~keep).sum()):,} samples were left out: their group is empty.")
    sizes = np.bincount(group.codes[keep], minlength=len(group.names))
    for name, size in zip(group.names, sizes, strict=True):
        if 0 < size < request.min_group:
            notes.append(
                f"Group {name} was left out: {size} samples are fewer than {request.min_group} "
                "(--min-group)."
            )
    keep &= np.append(sizes >= request.min_group, False)[group.codes]
    if not keep.any():
        raise UsageError(f"{paths[0]}: no sample is left; {' '.join(notes)}")
    rows = np.flatnonzero(keep)
    group = prediction_tables.used(group.take(rows))
    if len(group.names) < 2:
        raise UsageError(
            f"column {group_column!r}: {group.names[0]!r} is the only group; a comparison needs "
            "two or more. Name another column with --group-column (the label column makes each "
            "class a group)"
        )
    for path, table in found.items():
        if (empty := int((table.prediction.codes[rows] < 0).sum())) > 0:
            raise UsageError(f"{path}: {empty:,} samples have no prediction")
    classes, more = class_names(label, found.values(), request.positive)
    notes += more

    def coded(words: Words) -> np.ndarray:
        number = {name: code for code, name in enumerate(classes)}
        return np.array([number.get(name, -1) for name in words.names], np.int32)[words.codes[rows]]

    labels = coded(label)
    dense = np.stack([coded(found[path].prediction) for path in request.dense])
    said = {
        name: np.stack([coded(found[path].prediction) for path in files])
        for name, files in request.compressed.items()
    }
    comparisons = tuple(
        compare(
            name,
            float("nan"),
            labels[:, None],
            group.codes,
            models[..., None],
            np.broadcast_to(dense, models.shape)[..., None],
            [len(classes)],
            len(group.names),
            convention=request.convention,
            replicates=request.replicates,
        )
        for name, models in said.items()
    )
    whole = len(rows) == len(keep)
    ids = matched[0].ids if whole else matched[0].take(rows).ids
    return Audit(
        request, ids, labels, group.codes, dense, said, classes, group.names, comparisons,
        tuple(notes),
    )  # fmt: skip


def check(request: Request) -> None:
    """UsageError for a request that cannot be met whatever the files hold."""
    for name, files in request.compressed.items():
        if len(request.dense) not in (1, len(files)):
            raise UsageError(
                f"--dense: {len(request.dense)} files for the {len(files)} of {name}; give one for "
                "all, or one for each in the same order"
            )
    if request.min_group < 1 or (request.replicates is not None and request.replicates < 1):
        raise UsageError("--min-group and --replicates must be at least 1")


def class_names(label: Words, found: Any, positive: str) -> tuple[tuple[str, ...], list[str]]:
    """All classes that are labels or predictions, the positive one of two last; and notes."""
    predicted = {name for table in found for name in prediction_tables.used(table.prediction).names}
    labels = set(prediction_tables.used(label).names)
    names = sorted(labels | predicted, key=prediction_tables.order)
    notes = []
    if strangers := sorted(predicted - labels, key=prediction_tables.order):
        notes.append(
            f"{len(strangers)} classes are predicted but are no sample's label "
            f"({prediction_tables.examples(strangers)}): they count as errors."
        )
    if not labels & predicted:
        raise UsageError(
            f"no prediction is ever a label (labels: {prediction_tables.examples(sorted(labels))}; "
            f"predictions: {prediction_tables.examples(sorted(predicted))}); name the classes alike"
        )
    if positive:
        if len(names) != 2 or positive not in names:
            raise UsageError(
                f"--positive: {positive!r} is not one of two classes "
                f"({prediction_tables.examples(names)})"
            )
        names.sort(key=lambda name: name == positive)
    if len(names) == 2:
        notes.append(f"FPR and FNR are those of class {names[1]} (--positive).")
    return tuple(names), notes


def terminal(found: Audit) -> str:
    """The table, notes and cautions for a terminal."""
    header, rows = sections.statistics(found.comparisons, found.groups, base(found))
    lines = [
        sections.aligned(header, rows),
        f"CEV, SDE: {sections.CONVENTIONS[found.request.convention]}",
    ]
    lines += [f"note: {note}" for note in (*found.notes, *warnings(found))]
    return "\n".join(lines)


def base(found: Audit) -> str:
    """How the dense column is called."""
    count = len(found.request.dense)
    return "dense" if count == 1 else f"dense (mean of {count})"


def warnings(found: Audit) -> list[str]:
    """Cautions about these numbers."""
    return cautions(found.comparisons, found.groups, [found.classes])


def write(found: Audit, out: Path) -> None:
    """report.html, report.md, metrics.json and pies.csv, in `out`."""
    out.mkdir(parents=True, exist_ok=True)
    text = report(found)
    storage.write_text(out / "report.html", document.page(text))
    storage.write_text(out / "report.md", document.markdown(text))
    storage.write_json(out / "metrics.json", numbers(found))
    table = io.StringIO(newline="")
    writer = csv.writer(table)
    writer.writerow(["set", "id", "group", "label", "dense", "compressed"])
    for name, models in found.said.items():
        for i in np.flatnonzero(metrics.pies(models, found.dense)):
            said = [" ".join(found.classes[c] for c in m[:, i]) for m in (found.dense, models)]
            group, label = found.groups[found.members[i]], found.classes[found.labels[i]]
            row = [name, found.ids[int(i)].as_py(), group, label, *said]
            writer.writerow(escape.cells(row))
    storage.write_text(out / "pies.csv", table.getvalue())


def numbers(found: Audit) -> dict[str, Any]:
    """Everything as plain values; null where undefined."""

    def plain(values: Any) -> Any:
        return [None if not np.isfinite(x) else float(x) for x in values]

    sets = {}
    for one in found.comparisons:
        counts, dense = pooled(one)
        after, before = (metrics.class_metrics(x[0].sum(axis=0)) for x in (counts, dense))
        sets[one.name] = {
            "models": len(one.counts[0]),
            "statistics": {
                row: {
                    "value": plain(one.mean[row]),
                    "low": plain(one.low[row]),
                    "high": plain(one.high[row]),
                }
                for row in STATISTICS
            },
            "excluded": {what: one.excluded(what) for what in ("classes", "groups")},
            "class_rates": {row: plain(rates) for row, rates in after.items()},
            "dense_class_rates": {row: plain(rates) for row, rates in before.items()},
        }
    return {
        "samples": len(found.labels),
        "groups": dict(zip(found.groups, found.comparisons[0].sizes.tolist(), strict=True)),
        "classes": list(found.classes),
        "convention": found.request.convention,
        "replicates": found.request.replicates,
        "notes": [*found.notes, *warnings(found)],
        "sets": sets,
    }


def report(found: Audit) -> Document:
    """The report of an audit."""
    request = found.request
    files = [f"dense: {', '.join(path.name for path in request.dense)}"]
    files += [f"{n}: {', '.join(path.name for path in f)}" for n, f in request.compressed.items()]
    header, rows = sections.statistics(found.comparisons, found.groups, base(found))
    intro = (
        f"{len(found.labels):,} samples, {len(found.groups)} groups, {len(found.classes)} classes. "
        f"{sections.MEANING} Here: {sections.CONVENTIONS[request.convention]}."
    )
    rates: list[Block] = []
    for one in found.comparisons:
        rates += sections.class_table(one, found.classes)
    rates += sections.class_figures(found.comparisons, found.groups, found.classes)

    def called(place: int) -> str:
        return found.ids[place].as_py()

    exemplars: list[Block] = [Text(f"{sections.EXEMPLARS} All are in pies.csv.")]
    for name, models in found.said.items():
        hit = metrics.pies(models, found.dense)
        exemplars += sections.exemplars(name, hit, found.members, found.groups, called)
    return Document(
        f"Bias audit: {', '.join(request.compressed)}",
        [
            ("", [Text(intro)]),
            ("What was compared", [Bullets(files)]),
            ("Before reading on", cautious([*found.notes, *warnings(found)])),
            ("Metrics", [Table(header, rows)]),
            ("Groups", sections.group_figures(found.comparisons, found.groups)),
            ("Error rates of classes", rates),
            ("Samples that compression changed", exemplars),
        ],
    )


def cautious(lines: Sequence[str]) -> list[Block]:
    """Notes and cautions, or that there are none."""
    return [
        Bullets(lines) if lines else Text("Nothing of note: no small group, no zero base rate.")
    ]
