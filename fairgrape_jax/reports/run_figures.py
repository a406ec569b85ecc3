"""The figures of a report of runs: accuracy and disparity by weights left, group and layer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fairgrape_jax.reports import charts, sections
from fairgrape_jax.reports.charts import Curve
from fairgrape_jax.reports.document import Block, Figure
from fairgrape_jax.reports.results import Cell, Model

CURVES = {  # of the figure of disparity: how each is called, whether its axis holds zero
    "accuracy": ("accuracy (%)", False),
    "worst_group": ("accuracy of the worst group (%)", False),
    "rho_change": ("rho(Delta) (points)", True),
    "cev_classes": ("CEV over classes", True),
}


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


def accuracy_over_rounds(models: Sequence[Model]) -> Figure:
    """Accuracy against weights left, a panel per group: every seed thin, the mean thick.

    Args:
        models: evaluated networks.

    Returns:
        The figure.
    """
    groups = models[0].record["groups"]
    names = list(dict.fromkeys(model.name for model in models if not is_dense(model)))
    dense = [model.record["test"]["group_accuracy"] for model in models if is_dense(model)]
    panels = []
    for k, group in enumerate(groups):
        curves = []
        for name in names:
            x, seeds = rounds_of_method(models, name)
            each = [[m.record["test"]["group_accuracy"][k] for m in seed] for seed in seeds]
            mean = np.mean(each, axis=0)
            curves.append(Curve(name, x, list(mean), thin=each))
        level = float(np.mean([accuracies[k] for accuracies in dense]))
        across = [x for curve in curves for x in curve.x]
        ends = [max(across), min(across)]
        curves.append(Curve("dense", ends, [level, level], plain=True))
        panels.append(
            charts.lines(group, curves, "weights left (%)", "test accuracy (%)", zero=False)
        )
    return Figure(
        "Accuracy of each group over the rounds",
        panels,
        "Thin: each seed. Thick: their mean.",
        picture="accuracy_over_rounds.png",
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
    for row, (unit, zero) in CURVES.items():
        curves = []
        for name in dict.fromkeys(cell.name for cell in pruned):
            of_one = [cell for cell in pruned if cell.name == name]
            places = [sections.intervals(cell, row)[0] for cell in of_one]
            curves.append(
                Curve(
                    name,
                    [100 * cell.density for cell in of_one],
                    [one.value for one in places],
                    [one.low for one in places],
                    [one.high for one in places],
                )
            )
        panels.append(charts.lines(unit, curves, "weights left (%)", unit, zero=zero))
    return [
        Figure(
            "Accuracy, worst group and disparity against weights left",
            panels,
            "Lines: 95 % intervals, cut where they go far beyond the values.",
            picture="accuracy_and_disparity.png",
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
                [sections.intervals(cell, "group_change") for cell in here],
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


def importance_share(models: Sequence[Model]) -> list[Block]:
    """Each group's share of importance in every layer: dense, and after each method.

    Source:
        FairGRAPE (arXiv 2207.10888), Fig. 5.

    Args:
        models: evaluated networks.

    Returns:
        The figure; none where no method stored its importance.
    """
    panels = []
    scored = [model for model in models if "importance" in model.record]
    for name in dict.fromkeys(model.name for model in scored):
        totals = [model.record["importance"] for model in scored if model.name == name]
        layers, groups = list(totals[0]), scored[0].record["groups"]
        sums = np.array([[of[layer] for layer in layers] for of in totals])  # (S, L, G)
        shares = sums / np.maximum(sums.sum(axis=-1, keepdims=True), np.finfo(float).tiny)
        panels.append(charts.shares(name, layers, groups, shares.mean(axis=0)))
    if not panels:
        return []
    return [Figure("Share of importance", panels, picture="importance_share.png")]
