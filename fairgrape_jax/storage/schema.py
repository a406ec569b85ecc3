"""The form of JSON files: a type says what must be in one; a misfit is one line with the field.

A file of a run or of a dataset may come from another program, another version or another hand:
what is not as expected is named before anything is made of it.
"""

from __future__ import annotations

import dataclasses
import json
import re
import typing
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from fairgrape_jax.errors import UsageError
from fairgrape_jax.storage.files import require_regular_file

# What JSON's braces hold, as json.loads gives it: its values are anything until `convert` looks.
JsonObject: TypeAlias = dict[str, Any]
Json = Any  # dicts, lists, strings, numbers, True, False and None
Form = Any  # a type that msgspec knows: also a union, a TypedDict


class SchemaError(ValueError):
    """A value that is not of its form. The message is one line: FIELD.FIELD: what is wrong."""

    def __init__(self, message: str) -> None:
        """With what no output could write as `\\ud800`."""
        super().__init__(message.encode("utf-8", "backslashreplace").decode())


def read_json(path: Path, form: Form, what: str, cure: str) -> Json:
    """The value in a JSON file, as it stands there.

    Args:
        path: the file.
        form: the type that it must have, see `convert`.
        what: what the file should be, for the message.
        cure: what to do where it is not.

    Raises:
        UsageError: "PATH: not WHAT (REASON); CURE".
    """
    try:
        value = json.loads(require_regular_file(path).read_text(encoding="utf-8"))
        convert(value, form)
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path}: not {what} ({error}); {cure}") from error
    return value


def convert(value: Json, form: Form, name: str = "") -> Any:
    """A JSON value as an instance of a type; nothing is guessed: "1" and True are no numbers.

    Args:
        value: dicts, lists, strings, numbers, True, False and None.
        form: any type that msgspec knows. A TypedDict may hold more keys than it names, for later
            versions; a dataclass may not.
        name: where the value is, for the message.

    Raises:
        SchemaError: with the dotted path of the first field that does not fit.

    Example:
        >>> convert({"a": [1, 2.5]}, dict[str, list[float]])
        {'a': [1.0, 2.5]}
        >>> convert({"a": [1, "2"]}, dict[str, list[float]])
        Traceback (most recent call last):
        fairgrape_jax.storage.schema.SchemaError: a.1: '2' is not of type float
    """
    try:
        made = msgspec.convert(value, form)
    except msgspec.ValidationError as error:
        reason, _, place = str(error).partition(" - at `$")
        keys = _keys(value, form, place.rstrip("`"))
        raise SchemaError(_line(name, keys, value, reason, _form_at(form, keys))) from None
    except UnicodeEncodeError:
        keys = _no_text(value) or []
        raise SchemaError(
            f"{_path(name, keys)}: holds one half of a surrogate pair, which is no text"
        ) from None
    if unknown := _unknown(value, made):
        *outer, key = unknown
        raise SchemaError(f"{_path(name, outer)}: unknown field {key!r}")
    return made


def misfit(value: Json, form: Form, name: str = "") -> str:
    """What is wrong with a JSON value for a type, "" for nothing; as `convert`.

    Args:
        value: as JSON gives it.
        form: any type that msgspec knows.
        name: where the value is, for the message.

    Example:
        >>> misfit({"a": 1}, dict[str, int]), misfit(3, str, "label")
        ('', 'label: 3 is not of type str')
    """
    try:
        convert(value, form, name)
    except SchemaError as error:
        return str(error)
    return ""


def _keys(value: Json, form: Form, place: str) -> list[str | int]:
    """The keys that lead to a place as msgspec writes it: ".a[0][...].b", [...] for some key."""
    keys: list[str | int] = []
    inner = value
    for field, index in re.findall(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]", place):
        if index == "...":
            keys.append(next(key for key in inner if _fails(value, form, [*keys, key])))
        else:
            keys.append(field or int(index))
        inner = inner[keys[-1]]
    return keys


def _no_text(value: Json) -> list[str | int] | None:
    """The keys that lead to the first text that UTF-8 cannot hold; None where there is none."""
    if isinstance(value, str):
        return [] if any("\ud800" <= sign <= "\udfff" for sign in value) else None
    inner: Iterable[tuple[str | int, Json]] = ()
    if isinstance(value, dict):
        inner = value.items()
    elif isinstance(value, list):
        inner = enumerate(value)
    for key, part in inner:
        if _no_text(key) is not None:
            return []
        if (keys := _no_text(part)) is not None:
            return [key, *keys]
    return None


def _fails(value: Json, form: Form, keys: list[str | int]) -> bool:
    """Whether the value still does not fit when the dict of the last key holds that key alone."""
    try:
        msgspec.convert(_alone(value, keys), form)
    except (msgspec.ValidationError, UnicodeEncodeError):
        return True
    return False


def _alone(value: Json, keys: list[str | int]) -> Json:
    first, *rest = keys
    if not rest:
        return {first: value[first]}
    copy = value.copy()
    copy[first] = _alone(value[first], rest)
    return copy


def _unknown(value: Json, made: object) -> list[str]:
    """The keys that lead to a field that a dataclass does not have; [] for none."""
    if dataclasses.is_dataclass(made) and isinstance(value, dict):
        fields = {field.name for field in dataclasses.fields(made)}
        if more := value.keys() - fields:
            return [min(more)]
        parts = [(key, part, getattr(made, key)) for key, part in value.items()]
    elif isinstance(made, dict) and isinstance(value, dict):
        parts = [(key, part, made[key]) for key, part in value.items() if key in made]
    elif isinstance(made, list | tuple) and isinstance(value, list | tuple):
        pairs = zip(value, made, strict=False)
        parts = [(str(i), part, one) for i, (part, one) in enumerate(pairs)]
    else:
        return []
    return next(([key, *inner] for key, part, one in parts if (inner := _unknown(part, one))), [])


def _form_at(form: Form, keys: list[str | int]) -> Form:
    """The type of a field of a dataclass or TypedDict; Any within other types."""
    for key in keys:
        form = typing.get_type_hints(form).get(str(key), Any) if isinstance(form, type) else Any
    return form


def _line(name: str, keys: list[str | int], value: Json, reason: str, form: Form) -> str:
    """The message: the path of the field, what it holds, and what is expected."""
    for key in keys:
        value = value[key]
    shown = repr(value) if len(repr(value)) < 60 else f"{repr(value)[:57]}..."
    if kinds := re.fullmatch(r"Expected `([^`]+)`, got `[^`]+`", reason):
        named = isinstance(form, type) and dataclasses.is_dataclass(form)
        kind = form.__name__ if named else _in_python(kinds[1])
        reason = f"{shown} is not of type {kind}"
    elif "missing required field" in reason:
        reason = f"no field {reason.split('`')[1]!r}"
    elif reason.startswith("Invalid enum value"):
        parts = (form, *typing.get_args(form))
        literals = [part for part in parts if typing.get_origin(part) is typing.Literal]
        words = [repr(word) for literal in literals for word in typing.get_args(literal)]
        reason = f"unknown {shown}: choose from {', '.join(words)}"
    else:
        reason = f"{shown}: {reason[:1].lower()}{reason[1:]}"
    return f"{_path(name, keys)}: {reason}"


def _in_python(kinds: str) -> str:
    """Kinds of JSON as the types of Python."""
    names = {"object": "dict", "array": "list", "null": "None"}
    return " | ".join(names.get(kind, kind) for kind in kinds.split(" | "))


def _path(name: str, keys: Sequence[str | int]) -> str:
    return ".".join([*([name] if name else []), *map(str, keys)]) or "the whole"
