"""A report as a tree of blocks, and its forms: Markdown, one HTML file that needs nothing else."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import ClassVar

import jinja2
import markupsafe

from fairgrape_jax import escape, storage
from fairgrape_jax.reports import drawing
from fairgrape_jax.reports.drawing import Chart

TEMPLATES = Path(__file__).parent / "templates"


@dataclasses.dataclass(frozen=True)
class Text:
    """A paragraph; `backticks` mark code."""

    text: str
    kind: ClassVar[str] = "text"


@dataclasses.dataclass(frozen=True)
class Bullets:
    """A list.

    Attributes:
        items: a line each.
        most: how many are shown in Markdown; HTML folds a longer list, but holds it all.
    """

    items: Sequence[str]
    most: int = 20
    kind: ClassVar[str] = "list"


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of words and numbers; the first column names the row."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    kind: ClassVar[str] = "table"


@dataclasses.dataclass(frozen=True)
class Figure:
    """Charts that belong together.

    Attributes:
        title: above them.
        charts: the panels.
        note: below them.
        picture: the name of a PNG file of the panels in a row, for Markdown; empty for none.
    """

    title: str
    charts: Sequence[Chart]
    note: str = ""
    picture: str = ""
    kind: ClassVar[str] = "figure"


@dataclasses.dataclass(frozen=True)
class Pictures:
    """Small pictures, each a caption and a data: address; in HTML only."""

    items: Sequence[tuple[str, str]]
    kind: ClassVar[str] = "pictures"


Block = Text | Bullets | Table | Figure | Pictures


@dataclasses.dataclass(frozen=True)
class Document:
    """A title and sections, each a heading and its blocks."""

    title: str
    sections: Sequence[tuple[str, Sequence[Block]]]


def write(document: Document, out: Path) -> None:
    """Write report.html, report.md and the pictures that it shows.

    Args:
        document: the report.
        out: a folder that is there.
    """
    for _, blocks in document.sections:
        for block in blocks:
            if isinstance(block, Figure) and block.picture:
                drawing.png(out / block.picture, block.charts)
    storage.write_text(out / "report.md", markdown(document))
    storage.write_text(out / "report.html", page(document))


def markdown(document: Document) -> str:
    """The document in Markdown.

    Args:
        document: the report.

    Returns:
        Its text; small pictures are left out.

    Example:
        >>> print(markdown(Document("A", [("", [Text("b")]), ("C", [Bullets(["d"])])])).strip())
        # A
        <BLANKLINE>
        b
        <BLANKLINE>
        ## C
        <BLANKLINE>
        - d
    """
    parts = [f"# {escape.markdown(document.title)}"]
    for heading, blocks in document.sections:
        texts = [text for block in blocks if (text := _markdown(block))]
        parts += [f"## {escape.markdown(heading)}"] * bool(heading and texts) + texts
    return "\n\n".join(parts) + "\n"


def _markdown(block: Block) -> str:
    if isinstance(block, Text):
        return escape.markdown(block.text)
    if isinstance(block, Bullets):
        lines = [f"- {escape.markdown(item)}" for item in block.items[: block.most]]
        left = len(block.items) - len(lines)
        return "\n".join(lines + [f"- and {left:,} more"] * (left > 0))
    if isinstance(block, Table):
        return markdown_table(block.header, block.rows)
    if isinstance(block, Figure) and block.picture:
        return f"![{escape.markdown(block.title)}]({block.picture})"
    return ""


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown.

    Args:
        header: a word for each column.
        rows: a word for each column, each.

    Returns:
        The lines; names in them have no markup.

    Example:
        >>> print(markdown_table(["a", "b"], [["1", "2"]]))
        | a | b |
        | --- | --- |
        | 1 | 2 |
    """
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(escape.markdown, line)) + " |" for line in lines)


def text_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: str = "right"
) -> str:
    """A table for a terminal, the first column to the left.

    Args:
        header: a word for each column.
        rows: a word for each column, each.
        numbers: "right" or "left", where the words of all columns but the first stand.

    Returns:
        The lines.

    Example:
        >>> print(text_table(["", "b"], [["a", "1"], ["aa", "10"]]))
             b
        a    1
        aa  10
    """
    lines = [header, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    rest = str.rjust if numbers == "right" else str.ljust
    pads = [str.ljust, *[rest] * (len(header) - 1)]
    return "\n".join(
        "  ".join(pad(cell, w) for pad, cell, w in zip(pads, line, widths, strict=True)).rstrip()
        for line in lines
    )


def page(document: Document) -> str:
    """The document as one HTML file: no script, no network; light and dark, screen and paper.

    Args:
        document: the report.

    Returns:
        Its text.
    """
    numbers = itertools.count()

    def draw(chart: Chart) -> markupsafe.Markup:
        return markupsafe.Markup(drawing.svg(chart, f"chart {next(numbers)}"))

    style = markupsafe.Markup((TEMPLATES / "report.css").read_text(encoding="utf-8"))
    return _template().render(document=document, style=style, draw=draw) + "\n"


@functools.cache
def _template() -> jinja2.Template:
    filters: dict[str, Callable[[str], object]] = {
        "visible": escape.visible,
        "parts": lambda text: re.split(r"`([^`]+)`", escape.visible(text)),  # code is every second
        "split_interval": lambda text: text.partition(" ["),
    }
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters.update(filters)
    return environment.get_template("report.html.j2")
