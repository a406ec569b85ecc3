"""The parts of a report: a title, sections, and the blocks that they are made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import ClassVar

from fairgrape_jax.reports.drawing import Chart


@dataclasses.dataclass(frozen=True)
class Text:
    """A paragraph; `backticks` mark code."""

    text: str
    kind: ClassVar[str] = "text"


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The answer in a sentence, and how its intervals are to be read."""

    text: str
    note: str = ""
    kind: ClassVar[str] = "verdict"


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
        picture: the name of a PNG file of the panels, for Markdown; empty for none.
        legend: the series of all panels, where one legend above them is for all; `Chart.series`
            has the dense level as one more.
    """

    title: str
    charts: Sequence[Chart]
    note: str = ""
    picture: str = ""
    legend: Sequence[str] = ()
    kind: ClassVar[str] = "figure"


@dataclasses.dataclass(frozen=True)
class Pictures:
    """Small pictures, each a caption and a data: address; in HTML only."""

    items: Sequence[tuple[str, str]]
    kind: ClassVar[str] = "pictures"


@dataclasses.dataclass(frozen=True)
class Definitions:
    """Words and what they mean; where they stand in the document, they are links to here."""

    items: Sequence[tuple[str, str]]
    kind: ClassVar[str] = "definitions"


@dataclasses.dataclass(frozen=True)
class Folded:
    """Blocks that a page shows when their title is clicked on, and paper always."""

    title: str
    blocks: Sequence[Block]
    kind: ClassVar[str] = "folded"


Block = Text | Verdict | Bullets | Table | Figure | Pictures | Definitions | Folded


@dataclasses.dataclass(frozen=True)
class Document:
    """A title and sections, each a heading and its blocks."""

    title: str
    sections: Sequence[tuple[str, Sequence[Block]]]

    @property
    def blocks(self) -> Iterator[Block]:
        """All blocks, those that are folded after what they are folded into."""
        for _, blocks in self.sections:
            yield from unfolded(blocks)


def unfolded(blocks: Sequence[Block]) -> Iterator[Block]:
    """Blocks, those that are folded after what they are folded into.

    Args:
        blocks: of a section.
    """
    for block in blocks:
        yield block
        if isinstance(block, Folded):
            yield from unfolded(block.blocks)
