"""Unions of an experiment as one word: `last:3`, `kmeans:7`, an epoch's number.

A command line has words, and so had config.json before its format 3; `str` gives them back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from fairgrape_jax.config.experiment import (
    Checkpoints,
    Clusters,
    Embedding,
    Epoch,
    KeepLast,
    Point,
)


class WordForm(NamedTuple):
    """How a union is written as a word.

    Attributes:
        words: the words there are, as a help shows them.
        parse: the value of a word; ValueError for what is none.
    """

    words: str
    parse: Callable[[str], Any]


def parse_point(word: str) -> Point:
    """A point of the dense training.

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


# By type of the field. A new union is a row.
WORD_FORMS: dict[Any, WordForm] = {
    Point: WordForm("dense|initial|EPOCH", parse_point),
    Checkpoints: WordForm("all|last|last:N|best", parse_checkpoints),
    Clusters | None: WordForm("none|kmeans:N|kmeans:N:MODEL:FILE", parse_groups),
}


def as_word(value: Any) -> str:
    """A value of a union as the word that `parse` takes.

    >>> as_word(None), as_word(Clusters(7)), as_word(KeepLast(3))
    ('none', 'kmeans:7', 'last:3')
    """
    return "none" if value is None else str(value)
