"""One spelling and one order for the names in a column: numbers as numbers, all else as text."""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import Decimal

WHOLE = re.compile(r"-?(0|[1-9][0-9]*)(\.0+)?")
FRACTION = re.compile(r"-?[0-9]+(\.[0-9]+)?(e[+-][0-9]+)?")


def unified(cells: Iterable[str]) -> dict[str, str]:
    """The one spelling of each name of a column.

    Where every name is a number as programs write one ("1", "1.0", "-0.0", "0.25", "1e-05"), equal
    numbers get one spelling. Elsewhere, and for "01", "1.10" or "nan", a name is the text that it
    is: what might be a code or a version is never taken for a number.

    Args:
        cells: The cells of the column, without blanks around them.

    Returns:
        The spelling for each different cell.

    Example:
        >>> unified(["1.0", "1", "-0.0"])
        {'1.0': '1', '1': '1', '-0.0': '0'}
        >>> unified(["1.0", "01"])
        {'1.0': '1.0', '01': '01'}
    """
    names = list(dict.fromkeys(cells))
    if not all(is_number(name) for name in names):
        return {name: name for name in names}
    return {name: _shortest(name) for name in names}


def is_number(name: str) -> bool:
    """Whether a name is a finite number as programs write one.

    Args:
        name: A cell of a table.

    Returns:
        True for a whole number without leading zeros, also with ".0", and for what Python prints
        for a float.

    Example:
        >>> [is_number(name) for name in ("-7", "7.00", "0.1", "1e+16", "07", "1.10", "+1", "inf")]
        [True, True, True, True, False, False, False, False]
    """
    if WHOLE.fullmatch(name):
        return True
    # repr also as NumPy and C write exponents: of two digits at least, with a sign.
    return bool(FRACTION.fullmatch(name)) and repr(float(name)) == name


def natural(names: Iterable[str]) -> tuple[str, ...]:
    """Different names in the order that a reader expects.

    Args:
        names: Names, of which some may be there several times.

    Returns:
        Each once: as numbers where all of them are, else as text in which runs of digits count as
        numbers.

    Example:
        >>> natural(["10", "9", "-1"]), natural(["age 10", "age 9", "adult"])
        (('-1', '9', '10'), ('adult', 'age 9', 'age 10'))
    """
    distinct = set(names)
    if all(is_number(name) for name in distinct):
        return tuple(sorted(distinct, key=lambda name: (Decimal(name), name)))
    return tuple(sorted(distinct, key=lambda name: (_parts(name), name)))


def _shortest(name: str) -> str:
    if WHOLE.fullmatch(name):
        whole = name.partition(".")[0]
        return "0" if whole == "-0" else whole
    value = float(name)
    return str(int(value)) if value.is_integer() else repr(value)


def _parts(name: str) -> list[tuple[int, int, str]]:
    """What `natural` compares: text and whole numbers in turn, a number before text."""
    parts = []
    for piece in re.findall(r"[0-9]+|[^0-9]+", name):
        digits = piece.lstrip("0")  # the longer, the larger
        parts.append((0, len(digits), digits) if piece[0] in "0123456789" else (1, 0, piece))
    return parts
