"""Columns of names as codes, spelt alike in all files, and groups crossed from several columns.

`spelling` says which words are one name. It is asked once for all columns of one kind: the ids of
all files, labels and predictions of all files, a group column of all files.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

import numpy as np

from fairgrape_jax.spelling import in_order, renaming


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
        """Some of the cells.

        Args:
            rows: (M,) places.

        Returns:
            These cells, in that order.
        """
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
        """Some of the samples.

        Args:
            rows: (M,) places.

        Returns:
            These samples, in that order.
        """
        return Groups(self.codes[rows], self.values, self.columns)

    def used(self) -> Groups:
        """The same with only the groups that have a sample."""
        occurring = np.unique(self.codes[self.codes >= 0])
        codes = _renumber(occurring, len(self.values))[self.codes]
        return Groups(codes, tuple(self.values[place] for place in occurring), self.columns)


def _renumber(occurring: np.ndarray, size: int) -> np.ndarray:
    """A table from old codes to new ones, -1 (its last place too) for what is not occurring."""
    table = np.full(size + 1, -1, np.int32)
    table[occurring] = np.arange(len(occurring))
    return table


def group_name(values: Sequence[str]) -> str:
    """The values of a group as one name; different values never give the same one.

    Args:
        values: its value in each column.

    Returns:
        The name.

    Example:
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
    """Columns of one kind over one list of names, in natural order.

    Args:
        columns: of one kind.

    Returns:
        The same columns over one list of names: equal names have equal codes.

    Example:
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


def examples(values: Sequence[object], most: int = 3) -> str:
    """The first few values, for a message.

    Args:
        values: of any kind.
        most: how many to write out.

    Returns:
        A text.

    Example:
        >>> examples(["a", "b", "c", "d"])
        'a, b, c, ...'
    """
    first = ", ".join(str(value) for value in values[:most])
    return first + (", ..." if len(values) > most else "")
