"""Cells of a table as names: which numbers are one, in which order names stand, crossed groups.

Everything is read as text. A decision is made for all columns of one kind together (the ids of all
files; labels and predictions of all files; a group column of all files), never cell by cell. Where
EVERY cell is a number as computers write it, equal numbers are one name (`3`, `3.0` and `3e0`;
`-0.0` and `0`). Where one is not (`007`, `1.0.2`, a word), all are text as they stand. In the same
way `true`, `True` and `TRUE` are one where every cell is a truth value.
"""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from typing import Any

import numpy as np

# Leading zeros make a text: they are part of a name. Longer exponents are no number of a table.
NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]*)?([eE][+-]?[0-9]{1,3})?")
FIXED = 60  # digits to either side of the point up to which a number is written without exponent


@dataclasses.dataclass(frozen=True)
class Categorical:
    """A column of names.

    Attributes:
        codes: (N,) int32, places in `names`; -1 for an empty cell.
        names: the distinct names.
    """

    codes: np.ndarray
    names: tuple[str, ...]

    def take(self, rows: np.ndarray) -> Categorical:
        """The cells of `rows`, in that order."""
        return Categorical(self.codes[rows], self.names)

    def used(self) -> Categorical:
        """The same column with only the names that occur.

        >>> Categorical(np.array([2, -1, 0]), ("a", "b", "c")).used()
        Categorical(codes=array([ 1, -1,  0], dtype=int32), names=('a', 'c'))
        """
        occurring = np.unique(self.codes[self.codes >= 0])
        return Categorical(
            _renumber(occurring, len(self.names))[self.codes],
            tuple(self.names[place] for place in occurring),
        )


@dataclasses.dataclass(frozen=True)
class Groups:
    """Which group each sample is in, where groups may be crossed from several columns.

    Attributes:
        codes: (N,) int32, places in `values`; -1 for a sample of no group.
        values: of each group its value in every column.
        columns: the names of the columns.
    """

    codes: np.ndarray
    values: tuple[tuple[str, ...], ...]
    columns: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """A name to show for each group, no two alike."""
        return tuple(map(group_name, self.values))

    def take(self, rows: np.ndarray) -> Groups:
        """The samples of `rows`, in that order."""
        return Groups(self.codes[rows], self.values, self.columns)

    def used(self) -> Groups:
        """The same with only the groups that have a sample."""
        kept = np.unique(self.codes[self.codes >= 0])
        codes = _renumber(kept, len(self.values))[self.codes]
        return Groups(codes, tuple(self.values[place] for place in kept), self.columns)


def _renumber(kept: np.ndarray, size: int) -> np.ndarray:
    """A table from old codes to new ones, -1 (its last place too) for what is not kept."""
    table = np.full(size + 1, -1, np.int32)
    table[kept] = np.arange(len(kept))
    return table


def group_name(values: Sequence[str]) -> str:
    """The values of a group as one name; different values never give the same one.

    >>> group_name(["a"]), group_name(["a", "b"]), group_name(["a / b", "c"])
    ('a', 'a / b', '"a / b" / c')
    """
    if len(values) == 1:
        return values[0]
    parts = [
        '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"' if re.search('[/"]', value)
        else value
        for value in values
    ]  # fmt: skip
    return " / ".join(parts)


def cross(columns: Sequence[Categorical], names: Sequence[str]) -> Groups:
    """Groups from one or several columns: every combination that occurs, in order of the columns.

    Args:
        columns: of equal length; a sample with an empty cell in any of them is in no group.
        names: what the columns are called.

    >>> a = Categorical(np.array([0, 0, 1, -1]), ("x", "y"))
    >>> cross([a, Categorical(np.array([0, 1, 0, 0]), ("p", "q"))], ["a", "b"]).values
    (('x', 'p'), ('x', 'q'), ('y', 'p'))
    """
    whole = np.all([column.codes >= 0 for column in columns], axis=0)
    key = np.zeros(int(whole.sum()), np.int64)
    for column in columns:
        key = np.unique(key, return_inverse=True)[1] * len(column.names) + column.codes[whole]
    _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
    codes = np.full(len(whole), -1, np.int32)
    codes[whole] = inverse
    rows = np.flatnonzero(whole)[first]
    values = tuple(tuple(column.names[column.codes[row]] for column in columns) for row in rows)
    return Groups(codes, values, tuple(names))


def unify(columns: Sequence[Categorical]) -> list[Categorical]:
    """Columns of one kind over one list of names: equal names have equal codes, in natural order.

    >>> [c.names for c in unify([Categorical(np.array([0]), ("1.0",)),
    ...                          Categorical(np.array([0, 1]), ("1", "-0.0"))])]
    [('0', '1'), ('0', '1')]
    """
    occurring = [column.used() for column in columns]
    words = sorted({word for column in occurring for word in column.names})
    rename = renaming(words)
    new = {word: rename(word) for word in words}
    names = in_order(new.values())
    place = {name: code for code, name in enumerate(names)}
    return [
        Categorical(
            np.array([*[place[new[word]] for word in column.names], -1], np.int32)[column.codes],
            names,
        )
        for column in occurring
    ]


def renaming(words: Sequence[str]) -> Callable[[str], str]:
    """What makes one name of words that mean the same, from all words of the columns of one kind.

    >>> [renaming(words)(words[0]) for words in (["1.0", "2"], ["1.0", "02"], ["TRUE", "false"])]
    ['1', '1.0', 'True']
    """
    if words and all(NUMBER.fullmatch(word) for word in words):
        return number_name
    if words and all(word.lower() in ("true", "false") for word in words):
        return str.capitalize
    return str


def number_name(word: str) -> str:
    """A number written in one way, exactly.

    >>> [number_name(word) for word in ("3.0", "-0.0", "1e3", "0.10", "9007199254740993", "1e300")]
    ['3', '0', '1000', '0.1', '9007199254740993', '1E+300']
    """
    sign, digits, exponent = Decimal(word).as_tuple()
    text = "".join(map(str, digits)).lstrip("0")
    if not text:
        return "0"
    short = text.rstrip("0")
    exponent = int(exponent) + len(text) - len(short)
    number = Decimal((sign, tuple(map(int, short)), exponent))
    return f"{number:f}" if abs(number.adjusted()) <= FIXED else str(number)


def in_order(words: Iterable[str]) -> tuple[str, ...]:
    """Distinct words: numbers by value where all are numbers; else text, digits in it by value.

    >>> in_order(["10", "9", "9", "-1.5"]), in_order(["b", "nan", "10", "9", "b10", "b9"])
    (('-1.5', '9', '10'), ('9', '10', 'b', 'b9', 'b10', 'nan'))
    """
    distinct = sorted(set(words))
    if all(NUMBER.fullmatch(word) for word in distinct):
        return tuple(sorted(distinct, key=Decimal))
    return tuple(sorted(distinct, key=_natural))


def _natural(word: str) -> list[Any]:
    """Text and the numbers in it by turns; a number by its length and digits."""
    parts = re.split("([0-9]+)", word)
    key: list[Any] = list(parts)
    for place in range(1, len(parts), 2):
        digits = parts[place].lstrip("0")
        key[place] = (len(digits), digits)
    return key


def clean(word: str) -> str:
    r"""A cell without blanks around it, with one form of composed letters and of ends of lines.

    >>> clean(" cafe\u0301\r\n1 ")
    'café\n1'
    """
    return unicodedata.normalize("NFC", re.sub("[\r\n]+", "\n", word.strip()))


def examples(values: Sequence[Any], most: int = 3) -> str:
    """The first few values, for a message.

    >>> examples(["a", "b", "c", "d"])
    'a, b, c, ...'
    """
    shown = ", ".join(str(value) for value in values[:most])
    return shown + (", ..." if len(values) > most else "")
