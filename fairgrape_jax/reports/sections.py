"""What the reports of a run and of an audit share: tables, figures and lists of comparisons."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from fairgrape_jax import metrics
from fairgrape_jax.reports import charts, differences
from fairgrape_jax.reports.charts import Interval
from fairgrape_jax.reports.comparison import Comparison, pool_counts, without_ungrouped
from fairgrape_jax.reports.document import Block, Figure, Pictures, Table, Text
from fairgrape_jax.reports.drawing import GREY

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
MEANING = (
    "Numbers are percentages and percentage points, in brackets the 95 % bootstrap interval over "
    "samples (within groups, the same draw for compressed and dense) and, where there are several "
    "models, over them. rho(A): standard deviation over groups (divisor G - 1) of accuracy. FPR, "
    "FNR: of the positive class if there are two classes, else the mean over classes. Spreads "
    "cannot be negative, and resampling adds to them: their intervals do not reach zero and, where "
    "groups are small, can lie above the value; read them as the size of the noise. Whether two "
    "numbers differ is said by the interval of their difference alone, not by two intervals."
)
MEANING_OF_CHANGES = (
    "Change: accuracy minus the dense model's; rho(Delta): its standard deviation over groups; "
    "excess gap: how much more the group that loses most loses than all samples do. CEV and SDE: "
    "spread and asymmetry of the relative changes of FPR and FNR, of the models' mean rates."
)
CONVENTIONS = {
    "simon-says": "changes in percent, CEV halved, SDE over the square root of 2 (Simon Says)",
    "measure-twice": "changes as fractions, CEV and SDE plain (Measure Twice, Cut Once)",
}
CLASSES_SHOWN = 30
IDS_SHOWN = 200
PLANE = (
    "Change of FPR (across) and FNR (upwards) against the dense model, in percent. Dashed: both "
    "change alike (SDE is the mean distance to it). Ring: the spread about the centre (CEV)."
)


def format_value(number: float) -> str:
    """Two decimals, n/a for NaN.

    Args:
        number: percent or points.

    Returns:
        A word.

    Example:
        >>> format_value(1234.5), format_value(float("nan"))
        ('1,234.50', 'n/a')
    """
    return f"{number:,.2f}" if np.isfinite(number) else "n/a"


def format_interval(one: Comparison, row: str, place: int) -> str:
    """A statistic and its interval.

    Args:
        one: a set of models beside its dense ones.
        row: the statistic.
        place: of the group; 0 for what is no statistic of groups.

    Returns:
        VALUE [LOW, HIGH], n/a where undefined.
    """
    mean, low, high = (part[row][place] for part in (one.mean, one.low, one.high))
    return (
        f"{format_value(mean)} [{format_value(low)}, {format_value(high)}]"
        if np.isfinite(mean)
        else "n/a"
    )


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
            cells = [format_interval(one, row, place) for one in comparisons]
            rows.append([label, size, format_value(dense[place]) if of_dense else "", *cells])
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
        [label, size, *[format_interval(one, row, place) for one in comparisons]]
        for row, title, of_dense in ROWS
        if of_dense
        for place, (label, size) in enumerate(_labels(comparisons[0], row, title, groups))
    ]
    return ["", "samples", *[one.name for one in comparisons]], rows


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


def group_figures(
    comparisons: Sequence[Comparison], groups: Sequence[str], *, alone: bool = False
) -> list[Block]:
    """Change and accuracy of each group, with intervals.

    Args:
        comparisons: a set of models beside its dense ones, each.
        groups: their names.
        alone: they are compared with nothing, so there is no change.

    Returns:
        The figures.
    """
    names = [one.name for one in comparisons]
    accuracy = [intervals(one, "group_accuracy") for one in comparisons]
    range_note = "The range of the axis is that of the values."
    if alone:
        chart = charts.bars(
            "Accuracy by group", groups, names, accuracy, "accuracy (%)", zero=False
        )
        return [Figure("Accuracy by group", [chart], range_note)]
    dense = comparisons[0].statistic("group_accuracy", dense=True)
    before = [Interval(float(x)) for x in dense]
    change = [intervals(one, "group_change") for one in comparisons]
    return [
        Figure(
            "Change of accuracy by group",
            [charts.bars("Change of accuracy by group", groups, names, change, "points")],
            "Bars: change against the dense model. Lines: 95 % intervals.",
        ),
        Figure(
            "Accuracy by group",
            [
                charts.bars(
                    "Accuracy by group",
                    groups,
                    ["dense", *names],
                    [before, *accuracy],
                    "accuracy (%)",
                    zero=False,
                    colors=[GREY, *range(len(names))],
                )
            ],
            range_note,
        ),
    ]


def class_figures(
    comparisons: Sequence[Comparison], groups: Sequence[str], classes: Sequence[str], task: int = 0
) -> list[Block]:
    """Where each class and each group moved in the plane of FPR and FNR.

    Args:
        comparisons: a set of models beside its dense ones, each.
        groups: their names.
        classes: their names.
        task: which one.

    Returns:
        A figure of the classes and one of the groups for each set.
    """
    figures: list[Block] = []
    for one in comparisons:
        counts, dense = pool_counts(one)
        of_classes = metrics.class_changes(counts, dense)[task]
        of_groups = metrics.group_changes(
            without_ungrouped(counts, one.num_groups), without_ungrouped(dense, one.num_groups)
        )
        for what, names, changes in (
            ("classes", classes, of_classes),
            ("groups", groups, of_groups),
        ):
            title = f"{one.name}: {what}"
            figures.append(Figure(title, [charts.plane(title, names, 100 * changes)], PLANE))
    return figures


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
            *[format_value(part[rate][c]) for rate in rates for part in parts],
        ]
        for c in places
    ]
    first = "with the lowest recall" if alone else "that lose most recall"
    note = f"{one.name}: the classes {first} first"
    if len(order) > len(places):
        note += f" ({len(places)} of {len(order)})"
    return [Text(note + "."), Table(header, rows)]


def difference_table(names: Sequence[str], compared: differences.Models) -> list[Block]:
    """Each set of models minus the one with the smallest spread over groups.

    Args:
        names: of the sets.
        compared: their measures, resampled together.

    Returns:
        A note and a table.
    """
    base = compared.smallest
    reach = [
        differences.pairs(compared.values[:, k], compared.draws[:, :, k])
        for k in range(len(compared.measures))
    ]
    rows = []
    for row, name in enumerate(names):
        if row == base:
            continue
        cells = []
        for k in range(len(reach)):
            low, high = reach[k][:, row, base]
            clear = " *" if low < high and (low > 0 or high < 0) else ""
            difference = compared.values[row, k] - compared.values[base, k]
            cells.append(f"{difference:+.2f} [{low:+.2f}, {high:+.2f}]{clear}")
        rows.append([name, *cells])
    together = " that hold for all pairs together" if len(names) > 2 else ""
    note = (
        f"Each minus {names[base]}, which has the smallest {compared.measures[-1]}, on the same "
        f"samples and models, with 95 % intervals of the difference{together} (paired bootstrap). "
        "* where they leave out zero: elsewhere these samples do not tell the two apart."
    )
    return [Text(note), Table([f"minus {names[base]}", *compared.measures], rows)]


def exemplars(
    name: str,
    changed: np.ndarray,
    members: np.ndarray,
    groups: Sequence[str],
    *,
    id_of: Callable[[int], str],
    thumbnails: Mapping[int, str] | None = None,
) -> list[Block]:
    """The samples that compression changed: how many of each group, and the first of them.

    Args:
        name: of the set of models.
        changed: (N,) bool, the samples.
        members: (N,) the group of each, -1 for none.
        groups: names of the groups.
        id_of: the id of a sample from its place.
        thumbnails: pictures of some of them by place, as data: addresses.
    """
    in_group = members >= 0
    sizes = np.bincount(members[in_group], minlength=len(groups))
    count = np.bincount(members[in_group & changed], minlength=len(groups))
    lines = [*zip(groups, sizes, count, strict=True), ("all", len(changed), changed.sum())]
    rows = [
        [group, f"{n:,}", f"{k:,}", format_value(100 * k / n if n else np.nan)]
        for group, n, k in lines
    ]
    blocks: list[Block] = [Text(f"{name}:"), Table(["group", "samples", "PIEs", "%"], rows)]
    if changed.any():
        first = f"Ids (the first {IDS_SHOWN})" if changed.sum() > IDS_SHOWN else "Ids"
        ids = ", ".join(id_of(int(place)) for place in np.flatnonzero(changed)[:IDS_SHOWN])
        blocks.append(Text(f"{first}: {ids}"))
    places = [int(place) for place in np.flatnonzero(changed) if thumbnails and place in thumbnails]
    if thumbnails and places:
        blocks.append(Pictures([(id_of(place), thumbnails[place]) for place in places]))
    return blocks


EXEMPLARS = (
    "Pruning-identified exemplars: samples of which every compressed model says something else "
    "than its dense model does. Look at them one by one: they are where compression shows."
)
