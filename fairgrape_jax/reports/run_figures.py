"""The figures of a report of runs: accuracy and disparity by weights left, group and layer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fairgrape_jax.reports import charts, curves
from fairgrape_jax.reports.blocks import Block, Figure
from fairgrape_jax.reports.curves import Curve
from fairgrape_jax.reports.drawing import SMALL
from fairgrape_jax.reports.metric_tables import intervals
from fairgrape_jax.reports.results import Cell, Model

CURVES = {  # of the figure of disparity: how each is called, its unit, whether its axis holds zero
    "accuracy": ("accuracy", "%", False),
    "worst_group": ("worst group", "%", False),
    "rho_change": ("rho(Delta)", "points", True),
    "excess_gap": ("excess gap", "points", True),
}
CURVES_SHOWN = 6  # methods of the picture of the first screen
PANELS = 8  # groups there


def rounds_of_method(models: Sequence[Model], name: str) -> tuple[list[float], list[list[Model]]]:
    """Weights left in percent after each round that all seeds have, and each seed's networks.

    Args:
        models: evaluated networks.
        name: of the method.

    Returns:
        Percent, falling; and for each seed its networks.
    """
    rounds: dict[int, list[Model]] = {}
    for model in models:
        if model.name == name:
            rounds.setdefault(model.seed, []).append(model)
    shared = min(map(len, rounds.values()))
    seeds = [networks[:shared] for networks in rounds.values()]
    return [100 * model.density for model in seeds[0]], seeds


def summary(models: Sequence[Model], cells: Sequence[Cell], names: Sequence[str]) -> Figure:
    """The picture of the first screen: accuracy of each group over weights left, with intervals.

    Args:
        models: evaluated networks.
        cells: those that are compared, which have intervals.
        names: the methods, the leader first: of many the first CURVES_SHOWN are drawn.

    Returns:
        A panel for each group; of many groups the PANELS with the lowest accuracy by the leader.
    """
    groups = models[0].record["groups"]
    leader = [cell for cell in cells if cell.name == names[0]][-1]
    order = list(dict.fromkeys(cell.name for cell in cells))
    names = sorted(names[:CURVES_SHOWN], key=order.index)  # a method has one colour in all figures
    places = np.sort(np.argsort(leader.mean["group_accuracy"], kind="stable")[:PANELS])
    by_group: dict[str, list[Curve]] = {}
    for k in places.tolist():
        series = [_with_intervals(models, cells, name, k) for name in names]
        by_group[groups[k]] = [*series, _dense_level(models, series, k)]
    left = []
    if len(groups) > PANELS:
        left.append(f"The {PANELS} least accurate of {len(groups)} groups.")
    count = len({model.name for model in models if not is_dense(model)})
    if count > len(names):
        left.append(f"The first {len(names)} of {count} methods.")
    return Figure(
        "Accuracy of each group over weights left",
        curves.panels(by_group, "weights left (%)", "accuracy (%)"),
        " ".join(["Mean over seeds; bars: 95 % interval.", *left]),
        picture="accuracy_by_group.png",
        legend=names,
    )


def _with_intervals(models: Sequence[Model], cells: Sequence[Cell], name: str, group: int) -> Curve:
    """A method's accuracy in a group after every round; intervals where it is compared."""
    x, seeds = rounds_of_method(models, name)
    each = [[m.record["test"]["group_accuracy"][group] for m in seed] for seed in seeds]
    known = {
        100 * cell.density: intervals(cell, "group_accuracy")[group]
        for cell in cells
        if cell.name == name
    }
    ends = [known.get(place, charts.Interval(np.nan)) for place in x]
    low, high = [one.low for one in ends], [one.high for one in ends]
    return Curve(name, x, list(np.mean(each, axis=0)), low, high)


def _dense_level(models: Sequence[Model], series: Sequence[Curve], group: int) -> Curve:
    """The dense networks' accuracy in a group, as a level across the series."""
    dense = [model.record["test"]["group_accuracy"][group] for model in models if is_dense(model)]
    level = float(np.mean(dense))
    across = [x for curve in series for x in curve.x]
    return Curve("dense", [max(across), min(across)], [level, level], plain=True)


def accuracy_over_rounds(models: Sequence[Model]) -> Figure:
    """Accuracy against weights left, a panel per group: every seed thin, the mean thick.

    Args:
        models: evaluated networks.

    Returns:
        The figure.
    """
    groups = models[0].record["groups"]
    names = list(dict.fromkeys(model.name for model in models if not is_dense(model)))
    by_group: dict[str, list[Curve]] = {}
    for k, group in enumerate(groups):
        series = []
        for name in names:
            x, seeds = rounds_of_method(models, name)
            each = [[m.record["test"]["group_accuracy"][k] for m in seed] for seed in seeds]
            series.append(Curve(name, x, list(np.mean(each, axis=0)), thin=each))
        by_group[group] = [*series, _dense_level(models, series, k)]
    return Figure(
        "Accuracy of each group over the rounds, every seed",
        curves.panels(by_group, "weights left (%)", "test accuracy (%)"),
        "Thin: each seed. Thick: their mean.",
        picture="accuracy_over_rounds.png",
        legend=names,
    )


def is_dense(model: Model) -> bool:
    """Whether a model is the unpruned network.

    Args:
        model: an evaluated network.

    Returns:
        True for a dense one.
    """
    return model.record["method"] == "dense"


def against_sparsity(cells: Sequence[Cell]) -> list[Block]:
    """Accuracy and disparity against weights left, a curve per method.

    Args:
        cells: a method after a round, each.

    Returns:
        The figure.
    """
    pruned = [cell for cell in cells if not cell.dense_itself]
    panels = []
    names = list(dict.fromkeys(cell.name for cell in pruned))
    for row, (label, unit, zero) in CURVES.items():
        series = []
        for name in names:
            of_one = [cell for cell in pruned if cell.name == name]
            places = [intervals(cell, row)[0] for cell in of_one]
            series.append(
                Curve(
                    name,
                    [100 * cell.density for cell in of_one],
                    [one.value for one in places],
                    [one.low for one in places],
                    [one.high for one in places],
                )
            )
        panels.append(
            curves.lines(
                label, series, "weights left (%)", unit, zero=zero, width=SMALL, height=1.75
            )
        )
    return [
        Figure(
            "Accuracy, worst group and disparity against weights left",
            panels,
            "Lines: 95 % intervals, cut where they go far beyond the values.",
            picture="accuracy_and_disparity.png",
            legend=names,
        )
    ]


def change_per_group(cells: Sequence[Cell], groups: Sequence[str]) -> Figure:
    """Change of accuracy of each group by method, a panel per density, with every seed.

    Args:
        cells: a method after a round, each.
        groups: their names.

    Returns:
        The figure.
    """
    pruned = [cell for cell in cells if not cell.dense_itself]
    names = list(dict.fromkeys(cell.name for cell in pruned))
    panels = []
    for density in sorted({round(cell.density, 3) for cell in pruned}, reverse=True)[-4:]:
        here = [cell for cell in pruned if round(cell.density, 3) == density]
        panels.append(
            charts.bars(
                f"{100 * density:.1f} % of weights left",
                groups,
                [cell.name for cell in here],
                [intervals(cell, "group_change") for cell in here],
                "change of accuracy (points)",
                colors=[names.index(cell.name) for cell in here],
                dots=[
                    [[m.record["test"]["group_change"][k] for m in cell.models] for k in each]
                    for cell in here
                    for each in [range(len(groups))]
                ],
            )
        )
    return Figure(
        "Change of each group by method",
        panels,
        "Dots: each seed. Lines: 95 % intervals.",
        picture="change_per_group.png",
    )
