"""Names that others wrote, made fit to be shown: to a terminal, in Markdown, in a spreadsheet.

What is stored and compared keeps its names as they are; HTML and SVG escape on their own.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

# Controls, line separators, marks that turn the direction of what follows, halves of characters,
# what XML forbids.
_HIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
_FORMULA = re.compile(r"[=+\-@]")  # what a spreadsheet takes for the beginning of one


def visible(text: str) -> str:
    r"""One line in which every character shows: a terminal obeys none of them.

    Args:
        text: anything.

    Returns:
        One line.

    Example:
        >>> visible("a\x1b[31m\nb")
        'a\\x1b[31m\\nb'
    """
    return _HIDDEN.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def lines(text: str) -> str:
    """As `visible`, but for the ends of lines, which stay.

    Args:
        text: anything.

    Returns:
        Its lines.
    """
    return "\n".join(map(visible, text.split("\n")))


def markdown(text: str) -> str:
    """Text without markup of its own: no tag, link, or end of a table's cell.

    Args:
        text: anything; `backticks` in it mark code.

    Returns:
        One line.

    Example:
        >>> markdown("<b>|[x](y)")
        '&lt;b&gt;\\\\|[x]\\\\(y)'
    """
    plain = html.escape(visible(text), quote=False)
    return plain.replace("](", "]\\(").replace("|", "\\|")


def csv_cells(row: Iterable[object]) -> list[object]:
    """A row of a CSV for people: no cell is a formula to a spreadsheet.

    Args:
        row: words and numbers.

    Returns:
        The same; numbers stay numbers.

    Example:
        >>> csv_cells(["=1+1", "-0.5", "a", 3])
        ["'=1+1", '-0.5', 'a', 3]
    """
    return [_cell(value) if isinstance(value, str) else value for value in row]


def _cell(text: str) -> str:
    shown = visible(text)
    return f"'{shown}" if _FORMULA.match(shown) and not _is_number(shown) else shown


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
