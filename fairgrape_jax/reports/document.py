"""The files of a report: Markdown with pictures, and one HTML page that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from fairgrape_jax import escape, storage
from fairgrape_jax.reports import drawing
from fairgrape_jax.reports.blocks import (
    Block,
    Bullets,
    Definitions,
    Document,
    Figure,
    Folded,
    Pictures,
    Table,
    Text,
    Verdict,
)
from fairgrape_jax.reports.page import page

__all__ = [
    "Block",
    "Bullets",
    "Definitions",
    "Document",
    "Figure",
    "Folded",
    "Pictures",
    "Table",
    "Text",
    "Verdict",
    "markdown",
    "markdown_table",
    "page",
    "text_table",
    "write",
]


def write(document: Document, out: Path) -> None:
    """Write report.html, report.md and the pictures that it shows.

    Args:
        document: the report.
        out: a folder that is there.
    """
    for block in document.blocks:
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
    if isinstance(block, Verdict):
        note = [escape.markdown(block.note)] * bool(block.note)
        return "\n\n".join([f"**{escape.markdown(block.text)}**", *note])
    if isinstance(block, Definitions):
        return "\n".join(
            f"- **{escape.markdown(word)}**: {escape.markdown(text)}" for word, text in block.items
        )
    if isinstance(block, Folded):
        texts = [text for part in block.blocks if (text := _markdown(part))]
        return "\n\n".join([f"### {escape.markdown(block.title)}", *texts]) if texts else ""
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
