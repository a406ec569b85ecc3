"""A report as one HTML file: no script, no network; light and dark, screen and paper."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import jinja2
import markupsafe

from fairgrape_jax import escape
from fairgrape_jax.reports import definitions, drawing
from fairgrape_jax.reports.blocks import Block, Definitions, Document, Figure, Table
from fairgrape_jax.reports.curves import DASHES, MARKERS
from fairgrape_jax.reports.drawing import SERIES, Chart

TEMPLATES = Path(__file__).parent / "templates"
# The shapes of matplotlib's markers about the middle of a swatch, for the legends of the page.
SHAPES = {
    "o": "M12 2.5a3.5 3.5 0 1 1 0 7a3.5 3.5 0 1 1 0-7z",
    "s": "M8.8 2.8h6.4v6.4h-6.4z",
    "D": "M12 1.6l4.4 4.4l-4.4 4.4l-4.4-4.4z",
    "^": "M12 2l4 7.4h-8z",
}
STACKED = 5  # columns; of a table of more, an interval stands below its number
# Pixels of a letter in a table, of the space between two columns, of a column at least, and of a
# table that fits on a narrow screen; letters after which a text is broken into lines.
LETTER, PADDING, LEAST, FITS, LONGEST_WORDS = 7.6, 24, 56, 720, 24
STROKES = {"-": "none", "--": "5 2", ":": "1.5 2"}


def page(document: Document) -> str:
    """The document as one HTML file.

    Args:
        document: the report.

    Returns:
        Its text.
    """
    numbers = itertools.count()

    def draw(chart: Chart, *, legend: bool = True) -> markupsafe.Markup:
        return markupsafe.Markup(drawing.svg(chart, f"chart {next(numbers)}", legend=legend))

    words = [
        word
        for block in document.blocks
        if isinstance(block, Definitions)
        for word, _ in block.items
    ]
    style = markupsafe.Markup((TEMPLATES / "report.css").read_text(encoding="utf-8"))
    return (
        _template().render(
            document=document,
            style=style,
            draw=draw,
            parts=_splitter(words),
            swatch=swatch,
            stacked=STACKED,
        )
        + "\n"
    )


def _splitter(words: list[str]) -> Callable[[str], list[tuple[str, str]]]:
    """What cuts a text into words with a kind: text, code, or a word that is explained (once)."""
    pattern = definitions.pattern(words) if words else None

    def parts(text: str) -> list[tuple[str, str]]:
        pieces: list[tuple[str, str]] = []
        linked: set[str] = set()
        for place, piece in enumerate(re.split(r"`([^`]+)`", escape.visible(text))):
            if place % 2 or not pattern:
                pieces.append(("code" if place % 2 else "text", piece))
                continue
            end = 0
            for match in pattern.finditer(piece):
                if (to := definitions.explained_at(match[0])) in linked:
                    continue
                linked.add(to)
                pieces += [("text", piece[end : match.start()]), (to, match[0])]
                end = match.end()
            pieces.append(("text", piece[end:]))
        return [(kind, piece) for kind, piece in pieces if piece]

    return parts


def table_parts(table: Table) -> list[Table]:
    """A table, or as many as fit on a narrow screen, each with the first column.

    Args:
        table: of any width.

    Returns:
        Tables of all its columns.

    Example:
        >>> wide = Table(["", *"abcde"], [["row", *["1" * 24] * 5]])
        >>> [part.header for part in table_parts(wide)]
        [['', 'a', 'b', 'c'], ['', 'd', 'e']]
    """
    lines = [table.header, *table.rows]
    width = [_pixels([line[place] for line in lines]) for place in range(len(lines[0]))]
    parts: list[list[int]] = [[]]
    for place in range(1, len(width)):
        if parts[-1] and sum(width[x] for x in (0, *parts[-1], place)) > FITS:
            parts.append([])
        parts[-1].append(place)
    return [
        Table(
            [table.header[x] for x in (0, *part)],
            [[row[x] for x in (0, *part)] for row in table.rows],
        )
        for part in parts
    ]


def _pixels(cells: Sequence[str]) -> float:
    """How wide a column is at least, where an interval stands below its number."""

    def letters(cell: str) -> float:
        value, _, interval = cell.partition(" [")
        words = min(len(value), LONGEST_WORDS)
        return max(words, 0.85 * len(interval) + 1) if interval else words

    return max(LEAST, LETTER * max(map(letters, cells), default=0) + PADDING)


def swatch(number: int) -> dict[str, str]:
    """How a series of curves looks, for a legend of the page.

    Args:
        number: of the series.

    Returns:
        Its colour, the dashes of its line, and the outline of its points.
    """
    return {
        "color": f"var(--s{number % len(SERIES)})",
        "dashes": STROKES[DASHES[number // len(SERIES) % len(DASHES)]],
        "shape": SHAPES[MARKERS[number % len(MARKERS)]],
    }


def _single_figures_together(blocks: Sequence[Block]) -> list[list[Block]]:
    """Each block alone, but figures of one chart that follow each other: they share rows."""
    batches: list[list[Block]] = []
    for block in blocks:
        if batches and _is_single_figure(block) and _is_single_figure(batches[-1][-1]):
            batches[-1].append(block)
        else:
            batches.append([block])
    return batches


def _is_single_figure(block: Block) -> bool:
    return isinstance(block, Figure) and len(block.charts) == 1


@functools.cache
def _template() -> jinja2.Template:
    filters: dict[str, Callable[..., object]] = {
        "visible": escape.visible,
        "anchor": definitions.anchor,
        "split_interval": lambda text: text.partition(" ["),
        "table_parts": table_parts,
        "batches": _single_figures_together,
    }
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters.update(filters)
    return environment.get_template("report.html.j2")
