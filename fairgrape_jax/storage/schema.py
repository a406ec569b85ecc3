"""Is what a JSON file holds of the form that its reader relies on? Said as types, checked as types.

A file of a run or of a dataset may come from another program, another version or another hand:
what is not as expected is named before anything is made of it.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from pathlib import Path
from typing import Any, Literal, NotRequired, Union

from fairgrape_jax.errors import UsageError
from fairgrape_jax.storage.files import require_regular_file


def read_json(path: Path, form: Any, what: str, cure: str) -> Any:
    """The value in a JSON file. UsageError, "FILE: not WHAT (REASON); CURE", otherwise."""
    try:
        value = json.loads(require_regular_file(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path}: not {what} ({error}); {cure}") from error
    if wrong := misfit(value, form):
        raise UsageError(f"{path}: not {what} ({wrong}); {cure}")
    return value


def misfit(value: Any, form: Any, name: str = "") -> str:
    """What is wrong with a JSON value for a type, "" for nothing.

    Forms: int, float (an int will do), str, bool, None, Literal, unions, list, tuple, dict[str, T],
    TypedDict (with more keys than it names, for later versions) and dataclasses (without).

    >>> misfit({"a": [1, 2.5]}, dict[str, list[float]])
    ''
    >>> misfit({"a": [1, "2"]}, dict[str, list[float]])
    "a.1: '2' is not of type float"
    """
    origin, parts = typing.get_origin(form), typing.get_args(form)
    if form is Any:
        return ""
    if origin in (Union, types.UnionType):
        wrong = [misfit(value, part, name) for part in parts]
        return "" if "" in wrong else wrong[0]
    if isinstance(value, dict) and (typing.is_typeddict(form) or dataclasses.is_dataclass(form)):
        return _fields(value, form, name)
    if isinstance(value, dict) and origin is dict:
        return _first(misfit(part, parts[1], _at(name, key)) for key, part in value.items())
    if isinstance(value, list) and (origin is list or (origin is tuple and parts[1:] == (...,))):
        return _first(misfit(part, parts[0], _at(name, i)) for i, part in enumerate(value))
    if isinstance(value, list) and origin is tuple and len(value) == len(parts):
        each = zip(value, parts, strict=True)
        return _first(misfit(part, kind, _at(name, i)) for i, (part, kind) in enumerate(each))
    if origin is Literal and isinstance(value, str) and value in parts:
        return ""
    # Exactly: True is no int here.
    if type(value) is form or (form is float and type(value) is int):
        return ""
    wanted = getattr(form, "__name__", str(form)) if origin is None else str(form)
    shown = repr(value) if len(repr(value)) < 60 else f"{repr(value)[:57]}..."
    return f"{name or 'the whole'}: {shown} is not of type {wanted.replace('typing.', '')}"


def _fields(value: dict[str, Any], form: Any, name: str) -> str:
    hints = typing.get_type_hints(form)
    if typing.is_typeddict(form):
        extras = typing.get_type_hints(form, include_extras=True).items()
        known = set(hints)
        needed = {key for key, hint in extras if typing.get_origin(hint) is not NotRequired}
    else:
        fields = dataclasses.fields(form)
        known, none = {field.name for field in fields}, dataclasses.MISSING
        needed = {f.name for f in fields if f.default is none and f.default_factory is none}
        if unknown := value.keys() - known:
            return f"{name or form.__name__.lower()}: unknown field {min(unknown)!r}"
    if missing := needed - value.keys():
        return f"{name or form.__name__.lower()}: no field {min(missing)!r}"
    there = [key for key in hints if key in known & value.keys()]
    return _first(misfit(value[key], hints[key], _at(name, key)) for key in there)


def _first(wrong: typing.Iterable[str]) -> str:
    return next(filter(None, wrong), "")


def _at(name: str, key: Any) -> str:
    return f"{name}.{key}" if name else str(key)
