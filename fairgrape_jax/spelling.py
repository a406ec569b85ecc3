"""One spelling and one order for the names in a column: numbers as numbers, all else as text.

A decision is made for a whole column, never cell by cell. Where EVERY cell is a number as computers
write it, equal numbers are one name (`3`, `3.0` and `3e0`; `-0.0` and `0`). Where one is not
(`007`, `1.0.2`, a word), all are text as they stand. In the same way `true`, `True` and `TRUE` are
one where every cell is a truth value.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from typing import Any

# Leading zeros make a text: they are part of a name. Longer exponents are no number of a table.
NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]*)?([eE][+-]?[0-9]{1,3})?")
FIXED = 60  # digits to either side of the point up to which a number is written without exponent


def renaming(words: Sequence[str]) -> Callable[[str], str]:
    """What makes one name of words that mean the same.

    Args:
        words: All words of the columns of one kind.

    Returns:
        A function from a word to its name.

    Example:
        >>> columns = ["1.0", "2"], ["1.0", "02"], ["TRUE", "false"]
        >>> [renaming(words)(words[0]) for words in columns]
        ['1', '1.0', 'True']
    """
    if words and all(NUMBER.fullmatch(word) for word in words):
        return number_name
    if words and all(word.lower() in ("true", "false") for word in words):
        return str.capitalize
    return str


def unify_spelling(words: Iterable[str]) -> dict[str, str]:
    """The one spelling of each word of a column.

    Args:
        words: The cells of all columns of one kind.

    Returns:
        The spelling for each different cell.

    Example:
        >>> unify_spelling(["1.0", "1", "-0.0"]), unify_spelling(["1.0", "01"])
        ({'1.0': '1', '1': '1', '-0.0': '0'}, {'1.0': '1.0', '01': '01'})
    """
    distinct = list(dict.fromkeys(words))
    rename = renaming(distinct)
    return {word: rename(word) for word in distinct}


def number_name(word: str) -> str:
    """A number written in one way, exactly.

    Args:
        word: A number that `NUMBER` matches.

    Returns:
        Without zeros that say nothing, and without an exponent unless it is very long.

    Example:
        >>> [number_name(word) for word in ("3.0", "-0.0", "1e3", "0.10", "9007199254740993")]
        ['3', '0', '1000', '0.1', '9007199254740993']
        >>> number_name("1e300")
        '1E+300'
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
    """Distinct words in the order that a reader expects.

    Args:
        words: Words, of which some may be there several times.

    Returns:
        Each once: numbers by value where all are numbers; else text, digits in it by value.

    Example:
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

    Args:
        word: The cell.

    Returns:
        Its text.

    Example:
        >>> clean(" cafe\u0301\r\n1 ")
        'café\n1'
    """
    return unicodedata.normalize("NFC", re.sub("[\r\n]+", "\n", word.strip()))
