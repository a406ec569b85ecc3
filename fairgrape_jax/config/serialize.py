"""An experiment as JSON, and back; config.json of a run."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import NotRequired, TypedDict

from fairgrape_jax import data, storage
from fairgrape_jax.config import upgrade
from fairgrape_jax.config.environment import Flag
from fairgrape_jax.config.experiment import Experiment
from fairgrape_jax.config.registered import Registered, check_available
from fairgrape_jax.errors import UsageError
from fairgrape_jax.storage import schema
from fairgrape_jax.storage.schema import JsonObject

FORMAT = 3  # of a run's directory; 1 had no checksums, 2 no `execution` (see config/upgrade)
READ = (2, FORMAT)


class Input(TypedDict):
    """What a network takes, and how a picture becomes that.

    Attributes:
        shape: of a picture, (H, W, C).
        mean: of each channel, of pictures scaled to [0, 1].
        std: their standard deviation.
    """

    shape: list[int]
    mean: list[float]
    std: list[float]


class Stored(TypedDict):
    """What config.json of a run holds: the experiment, and what it was begun with.

    Attributes:
        format: FORMAT of the version that began the run.
        experiment: as `to_dict` gives it, of this version's format whatever `format` is.
        versions: of packages, by name.
        devices: kind, platform, count, processes.
        flags: what `numeric_flags` gave; runs of before format 3 have none.
        input: of the network; earlier runs have none.
        registered: rows from outside that it uses; none in runs of before there were such.
    """

    format: int
    experiment: JsonObject
    versions: dict[str, str]
    devices: dict[str, str | int]
    flags: NotRequired[dict[str, Flag]]
    input: NotRequired[Input]
    registered: NotRequired[list[Registered]]


class _Begin(TypedDict):
    """What config.json has in every format; what its experiment is differs."""

    experiment: object
    format: NotRequired[int | str | list[object] | None]
    versions: NotRequired[dict[str, str]]


def to_dict(experiment: Experiment) -> JsonObject:
    """An experiment as plain values for JSON.

    Args:
        experiment: the experiment.

    Returns:
        Every field, defaults included; the dataset carries its name.
    """
    values = json.loads(json.dumps(dataclasses.asdict(experiment)))
    return values | {"data": {"name": experiment.data.name} | values["data"]}


def from_dict(values: JsonObject) -> Experiment:
    """The inverse of `to_dict`.

    Args:
        values: as `to_dict` gives them; fields that are left out have their defaults.

    Returns:
        The experiment.

    Raises:
        UsageError: for a dataset, a field or a type that is none, with the path of the field.
    """
    try:
        schema.convert(values, JsonObject)
        options = schema.convert(values.get("data"), JsonObject, "data")
        kind = type(data.source(str(options.pop("name", ""))))
        source = schema.convert(options, kind, "data")
        # The class that the field is declared with knows no option of one dataset alone.
        experiment = schema.convert(values | {"data": {}}, Experiment)
    except schema.SchemaError as error:
        raise UsageError(str(error)) from error
    return dataclasses.replace(experiment, data=source)


def check_types(experiment: Experiment) -> Experiment:
    """Every field of an experiment has the type that it is declared with.

    Args:
        experiment: the experiment.

    Returns:
        The same; a list becomes the tuple, and a whole number the float, that is meant.

    Raises:
        UsageError: for a field that holds another type, or holds what JSON has no form for.
    """
    try:
        values = to_dict(experiment)
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise UsageError(
            f"an experiment holds numbers, words and tuples of them ({error})"
        ) from error
    return from_dict(values)


def read(path: Path) -> Stored:
    """A run directory's config.json; an experiment of an earlier format is upgraded.

    Args:
        path: the file.

    Returns:
        What it holds, the experiment in this version's format.

    Raises:
        UsageError: if it is none, or of a format that this version does not read.
    """
    try:
        stored = json.loads(storage.require_regular_file(path).read_text(encoding="utf-8"))
        schema.convert(stored, _Begin)
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path}: not the config.json of a run ({error})") from error
    form = stored.get("format", 1)
    if form not in READ:
        writer = stored.get("versions", {}).get("fairgrape-jax", "an unknown version")
        raise UsageError(
            f"{path}: a run of format {form}, written by fairgrape-jax {writer}; this version "
            f"reads formats {' and '.join(map(str, READ))}: do the experiment again in a new folder"
        )
    wrong = schema.misfit(stored, Stored)
    if not wrong and {"kind", "platform", "count"} - stored["devices"].keys():
        wrong = "devices: kind, platform and count must be there"
    if wrong:
        raise UsageError(f"{path}: not the config.json of a run ({wrong})")
    if form != FORMAT:
        stored["experiment"] = upgrade.from_format_2(stored["experiment"])
    return stored


def load(path: Path) -> Experiment:
    """The experiment of a run directory's config.json.

    Args:
        path: the file.

    Returns:
        The experiment.

    Raises:
        UsageError: as `read` and `from_dict`; for a dataset or other row from outside that nobody
            has registered here, with the file that did when the run was begun.
    """
    stored = read(path)
    check_available(stored.get("registered", []), path.parent)
    return from_dict(stored["experiment"])


def load_for_report(path: Path) -> Experiment:
    """As `load`, for those who look at what a run has left: nothing from outside is needed.

    Args:
        path: of the config.json.

    Returns:
        The experiment; where nobody has registered its dataset here, `data` has its name and the
        options that every dataset has, and cannot be loaded.

    Raises:
        UsageError: as `read`, and for a field or a type that is none.
    """
    values = read(path)["experiment"]
    try:
        options = schema.convert(values.get("data"), JsonObject, "data")
        name = str(options.get("name", ""))
        if name in data.SOURCES:
            return from_dict(values)
        common = {field.name for field in dataclasses.fields(data.Source)}
        kind = type("Unregistered", (data.Source,), {"name": name})
        source = schema.convert({k: v for k, v in options.items() if k in common}, kind)
        experiment = schema.convert(values | {"data": {}}, Experiment)
    except schema.SchemaError as error:
        raise UsageError(f"{path}: not the config.json of a run ({error})") from error
    return dataclasses.replace(experiment, data=source)


def identity(experiment: Experiment) -> JsonObject:
    """What makes two runs the same.

    Args:
        experiment: the experiment.

    Returns:
        Its fields as plain values, but where and how they are executed.
    """
    values = to_dict(experiment)
    del values["execution"]
    return values
