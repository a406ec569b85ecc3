"""What an audit prints and writes: the table of a terminal, report.html and .md, metrics.json."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fairgrape_jax import metrics, storage
from fairgrape_jax.errors import UsageError
from fairgrape_jax.reports import (
    against,
    audit_cautions,
    audit_numbers,
    cautions,
    confusion,
    definitions,
    document,
    exemplars,
    figures,
    metric_tables,
    summary,
    thumbnails,
)
from fairgrape_jax.reports.audit import Audit
from fairgrape_jax.reports.blocks import (
    Block,
    Bullets,
    Definitions,
    Document,
    Folded,
    Table,
    Text,
    Verdict,
)
from fairgrape_jax.reports.confusion import Answers
from fairgrape_jax.reports.verdict import Standing, standing, verdict


def terminal(audit: Audit) -> str:
    """The verdict, the table, findings, notes and cautions for a terminal.

    Args:
        audit: what was read and counted.

    Returns:
        The text, several lines.
    """
    header, rows = statistics(audit)
    lines = [verdict_of(audit).text, document.text_table(header, rows)]
    if not audit.request.alone:
        lines.append(f"CEV, SDE: {definitions.CONVENTIONS[audit.request.convention]}")
    lines += audit_cautions.findings(audit)
    notes = (*audit.notes, *audit_cautions.warnings(audit))
    return "\n".join([*lines, *[f"note: {note}" for note in notes]])


def statistics(audit: Audit) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table of all metrics.

    Args:
        audit: what was read and counted.

    Returns:
        The header, and the rows.
    """
    if audit.request.alone:
        return metric_tables.statistics_alone(audit.comparisons, audit.groups.names)
    count = len(audit.request.dense)
    base = "dense" if count == 1 else f"dense (mean of {count})"
    return metric_tables.statistics(audit.comparisons, audit.groups.names, base)


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
    storage.write_json(out / "metrics.json", audit_numbers.numbers(audit))
    if not audit.request.alone:
        storage.write_text(out / "pies.csv", audit_numbers.pies(audit))


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
    request = audit.request
    rank = standing(audit.comparisons, audit.compared)
    notes = [*audit_cautions.warnings(audit), *audit.notes]
    words = definitions.WITHOUT_DENSE if request.alone else ()
    parts: list[tuple[str, list[Block]]] = [
        ("", first_screen(audit)),
        (
            "Models against models" if len(audit.models) > 1 else "Which differences the data tell",
            difference_blocks(audit, rank),
        ),
        ("Who is taken for whom", errors_by_group(audit, rank)),
        ("Metrics", [Table(*statistics(audit))]),
    ]
    if not request.alone:
        parts.append(("Samples that compression changed", changed_sample_blocks(audit, pictures)))
    parts += [
        ("Cautions", [Bullets(notes or ["Nothing of note."])]),
        ("Files", [Bullets(files(audit))]),
        ("Definitions", [Definitions(definitions.terms(words, request.convention))]),
    ]
    kind = "What compression costs whom" if request.dense else "Whom these models serve worst"
    return Document(f"{kind}: {', '.join(request.compressed)}", parts)


def files(audit: Audit) -> list[str]:
    """The files of each set of models.

    Args:
        audit: what was read and counted.

    Returns:
        A line each.
    """
    request = audit.request
    lines = [f"dense: {', '.join(one.title for one in request.dense)}"] if request.dense else []
    return [
        *lines,
        *(f"{n}: {', '.join(s.title for s in f)}" for n, f in request.compressed.items()),
    ]


def first_screen(audit: Audit) -> list[Block]:
    """What was done, the verdict, a picture, a small table.

    Args:
        audit: what was read and counted.
    """
    groups, alone = audit.groups.names, audit.request.alone
    first, counts = audit.comparisons[0], [len(m) for m in audit.models.values()]
    sets = f" in {len(counts)} sets" if len(counts) > 1 else ""
    models = f"{sum(counts)} model{'s' * (sum(counts) > 1)}{sets}"
    against_dense = "" if alone else f" against {len(audit.request.dense)} dense"
    label = audit.request.columns.label
    what = (
        f"{len(audit.labels):,} samples, {len(audit.classes)} classes of {label}, "
        f"{len(groups)} groups of {' x '.join(audit.groups.columns)} "
        f"({summary.sizes(first, groups)}). {models}{against_dense}."
    )
    blocks: list[Block] = [Text(what), verdict_of(audit)]
    if grave := cautions.gravest(audit_cautions.collect(audit)):
        blocks.append(Text(f"Read with care: {grave} More under Cautions."))
    picture = figures.accuracy_by_group(audit.comparisons, groups, alone=alone)
    return [*blocks, picture, summary.small_table(audit.comparisons, groups, alone=alone)]


def verdict_of(audit: Audit) -> Verdict:
    """The verdict on the sets of an audit.

    Args:
        audit: what was read and counted.
    """
    groups = audit.groups.names
    return verdict(audit.comparisons, groups, audit.compared, alone=audit.request.alone)


def difference_blocks(audit: Audit, rank: Standing) -> list[Block]:
    """Which group fares best and worst in each set, and which sets differ.

    Args:
        audit: what was read and counted.
        rank: which of them is first.

    Returns:
        The differences between sets, the findings, and the change of each group.
    """
    blocks: list[Block] = []
    if audit.compared is not None and rank.leader >= 0:
        blocks += against.difference_blocks(list(audit.models), audit.compared, rank.leader)
    elif len(audit.models) > 1 and audit.compared is None:
        blocks.append(Text("The sets have different numbers of models: they are not compared."))
    lines = audit_cautions.findings(audit)
    what = "accuracy is lowest" if audit.request.alone else "the loss is largest"
    nothing = f"Of no set do these samples tell for which group {what}."
    blocks.append(Bullets(lines) if lines else Text(nothing))
    if not audit.request.alone:
        blocks.append(figures.change_by_group(audit.comparisons, audit.groups.names))
    return blocks


def errors_by_group(audit: Audit, rank: Standing) -> list[Block]:
    """Right answers and confusion per group, rates of classes, the plane of error rates.

    Args:
        audit: what was read and counted.
        rank: which set is first.
    """
    groups, alone = audit.groups.names, audit.request.alone
    leader = audit.comparisons[max(0, rank.leader)]
    ranked = [leader, *(one for one in audit.comparisons if one is not leader)]
    answers = Answers(
        labels=audit.labels,
        members=audit.groups.codes,
        predictions={one.name: audit.models[one.name] for one in ranked},
        dense=audit.dense,
        groups=groups,
        classes=audit.classes,
    )
    rates = [
        b for one in ranked for b in metric_tables.class_table(one, audit.classes, alone=alone)
    ]
    blocks = [
        *confusion.label_by_group(leader, 0, answers),
        *confusion.right_answers(ranked, 0, answers),
        *confusion.matrices(answers),
        Folded("Rates of each class", rates),
    ]
    if not alone:
        planes = figures.class_figures(ranked, groups, audit.classes)
        blocks.append(Folded("Where error rates moved", planes))
    return blocks


def changed_sample_blocks(audit: Audit, pictures: Path | None) -> list[Block]:
    """The samples that every model of a set changed, with their pictures where there are some.

    Args:
        audit: what was read and counted.
        pictures: as for `report`.

    Returns:
        A text, how many, and for each set its ids and pictures.

    Raises:
        UsageError: pictures without ids to know them by.
    """
    blocks: list[Block] = [Text(f"{exemplars.EXEMPLARS} All are in pies.csv.")]
    changes = {name: metrics.pies(models, audit.dense) for name, models in audit.models.items()}
    blocks.append(exemplars.count_table(changes, audit.groups.codes, audit.groups.names))
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
        blocks += exemplars.listed(
            name,
            changed,
            id_of=lambda place: audit.ids[place].as_py(),
            thumbnails=addresses_by_place,
        )
    return blocks
