"""What an audit prints and writes: the table of a terminal, report.html and .md, metrics.json."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np

from fairgrape_jax import escape, metrics, storage
from fairgrape_jax.errors import UsageError
from fairgrape_jax.reports import cautions, differences, document, sections, thumbnails
from fairgrape_jax.reports.audit import Audit
from fairgrape_jax.reports.comparison import STATISTICS, Comparison, pool_counts
from fairgrape_jax.reports.differences import extremes
from fairgrape_jax.reports.document import Block, Bullets, Document, Table, Text
from fairgrape_jax.storage.schema import JsonObject


def terminal(audit: Audit) -> str:
    """The table, findings, notes and cautions for a terminal.

    Args:
        audit: what was read and counted.

    Returns:
        The text, several lines.
    """
    header, rows = statistics(audit)
    lines = [document.text_table(header, rows)]
    if not audit.request.alone:
        lines.append(f"CEV, SDE: {sections.CONVENTIONS[audit.request.convention]}")
    lines += findings(audit)
    lines += [f"note: {note}" for note in (*audit.notes, *warnings(audit))]
    return "\n".join(lines)


def statistics(audit: Audit) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the main table.

    Args:
        audit: what was read and counted.

    Returns:
        The header, and the rows.
    """
    if audit.request.alone:
        return sections.statistics_alone(audit.comparisons, audit.groups.names)
    count = len(audit.request.dense)
    base = "dense" if count == 1 else f"dense (mean of {count})"
    return sections.statistics(audit.comparisons, audit.groups.names, base)


def findings(audit: Audit) -> list[str]:
    """Which groups fare best and worst, where the samples tell.

    Args:
        audit: what was read and counted.

    Returns:
        A line each.
    """
    groups = audit.groups.names
    if audit.request.alone:
        return [line for one in audit.comparisons for line in cautions.findings_alone(one, groups)]
    return cautions.findings(audit.comparisons, groups)


def warnings(audit: Audit) -> list[str]:
    """Cautions about these numbers.

    Args:
        audit: what was read and counted.

    Returns:
        A line each.
    """
    groups, tasks = audit.groups.names, audit.tasks
    if audit.request.alone:
        lines = [
            x for one in audit.comparisons for x in cautions.cautions_alone(one, groups, tasks)
        ]
        return list(dict.fromkeys(lines))
    return cautions.cautions(audit.comparisons, groups, tasks)


def write(audit: Audit, out: Path, pictures: Path | None = None) -> None:
    """report.html, report.md, metrics.json and pies.csv, in `out`.

    Args:
        audit: what to report.
        out: a folder; made where it is not there.
        pictures: a folder or archive of pictures that are called as the samples' ids, for
            thumbnails of those that compression changed.
    """
    text = report(audit, pictures)
    out.mkdir(parents=True, exist_ok=True)
    document.write(text, out)
    storage.write_json(out / "metrics.json", numbers(audit))
    if not audit.request.alone:
        storage.write_text(out / "pies.csv", pies(audit))


def pies(audit: Audit) -> str:
    """A CSV of the samples that compression changed; crossed groups have a column each.

    Args:
        audit: what was read and counted.

    Returns:
        The text of the file.
    """
    table = io.StringIO(newline="")
    writer = csv.writer(table)
    columns = audit.groups.columns
    headers = ["group"] if len(columns) == 1 else [f"group:{name}" for name in columns]
    writer.writerow(escape.csv_cells(["set", "id", *headers, "label", "dense", "compressed"]))
    for name, models in audit.models.items():
        for i in np.flatnonzero(metrics.pies(models, audit.dense)):
            code = audit.groups.codes[i]
            values = audit.groups.values[code] if code >= 0 else [""] * len(columns)
            words = [" ".join(audit.classes[c] for c in m[:, i]) for m in (audit.dense, models)]
            row = [name, audit.ids[int(i)].as_py(), *values, audit.classes[audit.labels[i]], *words]
            writer.writerow(escape.csv_cells(row))
    return table.getvalue()


def numbers(audit: Audit) -> JsonObject:
    """Everything that was counted, as plain values.

    Args:
        audit: what was read and counted.

    Returns:
        What metrics.json holds: numbers, words, lists and tables of them, None where undefined.
    """

    names = audit.groups.names
    return {
        "samples": len(audit.labels),
        "groups": dict(zip(names, audit.comparisons[0].sizes.tolist(), strict=True)),
        "group_columns": list(audit.groups.columns),
        "group_values": {n: list(v) for n, v in zip(names, audit.groups.values, strict=True)},
        "samples_of_no_group": int((audit.groups.codes < 0).sum()),
        "classes": list(audit.classes),
        "convention": audit.request.convention,
        "replicates": audit.request.replicates,
        "notes": [*audit.notes, *warnings(audit)],
        "findings": findings(audit),
        "sets": {one.name: _numbers_of_set(audit, one) for one in audit.comparisons},
    }


def _numbers_of_set(audit: Audit, one: Comparison) -> JsonObject:
    """What metrics.json holds of a set of models."""
    alone = audit.request.alone
    counts, dense = pool_counts(one)
    values = {
        "models": len(one.counts[0]),
        "files": [str(source) for source in audit.request.compressed[one.name]],
        "statistics": {
            row: {
                "value": _plain(one.mean[row]),
                "low": _plain(one.low[row]),
                "high": _plain(one.high[row]),
            }
            for row in (sections.ALONE if alone else STATISTICS)
        },
        "extremes": _extremes(audit, one),
        "class_rates": _class_rates(counts[0]),
    }
    if alone:
        return values
    return values | {
        "excluded": {what: one.excluded(what) for what in ("classes", "groups")},
        "dense_class_rates": _class_rates(dense[0]),
    }


def _plain(values: np.ndarray) -> list[float | None]:
    return [None if not np.isfinite(x) else float(x) for x in values]


def _class_rates(table: np.ndarray) -> dict[str, list[float | None]]:
    rates = metrics.class_metrics(table.sum(axis=0))
    return {name: _plain(values) for name, values in rates.items()}


def _extremes(audit: Audit, one: Comparison) -> JsonObject | None:
    """The groups with the largest and the smallest change, or accuracy, and their difference."""
    row = "group_accuracy" if audit.request.alone else "group_change"
    spread = extremes(one.mean[row], one.draws[row])
    if spread is None:
        return None
    return {
        "of": row,
        "highest": audit.groups.names[spread.high],
        "lowest": audit.groups.names[spread.low],
        "value": spread.value,
        "low": spread.interval[0],
        "high": spread.interval[1],
    }


def report(audit: Audit, pictures: Path | None = None) -> Document:
    """The report of an audit.

    Args:
        audit: what was read and counted.
        pictures: a folder or archive of pictures that are called as the samples' ids, for
            thumbnails.

    Returns:
        The report.

    Raises:
        UsageError: pictures without ids to know them by.
    """
    request, groups = audit.request, audit.groups.names
    files = [f"dense: {', '.join(one.title for one in request.dense)}"] if request.dense else []
    files += [f"{n}: {', '.join(s.title for s in f)}" for n, f in request.compressed.items()]
    intro = (
        f"{len(audit.labels):,} samples, {len(groups)} groups, {len(audit.classes)} classes. "
        f"{sections.MEANING}"
    )
    if not request.alone:
        intro += f" {sections.MEANING_OF_CHANGES} Here: {sections.CONVENTIONS[request.convention]}."
    rates: list[Block] = []
    for one in audit.comparisons:
        rates += sections.class_table(one, audit.classes, alone=request.alone)
    if not request.alone:
        rates += sections.class_figures(audit.comparisons, groups, audit.classes)
    notes = [*audit.notes, *warnings(audit)]
    parts: list[tuple[str, list[Block]]] = [
        ("", [Text(intro)]),
        ("What was compared" if request.dense else "What was looked at", [Bullets(files)]),
        ("Before reading on", [Bullets(notes) if notes else Text("Nothing of note.")]),
        ("Metrics", [Table(*statistics(audit))]),
        ("Which differences the samples tell", difference_blocks(audit)),
        ("Groups", sections.group_figures(audit.comparisons, groups, alone=request.alone)),
        ("Error rates of classes", rates),
    ]
    if not request.alone:
        parts.append(("Samples that compression changed", exemplars(audit, pictures)))
    kind = "Bias audit" if request.dense else "Bias audit of models alone"
    return Document(f"{kind}: {', '.join(request.compressed)}", parts)


def difference_blocks(audit: Audit) -> list[Block]:
    """Which group fares best and worst in each set, and which sets differ.

    Args:
        audit: what was read and counted.

    Returns:
        The findings, and a table of the differences between sets.
    """
    lines = findings(audit)
    what = "accuracy is lowest" if audit.request.alone else "the loss is largest"
    nothing = f"Of no set do these samples tell for which group {what}."
    return [Bullets(lines) if lines else Text(nothing), *compare_sets(audit)]


def compare_sets(audit: Audit) -> list[Block]:
    """Each set minus the one with the smallest spread over groups, on the same samples.

    Args:
        audit: what was read and counted.

    Returns:
        A note and a table; none for a single set.
    """
    models = list(audit.models.values())
    if len(models) < 2:
        return []
    if len({len(each) for each in models}) > 1:
        return [Text("The sets have different numbers of models: they are not compared.")]
    labels = audit.labels[:, None]
    compared = differences.compare_models(
        np.stack([each[..., None] == labels for each in models]),
        None
        if audit.request.alone
        else np.broadcast_to(audit.dense, models[0].shape)[..., None] == labels,
        audit.groups.codes,
        len(audit.groups.values),
        replicates=audit.request.replicates,
    )
    return sections.difference_table(list(audit.models), compared)


def exemplars(audit: Audit, pictures: Path | None) -> list[Block]:
    """The samples that every model of a set changed, with their pictures where there are some.

    Args:
        audit: what was read and counted.
        pictures: as for `report`.

    Returns:
        A text, and for each set its counts, ids and pictures.

    Raises:
        UsageError: pictures without ids to know them by.
    """
    blocks: list[Block] = [Text(f"{sections.EXEMPLARS} All are in pies.csv.")]
    changes = {name: metrics.pies(models, audit.dense) for name, models in audit.models.items()}
    addresses_by_place: dict[int, str] = {}
    if pictures is not None:
        if audit.ids_are_rows:
            option = "--thumbnails" if audit.request.by_flags else "pictures="
            raise UsageError(f"{option}: there are no ids, by which to know a sample's picture")
        first_places = [
            np.flatnonzero(changed)[: thumbnails.MOST].tolist() for changed in changes.values()
        ]
        ids = {place: audit.ids[place].as_py() for places in first_places for place in places}
        addresses = thumbnails.pictures_by_name(pictures, ids.values())
        addresses_by_place = {
            place: addresses[name] for place, name in ids.items() if name in addresses
        }
        blocks.append(
            Text(
                f"Pictures: of the first {thumbnails.MOST} of each set, where {pictures.name} has "
                f"one ({len(addresses_by_place):,} of {len(ids):,})."
            )
        )
    for name, changed in changes.items():
        blocks += sections.exemplars(
            name,
            changed,
            audit.groups.codes,
            audit.groups.names,
            id_of=lambda place: audit.ids[place].as_py(),
            thumbnails=addresses_by_place,
        )
    return blocks
