"""Unions of an experiment as one word: `last:3`, `kmeans:7`, an epoch's number, a file's name.

A command line has words, and so had config.json before its format 3; `as_word` gives them back.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

from fairgrape_jax.config.experiment import Checkpoints, Epoch, KeepLast, Point
from fairgrape_jax.config.scoring import Clusters, Embedding
from fairgrape_jax.config.variants import Allocation, Variants
from fairgrape_jax.selection import AllocationName
from fairgrape_jax.selection.allocation import ALLOCATIONS
from fairgrape_jax.selection.patterns import NofM, Tiles, parse_n_of_m, parse_tiles
from fairgrape_jax.storage import schema

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


class WordForm(NamedTuple):
    """How a union is written as a word.

    Attributes:
        words: the words there are, as a help shows them.
        parse: the value of a word; ValueError for what is none.
    """

    words: str
    parse: Callable[[str], object]


def parse_point(word: str) -> Point:
    """A point of the dense training.

    Args:
        word: dense, initial, or the number of an epoch.

    Returns:
        The point.

    Raises:
        ValueError: another word.

    Example:
        >>> parse_point("initial"), parse_point("3")
        ('initial', Epoch(number=3))
    """
    if word == "dense":
        return "dense"
    if word == "initial":
        return "initial"
    if not word.isdecimal():
        raise ValueError(f"{word!r} is neither dense nor initial nor the number of an epoch")
    return Epoch(int(word))


def parse_checkpoints(word: str) -> Checkpoints:
    """Which rounds keep their checkpoints.

    Args:
        word: all, last, last:N or best.

    Returns:
        Which are kept.

    Raises:
        ValueError: another word.

    Example:
        >>> parse_checkpoints("best"), parse_checkpoints("last"), parse_checkpoints("last:3")
        ('best', KeepLast(count=1), KeepLast(count=3))
    """
    if word == "all":
        return "all"
    if word == "best":
        return "best"
    name, colon, count = word.partition(":")
    if name != "last" or (colon and not count.isdecimal()):
        raise ValueError(f"{word!r} is not all, last, last:N or best")
    return KeepLast(int(count)) if colon else KeepLast()


def parse_groups(word: str) -> Clusters | None:
    """What is scored in place of the groups.

    Args:
        word: none, kmeans:N or kmeans:N:MODEL:FILE.

    Returns:
        The clusters; None for the groups themselves.

    Raises:
        ValueError: another word.

    Example:
        >>> parse_groups("none"), parse_groups("kmeans:7").count
        (None, 7)
        >>> parse_groups("kmeans:7:resnet34:weights.safetensors").embedding
        Embedding(model='resnet34', weights='weights.safetensors')
    """
    if word in ("", "none"):
        return None
    name, _, rest = word.partition(":")
    count, *network = rest.split(":", 2)
    if name != "kmeans" or not count.isdecimal() or len(network) == 1:
        raise ValueError(f"{word!r} is not none, kmeans:N or kmeans:N:MODEL:FILE")
    return Clusters(int(count), Embedding(*network) if network else None)


def parse_allocation(word: str) -> Allocation:
    """How many weights each layer keeps: a name, a file of densities, or their JSON itself.

    Args:
        word: a row of ALLOCATIONS, the name of a .json or .csv file, or a JSON object.

    Returns:
        The allocation.

    Raises:
        ValueError: another word, or a file that is no table of densities.

    Example:
        >>> parse_allocation("erk"), parse_allocation('{"fc1": 0.1, "fc2": 1}')
        ('erk', {'fc1': 0.1, 'fc2': 1.0})
    """
    if word in ALLOCATIONS:
        return cast(AllocationName, word)
    if word.lstrip().startswith("{"):
        return densities_from_json(word)
    path = Path(word)
    readers = {".json": densities_from_json, ".csv": densities_from_csv}
    if path.suffix.lower() not in readers:
        raise ValueError(
            f"{word!r} is none of {', '.join(ALLOCATIONS)}, nor a .json or .csv file of densities"
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
        return readers[path.suffix.lower()](text)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ValueError(f"{word}: is no table of densities ({reason})") from error


def parse_variants(word: str) -> Variants:
    """Methods under names of their own.

    Args:
        word: none, or a JSON object.

    Returns:
        The variants by name; None for none.

    Raises:
        ValueError: another word.

    Example:
        >>> parse_variants('{"one-rate": {"method": "fairgrape", "allocation": "uniform"}}')
        {'one-rate': Variant(method='fairgrape', allocation='uniform', remedy=None)}
    """
    if word in ("", "none"):
        return None
    try:
        values = json.loads(word)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{word!r} is neither none nor a JSON object ({error})") from error
    return cast(Variants, schema.convert(values, Variants))


def densities_from_json(text: str) -> dict[str, float]:
    """Densities by layer, from a JSON object.

    Args:
        text: of the file.

    Returns:
        The densities.

    Raises:
        ValueError: if it is none, if a value is no number, or if a layer is there twice.

    Example:
        >>> densities_from_json('{"fc1": 0.1}')
        {'fc1': 0.1}
    """
    try:
        return _densities(json.loads(text, object_pairs_hook=_pairs))
    except RecursionError as error:
        raise ValueError("brackets within brackets within brackets") from error


def densities_from_csv(text: str) -> dict[str, float]:
    r"""Densities by layer, from a CSV table with the columns layer and density; it may have others.

    Args:
        text: of the file.

    Returns:
        The densities.

    Raises:
        ValueError: without these columns, or as for `densities_from_json`.

    Example:
        >>> densities_from_csv("layer,density\nfc1,0.1\n")
        {'fc1': 0.1}
    """
    rows = csv.DictReader(io.StringIO(text), skipinitialspace=True)
    if missing := {"layer", "density"} - {name.strip() for name in rows.fieldnames or ()}:
        raise ValueError(f"no column {min(missing)!r}; give the columns layer and density")
    rows.fieldnames = [name.strip() for name in rows.fieldnames or ()]
    pairs = []
    for row in rows:
        layer, density = (row["layer"] or "").strip(), row["density"] or ""
        try:
            pairs.append((layer, float(density)))
        except ValueError:
            raise ValueError(f"density {density!r} of layer {layer!r} is no number") from None
    return _densities(_pairs(pairs))


def _pairs(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    table: dict[str, object] = {}
    for key, value in pairs:
        if key in table:
            raise ValueError(f"layer {key!r} is there twice")
        table[key] = value
    return table


def _densities(table: object) -> dict[str, float]:
    return cast(dict[str, float], schema.convert(table, dict[str, float]))


# By type of the field. A new union is a row.
WORD_FORMS: dict[object, WordForm] = {
    Point: WordForm("dense|initial|EPOCH", parse_point),
    Checkpoints: WordForm("all|last|last:N|best", parse_checkpoints),
    Allocation: WordForm("|".join((*ALLOCATIONS, "FILE")), parse_allocation),
    Clusters | None: WordForm("none|kmeans:N|kmeans:N:MODEL:FILE", parse_groups),
    NofM | None: WordForm("none|N:M|N:M@OFFSET", parse_n_of_m),
    Tiles | None: WordForm("none|ROWSxCOLUMNS", parse_tiles),
    Variants: WordForm("none|JSON", parse_variants),
}


def as_word(value: object) -> str:
    """A value of a union as the word that `parse` takes.

    Args:
        value: of a field whose type is in WORD_FORMS.

    Returns:
        The word.

    Example:
        >>> as_word(None), as_word(Clusters(7)), as_word(KeepLast(3)), as_word({"fc1": 0.1})
        ('none', 'kmeans:7', 'last:3', '{"fc1": 0.1}')
    """
    if isinstance(value, dict):
        return json.dumps(value, default=_changed)
    return "none" if value is None else str(value)


def _changed(value: DataclassInstance) -> dict[str, object]:
    """The fields of a dataclass that have not their default."""
    fields = [(one, getattr(value, one.name)) for one in dataclasses.fields(value)]
    defaults = {
        one.name: one.default_factory()
        if one.default_factory is not dataclasses.MISSING
        else one.default
        for one, _ in fields
    }
    return {one.name: part for one, part in fields if part != defaults[one.name]}
