"""Methods against methods: paired differences from the leader, in a table and drawn."""

from __future__ import annotations

from collections.abc import Sequence

from fairgrape_jax.reports import differences, row_charts
from fairgrape_jax.reports.blocks import Block, Figure, Table, Text
from fairgrape_jax.reports.charts import Interval
from fairgrape_jax.reports.precision import with_interval
from fairgrape_jax.reports.verdict import WORST_GROUP


def difference_blocks(names: Sequence[str], compared: differences.Models, base: int) -> list[Block]:
    """Each set of models minus one of them.

    Args:
        names: of the sets.
        compared: their measures, resampled together.
        base: the place of the one that is subtracted.

    Returns:
        A note, a table, and the differences of the worst group and of accuracy drawn.
    """
    others = [row for row in range(len(names)) if row != base]
    columns = [_differences(compared, others, base, k) for k in range(len(compared.measures))]
    rows = []
    for place, row in enumerate(others):
        cells = [
            with_interval(column[place], sign=True) + " *" * _clear(column[place])
            for column in columns
        ]
        rows.append([names[row], *cells])
    together = " that hold for all pairs together" if len(names) > 2 else ""
    note = (
        f"Each minus {names[base]}, the leader, on the same samples and models, with 95 % "
        f"intervals of the difference{together} (paired bootstrap). * where they leave out zero: "
        "elsewhere these data do not tell the two apart."
    )
    panels = [
        row_charts.forest(
            compared.measures[k], [names[row] for row in others], columns[k], "difference (points)"
        )
        for k in (WORST_GROUP, 0, len(compared.measures) - 1)
    ]
    return [
        Text(note),
        Table([f"minus {names[base]}", *compared.measures], rows),
        Figure(
            f"Difference from {names[base]}",
            panels,
            "Filled: the interval leaves out zero. Of accuracies more is better, of a spread less.",
        ),
    ]


def _differences(
    compared: differences.Models, rows: Sequence[int], base: int, measure: int
) -> list[Interval]:
    low, high = differences.pairs(compared.values[:, measure], compared.draws[:, :, measure])
    values = compared.values[:, measure] - compared.values[base, measure]
    return [
        Interval(float(values[row]), float(low[row, base]), float(high[row, base])) for row in rows
    ]


def _clear(one: Interval) -> bool:
    return one.low < one.high and (one.low > 0 or one.high < 0)
