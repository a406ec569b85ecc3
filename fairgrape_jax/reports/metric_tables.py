"""Tables of statistics with intervals: every metric of compared models, and rates of classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fairgrape_jax import metrics
from fairgrape_jax.reports.blocks import Block, Table, Text
from fairgrape_jax.reports.charts import Interval
from fairgrape_jax.reports.comparison import Comparison, pool_counts
from fairgrape_jax.reports.precision import decimals, number, with_interval

# The rows of the main table: the statistic, how it is called, whether the dense models have it.
ROWS = (
    ("accuracy", "accuracy", True),
    ("group_accuracy", "accuracy of {}", True),
    ("group_change", "change of {}", False),
    ("rho_accuracy", "rho(A)", True),
    ("rho_change", "rho(Delta)", False),
    ("excess_gap", "excess gap", False),
    ("worst_group", "worst group", True),
    ("gap", "gap", True),
    ("ratio", "lowest / highest (%)", True),
    ("fpr", "FPR", True),
    ("fnr", "FNR", True),
    ("group_fpr", "FPR of {}", True),
    ("group_fnr", "FNR of {}", True),
    ("demographic_parity_difference", "demographic parity difference", True),
    ("equalized_odds_difference", "equalized odds difference", True),
    ("cev_classes", "CEV over classes", False),
    ("sde_classes", "SDE over classes", False),
    ("cev_groups", "CEV over groups", False),
    ("sde_groups", "SDE over groups", False),
)
# The rows that models have which are compared with nothing.
ALONE = tuple(row for row, _, of_dense in ROWS if of_dense)
CLASSES_SHOWN = 30


def statistics(
    comparisons: Sequence[Comparison], groups: Sequence[str], base: str = "dense"
) -> tuple[list[str], list[list[str]]]:
    """The main table: a row per statistic and group, a column per set.

    Args:
        comparisons: a set of models beside its dense ones, each.
        groups: their names.
        base: the title of the column of the dense models.

    Returns:
        Header and rows.
    """
    header = ["", "samples", base, *[one.name for one in comparisons]]
    rows = []
    for row, title, of_dense in ROWS:
        dense = np.atleast_1d(comparisons[0].statistic(row, dense=True))
        for place, (label, size) in enumerate(_labels(comparisons[0], row, title, groups)):
            digits, cells = _cells(comparisons, row, place)
            rows.append([label, size, number(dense[place], digits) if of_dense else "", *cells])
    for what in ("classes", "groups"):
        cells = [str(one.excluded(what)) for one in comparisons]
        if any(cell != "0" for cell in cells):
            rows.append([f"{what} left out of CEV and SDE", "", "", *cells])
    return header, rows


def statistics_alone(
    comparisons: Sequence[Comparison], groups: Sequence[str]
) -> tuple[list[str], list[list[str]]]:
    """The main table of models that are compared with nothing.

    Args:
        comparisons: sets of models.
        groups: their names.

    Returns:
        Header and rows.
    """
    rows = [
        [label, size, *_cells(comparisons, row, place)[1]]
        for row, title, of_dense in ROWS
        if of_dense
        for place, (label, size) in enumerate(_labels(comparisons[0], row, title, groups))
    ]
    return ["", "samples", *[one.name for one in comparisons]], rows


def _cells(comparisons: Sequence[Comparison], row: str, place: int) -> tuple[int, list[str]]:
    """The decimals of a row, and a statistic of each set with its interval."""
    each = [intervals(one, row)[place] for one in comparisons]
    digits = decimals(each)
    sign = row == "group_change"
    return digits, [with_interval(one, digits, sign=sign) for one in each]


def _labels(one: Comparison, row: str, title: str, groups: Sequence[str]) -> list[tuple[str, str]]:
    """The rows of a statistic: how each is called, and of how many samples it is."""
    if row.startswith("group_"):
        return [(title.format(name), f"{n:,}") for name, n in zip(groups, one.sizes, strict=True)]
    return [(title, f"{one.total if row in metrics.OF_ALL_SAMPLES else one.sizes.sum():,}")]


def intervals(one: Comparison, row: str) -> list[Interval]:
    """A statistic with its interval, of each place that it has.

    Args:
        one: a set of models beside its dense ones.
        row: the statistic.

    Returns:
        One of each group, or a single one.
    """
    parts = (one.mean[row], one.low[row], one.high[row])
    return [Interval(*map(float, place)) for place in zip(*parts, strict=True)]


def class_table(
    one: Comparison, classes: Sequence[str], task: int = 0, *, alone: bool = False
) -> list[Block]:
    """Rates of each class before and after, the largest loss of recall first.

    Args:
        one: a set of models beside its dense ones.
        classes: their names.
        task: which one.
        alone: it is compared with nothing; the lowest recall is first.

    Returns:
        A line and a table of CLASSES_SHOWN rows at most.
    """
    counts, dense = pool_counts(one)
    after, before = (metrics.class_metrics(x[task].sum(axis=0)) for x in (counts, dense))
    samples = one.counts[task][0, ..., 1].sum(axis=0)
    rank = after["recall"] if alone else after["recall"] - before["recall"]
    order = np.argsort(np.nan_to_num(rank), kind="stable")
    places = order[:CLASSES_SHOWN]
    parts = (after,) if alone else (before, after)
    rates = {"recall": "recall", "fpr": "FPR", "f1": "F1"}
    header = ["class", "samples"]
    for title in rates.values():
        header += [title] if alone else [f"{title} dense", "after"]
    rows = [
        [
            classes[c],
            f"{samples[c]:,}",
            *[number(part[rate][c], 1) for rate in rates for part in parts],
        ]
        for c in places
    ]
    first = "with the lowest recall" if alone else "that lose most recall"
    note = f"{one.name}: the classes {first} first"
    if len(order) > len(places):
        note += f" ({len(places)} of {len(order)})"
    return [Text(note + "."), Table(header, rows)]
