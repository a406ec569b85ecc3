"""What the reports of a run and of an audit share: tables, figures and lists of comparisons."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from fairgrape_jax import metrics
from fairgrape_jax.reports import charts
from fairgrape_jax.reports.comparison import Comparison, pooled
from fairgrape_jax.reports.document import Block, Figure, Table, Text

# The rows of the main table: the statistic, how it is called, whether the dense models have it.
ROWS = (
    ("accuracy", "accuracy", True),
    ("group_accuracy", "accuracy of {}", True),
    ("group_change", "change of {}", False),
    ("rho_accuracy", "rho(A)", True),
    ("rho_change", "rho(Delta)", False),
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
MEANING = (
    "Numbers are percentages and percentage points, in brackets the 95 % bootstrap interval over "
    "samples (within groups, the same draw for compressed and dense) and, where there are several "
    "models, over them. Change: accuracy minus the dense model's. rho: standard deviation over "
    "groups (divisor G - 1) of accuracy (A) and of change (Delta). FPR, FNR: of the positive class "
    "if there are two classes, else the mean over classes. CEV and SDE: spread and asymmetry of "
    "the relative changes of FPR and FNR, of the models' mean rates. Spreads cannot be negative, "
    "and resampling adds to them: their intervals do not reach zero and, where groups are small, "
    "can lie above the value; read them as the size of the noise."
)
CONVENTIONS = {
    "simon-says": "changes in percent, CEV halved, SDE over the square root of 2 (Simon Says)",
    "measure-twice": "changes as fractions, CEV and SDE plain (Measure Twice, Cut Once)",
}
CLASSES_SHOWN = 30
IDS_SHOWN = 200
GREY = 6  # the colour of what is not a method
PLANE = (
    "Change of FPR (across) and FNR (upwards) against the dense model, in percent. Dashed: both "
    "change alike (SDE is the mean distance to it). Ring: the spread about the centre (CEV)."
)


def value(number: float) -> str:
    """Two decimals, n/a for NaN.

    >>> value(1234.5), value(float("nan"))
    ('1,234.50', 'n/a')
    """
    return f"{number:,.2f}" if np.isfinite(number) else "n/a"


def with_interval(one: Comparison, row: str, place: int) -> str:
    """A statistic and its interval."""
    mean, low, high = (part[row][place] for part in (one.mean, one.low, one.high))
    return f"{value(mean)} [{value(low)}, {value(high)}]" if np.isfinite(mean) else "n/a"


def statistics(
    comparisons: Sequence[Comparison], groups: Sequence[str], base: str = "dense"
) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the main table: a row per statistic and group, a column per set."""
    sizes = comparisons[0].sizes
    header = ["", "samples", base, *[one.name for one in comparisons]]
    rows = []
    for row, title, of_dense in ROWS:
        per_group = row.startswith("group_")
        names = groups if per_group else [""]
        counts = [f"{n:,}" for n in sizes] if per_group else [f"{sizes.sum():,}"]
        first = comparisons[0]
        dense = np.atleast_1d(metrics.of_set(row)(first.dense, first.dense))
        for place, (name, size) in enumerate(zip(names, counts, strict=True)):
            cells = [with_interval(one, row, place) for one in comparisons]
            rows.append([title.format(name), size, value(dense[place]) if of_dense else "", *cells])
    for what in ("classes", "groups"):
        cells = [str(one.excluded(what)) for one in comparisons]
        if any(cell != "0" for cell in cells):
            rows.append([f"{what} left out of CEV and SDE", "", "", *cells])
    return header, rows


def group_figures(comparisons: Sequence[Comparison], groups: Sequence[str]) -> list[Block]:
    """Change and accuracy of each group, with intervals."""
    names = [one.name for one in comparisons]

    def triples(row: str) -> list[list[tuple[float, float, float]]]:
        return [
            [
                (float(one.mean[row][k]), float(one.low[row][k]), float(one.high[row][k]))
                for k in range(len(groups))
            ]
            for one in comparisons
        ]

    dense = metrics.of_set("group_accuracy")(comparisons[0].dense, comparisons[0].dense)
    absent = float("nan")
    before = [(float(x), absent, absent) for x in dense]
    return [
        Figure(
            "Change of accuracy by group",
            charts.bars("Change by group", groups, names, triples("group_change"), "points"),
            "Bars: change against the dense model. Lines: 95 % intervals.",
        ),
        Figure(
            "Accuracy by group",
            charts.bars(
                "Accuracy by group",
                groups,
                ["dense", *names],
                [before, *triples("group_accuracy")],
                "accuracy (%)",
                zero=False,
                colors=[GREY, *range(len(names))],
            ),
            "The range of the axis is that of the values.",
        ),
    ]


def class_figures(
    comparisons: Sequence[Comparison], groups: Sequence[str], classes: Sequence[str], task: int = 0
) -> list[Block]:
    """Where each class and each group moved in the plane of FPR and FNR."""
    figures: list[Block] = []
    for one in comparisons:
        counts, dense = pooled(one)
        found = 100 * metrics.class_changes(counts, dense)[task]
        figures.append(
            Figure(f"{one.name}: classes", charts.plane(one.name, classes, found), PLANE)
        )
        found = 100 * metrics.group_changes(counts, dense)
        figures.append(Figure(f"{one.name}: groups", charts.plane(one.name, groups, found), PLANE))
    return figures


def class_table(one: Comparison, classes: Sequence[str], task: int = 0) -> list[Block]:
    """Rates of each class before and after, the largest change of recall first."""
    counts, dense = pooled(one)
    after, before = (metrics.class_metrics(x[task].sum(axis=0)) for x in (counts, dense))
    samples = one.counts[task][0, ..., 1].sum(axis=0)
    order = np.argsort(np.nan_to_num(after["recall"] - before["recall"]), kind="stable")
    shown = order[:CLASSES_SHOWN]
    rows = [
        [classes[c], f"{samples[c]:,}"]
        + [value(part[rate][c]) for rate in ("recall", "fpr", "f1") for part in (before, after)]
        for c in shown
    ]
    header = [
        "class",
        "samples",
        "recall dense",
        "after",
        "FPR dense",
        "after",
        "F1 dense",
        "after",
    ]
    note = f"{one.name}: the classes that lose most recall first"
    if len(order) > len(shown):
        note += f" ({len(shown)} of {len(order)}; all are in metrics.json)"
    return [Text(note + "."), Table(header, rows)]


def against_sparsity(comparisons: Sequence[Comparison]) -> list[Block]:
    """Disparity against sparsity, a curve per method; nothing where no density is known."""
    known = [one for one in comparisons if np.isfinite(one.density) and one.density < 1]
    if not known:
        return []
    titles = {"rho_change": "rho(Delta)", "cev_classes": "CEV over classes", "accuracy": "accuracy"}
    figures: list[Block] = []
    for row, title in titles.items():
        series = []
        for name in dict.fromkeys(one.name for one in known):
            points = [
                (
                    100 * (1 - one.density),
                    float(one.mean[row][0]),
                    float(one.low[row][0]),
                    float(one.high[row][0]),
                )
                for one in known
                if one.name == name
            ]
            series.append((name, points))
        zero = row != "accuracy"
        drawn = charts.lines(title, series, "weights pruned (%)", title, zero=zero)
        note = "Lines: 95 % intervals, cut where they go far beyond the values."
        figures.append(Figure(f"{title} against sparsity", drawn, note))
    return figures


def exemplars(
    name: str,
    hit: np.ndarray,
    members: np.ndarray,
    groups: Sequence[str],
    called: Callable[[int], str],
) -> list[Block]:
    """The samples that compression changed: how many of each group, and the first of them.

    hit: (N,) bool; members: (N,) groups; called: the id of a sample from its place.
    """
    sizes = np.bincount(members, minlength=len(groups))
    found = np.bincount(members[hit], minlength=len(groups))
    rows = [
        [group, f"{n:,}", f"{k:,}", value(100 * k / n if n else np.nan)]
        for group, n, k in zip(groups, sizes, found, strict=True)
    ]
    rows.append(["all", f"{sizes.sum():,}", f"{found.sum():,}", value(100 * hit.mean())])
    blocks: list[Block] = [Text(f"{name}:"), Table(["group", "samples", "PIEs", "%"], rows)]
    if hit.any():
        first = f"Ids (the first {IDS_SHOWN})" if hit.sum() > IDS_SHOWN else "Ids"
        ids = ", ".join(called(int(place)) for place in np.flatnonzero(hit)[:IDS_SHOWN])
        blocks.append(Text(f"{first}: {ids}"))
    return blocks


EXEMPLARS = (
    "Pruning-identified exemplars: samples of which every compressed model says something else "
    "than its dense model does. Look at them one by one: they are where compression shows."
)


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table for a terminal, its first column to the left."""
    lines = [header, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    pads: list[Callable[[str, int], str]] = [str.ljust, *[str.rjust] * (len(header) - 1)]
    return "\n".join(
        "  ".join(pad(cell, w) for pad, cell, w in zip(pads, line, widths, strict=True)).rstrip()
        for line in lines
    )
