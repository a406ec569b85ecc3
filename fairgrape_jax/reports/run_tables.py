"""Tables of runs: every method by weights left, every seed, metrics from outside."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fairgrape_jax.metrics import METRICS
from fairgrape_jax.reports.blocks import Block, Folded, Table, Text
from fairgrape_jax.reports.metric_tables import intervals
from fairgrape_jax.reports.precision import decimals, number, with_interval
from fairgrape_jax.reports.results import Cell, Model
from fairgrape_jax.reports.summary import extra_loss


def overview(cells: Sequence[Cell], groups: Sequence[str]) -> list[Block]:
    """A row per method and density: accuracy overall, of the worst group, and how unequal.

    Args:
        cells: a method after a round, each.
        groups: their names.

    Returns:
        The table, and the accuracy of every group, both folded.
    """
    names = {"accuracy": "all", "worst_group": "worst group"}
    spreads = {"excess_gap": "excess gap", "rho_change": "rho(Delta)"}
    columns = [[intervals(cell, row)[0] for cell in cells] for row in names]
    changes = [
        [extra_loss(cell) for cell in cells],
        *[[intervals(cell, row)[0] for cell in cells] for row in spreads],
    ]
    digits = [decimals(column) for column in [*columns, *changes]]
    rows, of_groups = [], []
    for place, cell in enumerate(cells):
        left = [_row_name(cell)]
        row = [*left]
        for number_of, column in enumerate([*columns, *changes]):
            compared = number_of >= len(columns)
            if compared and cell.dense_itself:
                row.append("")
            else:
                row.append(with_interval(column[place], digits[number_of]))
        rows.append(row)
        each = intervals(cell, "group_accuracy")
        of_groups.append([*left, *[with_interval(one, decimals(each)) for one in each]])
    header = ["method, weights left"]
    table = Table([*header, *names.values(), "extra loss", *spreads.values()], rows)
    details = Table([*header, *groups], of_groups)
    return [
        Folded("Methods by weights left", [table]),
        Folded("Accuracy of every group by weights left", [details]),
    ]


def _row_name(cell: Cell) -> str:
    """A method and what it left."""
    return cell.name if cell.dense_itself else f"{cell.name}, {cell.weights_left}"


def every_seed(cells: Sequence[Cell], groups: Sequence[str]) -> Table:
    """The same without averaging: single runs jump at high sparsity, so all are shown.

    Args:
        cells: a method after a round, each.
        groups: their names.

    Returns:
        The table.
    """
    header = ["method, weights left, seed", "all", *groups, "rho(A)", "rho(Delta)"]
    rows = []
    for cell in cells:
        for model in cell.models:
            test = model.record["test"]
            numbers = [test["accuracy"], *test["group_accuracy"], test["rho_accuracy"]]
            numbers.append(test["rho_change"])
            rows.append([f"{_row_name(cell)}, {model.seed}", *[number(x, 2) for x in numbers]])
    return Table(header, rows)


def from_outside(
    models: Sequence[Model], cells: Sequence[Cell], groups: Sequence[str]
) -> list[tuple[str, list[Block]]]:
    """A section of the metrics that are not of this package, as the run has recorded them.

    Nobody's code is run for a report: there are no intervals, but the range of the seeds.

    Args:
        models: every evaluated network.
        cells: each method after its last round.
        groups: their names.

    Returns:
        A title with its blocks; nothing where there are no such metrics.
    """
    networks = {"dense": [model for model in models if model.record["method"] == "dense"]}
    networks |= {cell.name: list(cell.models) for cell in cells}
    tests = {name: [model.record["test"] for model in each] for name, each in networks.items()}
    known = dict.fromkeys(name for each in tests.values() for test in each for name in test)
    rows = []
    for metric in (name for name in known if name not in METRICS.built_in):
        places = enumerate(groups) if metric.startswith("group_") else [(None, "")]
        for place, group in places:
            row = [f"{metric} {group}".rstrip()]
            for each in tests.values():
                values = [test.get(metric) for test in each]
                values = [v if place is None or v is None else v[place] for v in values]
                row.append(value_and_range(values))
            rows.append(row)
    if not rows:
        return []
    text = (
        "Metrics that were registered from outside, as the run has recorded them: the mean over "
        "seeds, in brackets the lowest and the highest."
    )
    table = Table(["", *tests], rows)
    return [("Metrics from outside, after the last round", [Text(text), table])]


def value_and_range(values: Sequence[float | None]) -> str:
    """The mean of numbers with the lowest and the highest of several.

    Args:
        values: one for each seed, None where it is not defined.

    Returns:
        A text; n/a where one is missing.

    Example:
        >>> value_and_range([1.0, 2.0]), value_and_range([1.0]), value_and_range([1.0, None])
        ('1.50 [1.00, 2.00]', '1.00', 'n/a')
    """
    known = [v for v in values if v is not None]
    if len(known) < len(values) or not known:
        return "n/a"
    mean = f"{np.mean(known):,.2f}"
    return f"{mean} [{min(known):,.2f}, {max(known):,.2f}]" if len(known) > 1 else mean
