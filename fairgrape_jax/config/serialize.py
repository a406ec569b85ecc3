"""An experiment as JSON, and back; which of its fields are its identity."""

from __future__ import annotations

import dataclasses
import json
import typing
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from fairgrape_jax import data, storage
from fairgrape_jax.config.experiment import FORMAT, PLACE, Experiment
from fairgrape_jax.data.sources.base import upgraded
from fairgrape_jax.errors import UsageError
from fairgrape_jax.storage import schema


def to_dict(experiment: Experiment) -> dict[str, Any]:
    """Plain values, every default included; the dataset carries its name."""
    values = json.loads(json.dumps(dataclasses.asdict(experiment)))
    return values | {"data": {"name": experiment.data.name} | values["data"]}


def from_dict(values: dict[str, Any]) -> Experiment:
    """The inverse of `to_dict`; UsageError for a name, a field or a type that is not one of it."""
    if wrong := schema.misfit(values, dict[str, Any]) or schema.misfit(values.get("data"), dict):
        raise UsageError(f"experiment: {wrong}")
    kind = type(data.source(str(values["data"].get("name", ""))))
    return _build(Experiment, values | {"data": _build(kind, _options(values, kind))})


def check_types(experiment: Experiment) -> None:
    """UsageError for a field that holds another type than it is declared with."""
    try:
        values = to_dict(experiment)
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise UsageError(
            f"an experiment holds numbers, words and tuples of them ({error})"
        ) from error
    _options(values, type(experiment.data))


def _options(values: dict[str, Any], kind: type) -> dict[str, Any]:
    """The fields of the dataset; all types are looked at."""
    options = {key: value for key, value in values["data"].items() if key != "name"}
    for form, given, name in ((kind, options, "data"), (Experiment, values | {"data": {}}, "")):
        if wrong := schema.misfit(given, form, name):
            raise UsageError(wrong)
    return options


def _build(kind: Any, values: dict[str, Any]) -> Any:
    """A dataclass from a dict: nested dataclasses and tuples are rebuilt by type."""
    hints = typing.get_type_hints(kind)
    built = {}
    for key, value in values.items():
        if dataclasses.is_dataclass(hints[key]) and isinstance(value, dict):
            value = _build(hints[key], value)
        built[key] = tuple(value) if isinstance(value, list) else value
    return kind(**built)


class Stored(TypedDict):
    """What config.json of a run holds: the experiment, and what it was begun with.

    flags: `numeric_flags` then; runs of earlier versions have none.
    """

    experiment: dict[str, Any]
    versions: dict[str, str]
    devices: dict[str, str | int]  # kind, platform, count, processes
    flags: NotRequired[dict[str, bool | int | float | str | None]]


def read(path: Path) -> Stored:
    """A run directory's config.json; UsageError for another FORMAT, or if it is not one."""
    try:
        stored = json.loads(storage.require_regular_file(path).read_text(encoding="utf-8"))
        _, form = stored["experiment"], stored.get("format", 1)
        writer = stored.get("versions", {}).get("fairgrape-jax", "an unknown version")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(f"{path}: not the config.json of a run ({error})") from error
    if form != FORMAT:
        raise UsageError(
            f"{path}: a run of format {form}, written by fairgrape-jax {writer}; this version "
            f"reads format {FORMAT}: do the experiment again in a new folder"
        )
    wrong = schema.misfit(stored, Stored)
    if not wrong and {"kind", "platform", "count"} - stored["devices"].keys():
        wrong = "devices: kind, platform and count must be there"
    if wrong:
        raise UsageError(f"{path}: not the config.json of a run ({wrong})")
    if isinstance(options := stored["experiment"].get("data"), dict):
        stored["experiment"]["data"] = upgraded(options)
    return stored


def load(path: Path) -> Experiment:
    """The experiment of a run directory's config.json. UsageError as of `read` and `from_dict`."""
    return from_dict(_with_allocation(read(path)["experiment"]))


def _with_allocation(values: dict[str, Any]) -> dict[str, Any]:
    """Before there were allocations a field `scoring.scope` was "layer" or "global"."""
    scoring = values.get("scoring")
    if not isinstance(scoring, dict) or "scope" not in scoring:
        return values
    rest = {name: value for name, value in scoring.items() if name != "scope"}
    scope = scoring["scope"]
    return values | {"scoring": rest | {"allocation": "uniform" if scope == "layer" else scope}}


def identity(experiment: Experiment) -> dict[str, Any]:
    """What makes two runs the same: all but where and how they are executed."""
    values = to_dict(experiment)
    for name in PLACE:
        *outer, field = name.split(".")
        part = values
        for key in outer:
            part = part[key]
        part.pop(field, None)  # some are options of one dataset alone
    return values
