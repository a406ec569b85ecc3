"""Rows from outside (`registry`) that an experiment uses: recorded, and compared on resuming."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

from fairgrape_jax import data, methods, metrics, models
from fairgrape_jax.config.experiment import Experiment
from fairgrape_jax.config.protocols import method_of
from fairgrape_jax.errors import UsageError
from fairgrape_jax.registry import Origin, Table

# Every table that takes rows from outside, by kind.
TABLES: dict[str, Table[Any]] = {
    table.kind: table for table in (methods.METHODS, models.MODELS, data.SOURCES, metrics.METRICS)
}


class Registered(TypedDict):
    """A row from outside, as config.json records it: of a file, or of an installed package.

    Attributes:
        kind: the table.
        name: the row.
        file: the name of the file, without its folder.
        sha256: its digest; "" for a row that was typed into a session.
        distribution: the installed package.
        version: its version.
        before: what the row was before a change that somebody accepted, the oldest first.
    """

    kind: Literal["method", "model", "dataset", "metric"]
    name: str
    file: NotRequired[str]
    sha256: NotRequired[str]
    distribution: NotRequired[str]
    version: NotRequired[str]
    before: NotRequired[list[dict[str, str]]]


def register(kind: str, name: str, row: Any) -> None:
    """Add a row of your own to a table; a run, the library and `fairgrape list` then know it.

    The file that calls this is recorded with its SHA-256 in the config.json of every run that uses
    the row. `fairgrape run` takes such files by --plugin, and an experiment file may hold or import
    the call. An installed package has an entry point in place of it, of the group
    `fairgrape_jax.methods`, `.models`, `.datasets` or `.metrics`, that names the row.

    Args:
        kind: "method", "model", "dataset" or "metric".
        name: what it is called.
        row: what a row of that table is: a `methods.Method`; a Flax module with the fields
            `num_classes`, `axis_name` and `dtype`; (class of options, function that loads); a
            function of (counts, dense). See docs/extending.md.

    Raises:
        UsageError: for a name that is taken, and for what is no row.

    Example:
        >>> import numpy as np
        >>> from fairgrape_jax.metrics import METRICS, group_accuracy
        >>> def middle_group(counts, dense):
        ...     "Accuracy of the group in the middle."
        ...     return np.median(group_accuracy(counts, dense), axis=-1)
        >>> register("metric", "middle_group", middle_group)
        >>> METRICS.unregister("middle_group")
    """
    if kind not in TABLES:
        raise UsageError(f"there is no table of {kind!r}: choose from {', '.join(TABLES)}")
    TABLES[kind].register(name, row)


def used_rows(experiment: Experiment) -> list[Registered]:
    """The rows from outside that an experiment names, and all metrics from outside.

    Args:
        experiment: what is asked for.

    Returns:
        A row for each, in the order of the tables.

    Raises:
        UsageError: for a metric of an installed package that cannot be loaded.
    """
    methods = [method_of(experiment, name) for name in experiment.methods]
    names = {"method": methods, "model": [experiment.model]}
    names["dataset"] = [experiment.data.name]
    clusters = experiment.scoring.groups
    if clusters and clusters.embedding:
        names["model"].append(clusters.embedding.model)
    for problem in metrics.METRICS.load_all().values():
        raise UsageError(problem)
    names["metric"] = sorted(metrics.METRICS.origins)  # the same on every host
    return [
        _record(kind, name, TABLES[kind].origins[name])
        for kind in TABLES
        for name in dict.fromkeys(names[kind])
        if name in TABLES[kind].origins
    ]


def check_available(recorded: Sequence[Registered], directory: Path) -> None:
    """Refuse to go on without a row that a run was begun with.

    Args:
        recorded: the `registered` of its config.json.
        directory: where the run is, for the message.

    Raises:
        UsageError: nobody has registered it here; it names whose it was, and the cure.
    """
    for row in recorded:
        if not TABLES[row["kind"]].find(row["name"]):
            raise UsageError(f"{directory}: {_title(row)} is not known here; {_cure(row)}")


def check_same(
    recorded: Sequence[Registered],
    experiment: Experiment,
    directory: Path,
    *,
    accept_changes: bool = False,
) -> list[Registered]:
    """Compare the rows from outside with those that a run was begun with.

    Args:
        recorded: the `registered` of its config.json.
        experiment: what is asked for.
        directory: where the run is, for the message.
        accept_changes: whether a row may be another one than before.

    Returns:
        What config.json is to record from now on: changed rows with what they were before. Metrics
        that came later are left out.

    Raises:
        UsageError: for a row that is missing or, unless that is accepted, has changed.
    """
    check_available(recorded, directory)
    then = {(row["kind"], row["name"]): row for row in recorded}
    now = {(row["kind"], row["name"]): row for row in used_rows(experiment)}
    result = []
    for key in (*then, *(key for key in now if key not in then and key[0] != "metric")):
        before = then.get(key, Registered(kind=key[0], name=key[1]))
        here = now.get(key, Registered(kind=key[0], name=key[1]))
        if _origin(before) == _origin(here):
            result.append(before)
            continue
        if not accept_changes:
            raise UsageError(
                f"{directory}: was begun with {_title(before)}, which is of {_whose(here)} here, "
                "and the numbers could be others; put back what it was, give another --out, or go "
                "on all the same with --accept-changed-plugins"
            )
        past = [*before.get("before", []), _where(before)]
        result.append(Registered(**{**here, "before": past}))
    return result


def describe(recorded: Sequence[Registered]) -> tuple[list[str], list[str]]:
    """What a report says of the rows from outside.

    Args:
        recorded: the `registered` of a config.json.

    Returns:
        A line for each row, whose it is; and one for each that was changed during the run.
    """
    rows = [f"{row['kind']} `{row['name']}`: of {_whose(row)}" for row in recorded]
    changed = [
        f"{row['kind']} {row['name']} was changed while the run was being made, from "
        f"{_whose(row['before'][0])} to {_whose(row)}: its rounds are not of one code"
        for row in recorded
        if row.get("before")
    ]
    return rows, changed


def _record(kind: str, name: str, origin: Origin) -> Registered:
    where = {"file": origin.file, "sha256": origin.sha256}
    if origin.distribution:
        where = {"distribution": origin.distribution, "version": origin.version}
    return Registered(kind=kind, name=name, **where)  # type: ignore[typeddict-item]


def _where(row: Any) -> dict[str, str]:
    """Where a row is from, as plain values."""
    fields = [field.name for field in dataclasses.fields(Origin)]
    return {name: row[name] for name in fields if name in row}


def _origin(row: Any) -> Origin:
    return Origin(**_where(row))


def _whose(row: Any) -> str:
    return str(_origin(row)) or "this package"


def _title(row: Registered) -> str:
    return f"{row['kind']} {row['name']!r} of {_whose(row)}"


def _cure(row: Registered) -> str:
    if "distribution" in row:
        return f"install {row['distribution']}"
    if row.get("sha256"):
        return f"give --plugin and the path of {row.get('file')}, or register it first"
    return "register it first, as when the run was begun"
