"""A cell of a paper's table beside a finished run: paper, ours, interval, verdict."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fairgrape_jax.errors import UsageError
from fairgrape_jax.reports import results
from fairgrape_jax.reports.document import text_table
from fairgrape_jax.reproduction.values import Cell, Row


class Line(NamedTuple):
    """One number of the paper beside ours.

    Attributes:
        method: the paper's name.
        quantity: "all", a group, or "rho(D)".
        paper: as printed.
        mean: ours, over seeds.
        low: the lower end of its 95 % interval.
        high: the upper end.
    """

    method: str
    quantity: str
    paper: float
    mean: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """Whether the paper's number lies in our interval."""
        if self.low <= self.paper <= self.high:
            return "agrees"
        return f"{self.mean - self.paper:+.2f}"


def compare_cell(cell: Cell, run: Path) -> list[Line]:
    """Every printed number of a cell beside that of the last round of a run.

    The interval is of our number: over test samples and seeds, not over what the authors could
    have got with other seeds; the paper gives none.

    Args:
        cell: of a table.
        run: its directory; methods that it lacks are left out.

    Raises:
        UsageError: a run of other groups.
    """
    models = results.read(run)
    places = places_of(cell.groups, models[0].record["groups"], run)
    lines = []
    for row in cell.rows:
        of_method = [model for model in models if model.record["method"] == row.method]
        if not of_method:
            continue
        last = max(model.record["round"] for model in of_method)
        networks = tuple(model for model in of_method if model.record["round"] == last)
        lines += _lines(row, cell.groups, places, results.cell(networks, 1000))
    return lines


def text_of(lines: Sequence[Line]) -> str:
    """The lines as a table for a terminal.

    Args:
        lines: of a cell.

    Example:
        >>> print(text_of([Line("FairGRAPE", "all", 91.9, 92.4, 91.2, 93.6)]))
        method     of   paper  ours   95 % interval   verdict
        FairGRAPE  all  91.90  92.40  [91.20, 93.60]  agrees
    """
    rows = [
        [
            line.method,
            line.quantity,
            f"{line.paper:.2f}",
            f"{line.mean:.2f}",
            f"[{line.low:.2f}, {line.high:.2f}]",
            line.verdict,
        ]
        for line in lines
    ]
    header = ["method", "of", "paper", "ours", "95 % interval", "verdict"]
    return text_table(header, rows, numbers="left")


def places_of(names: Sequence[str], groups: Sequence[str], run: Path) -> list[int]:
    """Where the groups of a cell are among those of a run, whatever their case.

    Args:
        names: of the cell.
        groups: of the run.
        run: for the message.

    Raises:
        UsageError: other groups.

    Example:
        >>> places_of(("Male", "Female"), ["female", "male"], Path("run"))
        [1, 0]
    """
    there = [name.lower() for name in groups]
    if sorted(there) != sorted(name.lower() for name in names):
        raise UsageError(f"{run}: has the groups {', '.join(groups)}, not {', '.join(names)}")
    return [there.index(name.lower()) for name in names]


def _lines(
    row: Row, groups: Sequence[str], places: Sequence[int], measured: results.Cell
) -> list[Line]:
    def line(quantity: str, paper: float, statistic: str, place: int = 0) -> Line:
        ends = [
            float(np.asarray(part[statistic])[place])
            for part in (measured.mean, measured.low, measured.high)
        ]
        return Line(row.paper, quantity, paper, *ends)

    lines = [line("all", row.accuracy, "accuracy")]
    for name, paper, place in zip(groups, row.groups, places, strict=True):
        lines.append(line(name, paper, "group_accuracy", place))
    if row.rho_change is not None:
        lines.append(line("rho(D)", row.rho_change, "rho_change"))
    return lines
