"""The mark `whole`: whole runs, networks and pages, which `make test-whole` makes.

`@pytest.mark.whole` is of a test, `whole(but=N)` of a table of which N rows, spread evenly, stay in
the fast suite: a new row of a table needs no thought, and one of every kind is looked at at once.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable
from typing import Any

NAME = "whole"


def keep_some(items: Iterable[Any]) -> None:
    """Take the mark from the rows of each table that stay in the fast suite.

    Args:
        items: of pytest, in the order of their tables.
    """
    tables = collections.defaultdict(list)
    numbers = {}
    for item in items:
        for mark in item.own_markers:
            if mark.name == NAME and mark.kwargs:
                table = item.nodeid.partition("[")[0]
                tables[table].append(item)
                numbers[table] = mark.kwargs["but"]
    for table, rows in tables.items():
        for place in stay(len(rows), numbers[table]):
            row = rows[place]
            row.own_markers = [mark for mark in row.own_markers if mark.name != NAME]


def stay(rows: int, number: int) -> list[int]:
    """The places of `number` of so many rows, spread evenly from the first on.

    Example:
        >>> stay(10, 4), stay(2, 4), stay(5, 1)
        ([0, 2, 5, 7], [0, 1], [0])
    """
    return sorted({i * rows // min(number, rows) for i in range(min(number, rows))})
