"""A cell of a paper's table beside a finished run: paper, ours, interval, verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fairgrape_jax.errors import UsageError
from fairgrape_jax.reports import results
from fairgrape_jax.reports.document import text_table
from fairgrape_jax.reproduction.quantities import UNKNOWN, measure
from fairgrape_jax.reproduction.values import Cell, Row


class Line(NamedTuple):
    """One number of the paper beside ours.

    Attributes:
        method: the paper's name.
        quantity: "all", a group, or "rho(D)".
        paper: as printed; None where nothing is.
        mean: ours, over seeds.
        low: the lower end of its 95 % interval.
        high: the upper end.
    """

    method: str
    quantity: str
    paper: float | None
    mean: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """Whether the paper's number lies in our interval, or what is missing to tell."""
        if math.isnan(self.mean):
            return "not measured here"
        if self.paper is None:
            return "no number in the paper"
        if self.low <= self.paper <= self.high:
            return "agrees"
        words = f"{self.mean - self.paper:+.2f}"
        return f"{words}, no interval" if math.isnan(self.low) else words


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
    places = places_of(cell.groups, models[0].record["groups"], run) if cell.groups else []
    lines = []
    for row in cell.rows:
        of_method = [model for model in models if model.record["method"] == row.method]
        if not of_method:
            lines += unmeasured(row, cell.groups) if not row.method else []
            continue
        last = max(model.record["round"] for model in of_method)
        networks = tuple(model for model in of_method if model.record["round"] == last)
        lines += _lines(row, cell.groups, places, results.cell(networks, 1000))
        measured = measure(list(row.values), networks)
        lines += [Line(row.paper, name, row.values[name], *measured[name]) for name in row.values]
    return lines


def unmeasured(row: Row, groups: Sequence[str]) -> list[Line]:
    """The printed numbers of a method that this package does not have.

    Args:
        row: of a cell.
        groups: of the cell.
    """
    printed: dict[str, float | None] = {"all": row.accuracy}
    printed |= dict(zip(groups, row.groups, strict=False))
    printed |= {"rho(D)": row.rho_change, **row.values}
    return [
        Line(row.paper, name, value, *UNKNOWN)
        for name, value in printed.items()
        if value is not None
    ]


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
            shown(line.paper),
            shown(line.mean),
            "-" if math.isnan(line.low) else f"[{line.low:.2f}, {line.high:.2f}]",
            line.verdict,
        ]
        for line in lines
    ]
    header = ["method", "of", "paper", "ours", "95 % interval", "verdict"]
    return text_table(header, rows, numbers="left")


def shown(value: float | None) -> str:
    """A number to two decimals, "-" where there is none.

    Args:
        value: of a paper or of ours.

    Example:
        >>> shown(None), shown(float("nan")), shown(0.5)
        ('-', '-', '0.50')
    """
    return "-" if value is None or math.isnan(value) else f"{value:.2f}"


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
    def line(quantity: str, paper: float | None, statistic: str, place: int = 0) -> Line:
        ends = [
            float(np.asarray(part[statistic])[place])
            for part in (measured.mean, measured.low, measured.high)
        ]
        return Line(row.paper, quantity, paper, *ends)

    lines = [line("all", row.accuracy, "accuracy")]
    printed = row.groups or (None,) * len(groups)
    for name, paper, place in zip(groups, printed, places, strict=True):
        lines.append(line(name, paper, "group_accuracy", place))
    if row.rho_change is not None:
        lines.append(line("rho(D)", row.rho_change, "rho_change"))
    return lines
