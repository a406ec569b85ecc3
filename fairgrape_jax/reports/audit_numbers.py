"""What an audit counted, as plain values for metrics.json, and the samples changed as pies.csv."""

from __future__ import annotations

import csv
import io

import numpy as np

from fairgrape_jax import escape, metrics
from fairgrape_jax.reports.audit import Audit
from fairgrape_jax.reports.audit_cautions import findings, warnings
from fairgrape_jax.reports.comparison import STATISTICS, Comparison, pool_counts
from fairgrape_jax.reports.differences import extremes
from fairgrape_jax.reports.metric_tables import ALONE
from fairgrape_jax.storage.schema import JsonObject


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
            for row in (ALONE if alone else STATISTICS)
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
