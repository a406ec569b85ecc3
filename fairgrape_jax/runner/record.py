"""The record of a stage as a type, and its checks before a report makes anything of it."""

from __future__ import annotations

from pathlib import Path
from typing import NotRequired, TypedDict

from fairgrape_jax.errors import UsageError
from fairgrape_jax.runner import layout
from fairgrape_jax.runner.predictions import read_predictions
from fairgrape_jax.storage import schema
from fairgrape_jax.training import evaluate

Number = float | None  # null where a rate has no base


class Layer(TypedDict):
    """A layer in a record; it has counts too."""

    layer: str


class Record(TypedDict):
    """metrics.json of a stage: what a report reads of it."""

    seed: int
    method: str
    round: int
    density: float
    groups: list[str]
    tasks: list[tuple[str, list[str]]]
    test: dict[str, Number | list[Number]]
    layers: list[Layer]
    importance: NotRequired[dict[str, list[float]]]


FEWEST, MOST = 1e-12, 1e300  # no network is as sparse, no importance as large

# Metrics that are defined for every network and group.
DEFINED = ("accuracy", "rho_accuracy", "rho_change", "worst_group", "gap")
DEFINED_OF_GROUPS = ("group_accuracy", "group_change")
# What a report reads besides; other metrics may be missing, for those that came later.
READ = ("fpr", "fnr", "group_fpr", "group_fnr")


def describe_misfit(record: layout.Record) -> str:
    """What is wrong with a record, "" for nothing: its types, and that its parts fit each other.

    Args:
        record: of the stage.
    """
    if wrong := schema.misfit(record, Record):
        return wrong
    groups, test = record["groups"], record["test"]
    if not FEWEST <= record["density"] <= 1 or not groups or not record["tasks"]:
        return "no density, no group or no task"
    if missing := {*DEFINED, *DEFINED_OF_GROUPS, *READ} - test.keys():
        return f"test: no metric {min(missing)!r}"
    for name, value in test.items():
        of_groups = name.startswith("group_")
        if of_groups != isinstance(value, list) or (of_groups and len(value) != len(groups)):
            return f"test.{name}: must be {f'{len(groups)} numbers' if of_groups else 'a number'}"
    for name in DEFINED + DEFINED_OF_GROUPS:
        value = test[name]
        if None in (value if isinstance(value, list) else [value]):
            return f"test.{name}: undefined"
    importance = record.get("importance", {})
    if importance and importance.keys() != {row["layer"] for row in record["layers"]}:
        return "importance: not of its layers"
    for layer, scores in importance.items():
        if len(scores) != len(groups) or not all(0 <= score < MOST for score in scores):
            return f"importance.{layer}: must be {len(groups)} numbers from 0"
    return ""


def check_record(run: Path, directory: Path, record: layout.Record) -> None:
    """Check that a record is whole and that of the stage in whose directory it is.

    Args:
        run: the directory of the run.
        directory: that of the stage.
        record: its metrics.json.

    Raises:
        UsageError: if it is not, with what is wrong.
    """
    where, cure = directory / "metrics.json", f"delete {directory} and run again to make it anew"
    if wrong := describe_misfit(record):
        raise UsageError(f"{where}: not the record of a stage ({wrong}); {cure}")
    root = run / f"seed_{record['seed']}"
    stage = layout.round_directory(root / record["method"], record["round"])
    if directory != (root / "dense" if record["method"] == "dense" else stage):
        raise UsageError(f"{where}: is the record of another stage; {cure}")


def read_checked_predictions(directory: Path, record: layout.Record) -> evaluate.Predictions:
    """The predictions of a stage whose record is checked.

    Args:
        directory: of a stage.
        record: of the stage.

    Raises:
        UsageError: if they are not as they were written.
    """
    path = directory / "predictions.csv"
    cure = f"delete {directory} and run again to make it anew"
    if layout.changed_files(directory, path.name):
        raise UsageError(f"{path}: damaged or gone; {cure}")
    tasks = [(name, tuple(classes)) for name, classes in record["tasks"]]
    try:
        return read_predictions(path, tuple(record["groups"]), tasks)
    except (KeyError, ValueError, TypeError) as error:
        raise UsageError(f"{path}: not of the groups and classes of its record; {cure}") from error
