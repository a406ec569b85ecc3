"""Experiments of earlier formats of config.json, as the dicts that this version reads."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from fairgrape_jax.config.forms import parse_checkpoints, parse_groups, parse_point
from fairgrape_jax.data.sources.base import upgrade_options
from fairgrape_jax.storage.schema import JsonObject


def from_format_2(values: JsonObject) -> JsonObject:
    """An experiment of format 2, where words stood for unions and `execution` lay in many places.

    What does not have the form of that format is left as it is, for the check of types to name.

    Args:
        values: as config.json of a run of format 2 holds them.

    Returns:
        The same as this version writes them.

    Example:
        >>> from_format_2({"devices": 2, "scoring": {"groups": "kmeans:7"}, "start": "3"})
        {'scoring': {'groups': {'count': 7}}, 'start': {'number': 3}, 'execution': {'devices': 2}}
    """
    values = dict(values)
    execution: JsonObject = {}
    for name in ("devices", "lift", "evaluation_batch", "checkpoints", "rollback"):
        if name in values:
            execution[name] = values.pop(name)
    if isinstance(values.get("scoring"), dict):
        scoring = values["scoring"] = dict(values["scoring"])
        for old, new in (("execution", "micro_batches"), ("shard_groups", "shard_groups")):
            if old in scoring:
                execution[new] = scoring.pop(old)
        if "scope" in scoring:  # before there were allocations
            scope = scoring.pop("scope")
            scoring["allocation"] = "uniform" if scope == "layer" else scope
        embedding = scoring.pop("embedding", "")
        if embedding and isinstance(scoring.get("groups"), str):
            scoring["groups"] = f"{scoring['groups']}:{embedding}"
        _parse(scoring, "groups", parse_groups)
    if isinstance(values.get("data"), dict):
        data = values["data"] = upgrade_options(dict(values["data"]))
        reading = {name: data.pop(name) for name in ("workers", "cache") if name in data}
        if reading:
            execution["reading"] = reading
    _parse(execution, "checkpoints", parse_checkpoints)
    _parse(values, "start", parse_point)
    _parse(values, "rewind", parse_point)
    return values | ({"execution": execution} if execution else {})


def _parse(values: JsonObject, name: str, parse: Callable[[str], object]) -> None:
    """Replace a word by what it stands for, as JSON holds it."""
    if isinstance(values.get(name), str):
        with contextlib.suppress(ValueError):
            made = parse(values[name])
            values[name] = made if made is None or isinstance(made, str) else _plain(made)


def _plain(value: object) -> JsonObject:
    """A dataclass without the fields that are None."""
    parts = {k: v for k, v in vars(value).items() if v is not None}
    return {k: _plain(v) if hasattr(v, "__dict__") else v for k, v in parts.items()}
