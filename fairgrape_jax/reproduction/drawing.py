"""A figure of a paper beside ours: a panel for each quantity, a curve for each method."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from fairgrape_jax.reports import drawing
from fairgrape_jax.reports.curves import Curve, lines
from fairgrape_jax.reproduction.against_paper import Line
from fairgrape_jax.reproduction.values import Table


def draw(path: Path, table: Table, lines_by_cell: Mapping[str, Sequence[Line]]) -> None:
    """Write a figure as PNG: ours with intervals, the paper's as curves named so.

    Args:
        path: of the file.
        table: the figure's values.
        lines_by_cell: the lines of each cell that is done, by its name.
    """
    charts = [
        lines(quantity, curves, across_of(table), "points", zero=False, log=False)
        for quantity, curves in curves_of(table, lines_by_cell).items()
    ]
    drawing.png(path, charts)


def across_of(table: Table) -> str:
    """What stands across: the sparsity, or the cells by number.

    Args:
        table: the figure's values.
    """
    if by_sparsity(table):
        return table.across
    names = (f"{number} {cell.name}" for number, cell in enumerate(table.cells, 1))
    return f"{table.across}: {', '.join(names)}"


def by_sparsity(table: Table) -> bool:
    """Whether no two cells of a figure have the same sparsity.

    Args:
        table: the figure's values.
    """
    levels = {cell.sparsity for cell in table.cells}
    return len(levels) == len(table.cells) > 1


def curves_of(table: Table, lines_by_cell: Mapping[str, Sequence[Line]]) -> dict[str, list[Curve]]:
    """The curves of each quantity of which something is measured: of each method ours and theirs.

    Args:
        table: the figure's values.
        lines_by_cell: the lines of each cell that is done, by its name.
    """
    x = {
        cell.name: 100 * cell.sparsity if by_sparsity(table) else float(number)
        for number, cell in enumerate(table.cells, 1)
    }
    panels: dict[str, list[Curve]] = {}
    keys = dict.fromkeys(
        (line.quantity, line.method)
        for each in lines_by_cell.values()
        for line in each
        if not math.isnan(line.mean)
    )
    for quantity, method in keys:
        points = [
            (x[name], line)
            for name, each in lines_by_cell.items()
            for line in each
            if (line.quantity, line.method) == (quantity, method)
        ]
        across = [place for place, _ in points]
        measured = Curve(
            method,
            across,
            [line.mean for _, line in points],
            [line.low for _, line in points],
            [line.high for _, line in points],
        )
        panels.setdefault(quantity, []).append(measured)
        paper = [math.nan if line.paper is None else line.paper for _, line in points]
        if not all(map(math.isnan, paper)):
            panels[quantity].append(Curve(f"{method} (paper)", across, paper))
    return panels
