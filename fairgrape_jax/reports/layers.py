"""Where weights are left, whose importance they hold, and what the networks cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fairgrape_jax.reports import charts, row_charts
from fairgrape_jax.reports.blocks import Block, Figure, Folded, Table, Text
from fairgrape_jax.reports.results import Cell, Model

FEW_LAYERS = 16  # of more, the single layers are folded


def weights_left(cells: Sequence[Cell]) -> list[Block]:
    """The part of each layer's weights that each method left, the mean over seeds.

    Args:
        cells: each method after its last round.

    Returns:
        A figure; folded of a deep network, behind the range over its layers.
    """
    layers = [row["layer"] for row in cells[0].models[0].record["layers"]]
    parts = np.array([[_part(cell, layer) for layer in layers] for cell in cells])
    names = [cell.name for cell in cells]
    chart = row_charts.points_by_row(
        "Weights left by layer", layers, names, parts, "weights left (%)"
    )
    figure = Figure(
        "Weights left by layer", [chart], "The mean over seeds. An empty layer has no point."
    )
    rows = []
    for cell, part in zip(cells, parts, strict=True):
        low, high = int(np.argmin(part)), int(np.argmax(part))
        rows.append(
            [
                cell.name,
                f"{part[low]:.2g} % ({layers[low]})",
                f"{part[high]:.3g} % ({layers[high]})",
            ]
        )
    table = Table(["", "emptiest layer", "fullest layer"], rows)
    if len(layers) > FEW_LAYERS:
        return [table, Folded(f"Weights left in each of {len(layers)} layers", [figure])]
    return [table, figure]


def _part(cell: Cell, layer: str) -> float:
    """Percent of a layer's weights that are left, the mean over seeds."""
    rows = [row for model in cell.models for row in model.record["layers"] if row["layer"] == layer]
    if any("alive" not in row or not row.get("weights") for row in rows):
        return float("nan")
    return float(np.mean([100 * row["alive"] / row["weights"] for row in rows]))


def importance_share(models: Sequence[Model]) -> list[Block]:
    """Each group's share of importance in every layer: dense, and after each method.

    Source:
        FairGRAPE (arXiv 2207.10888), Fig. 5.

    Args:
        models: evaluated networks.

    Returns:
        The figure; none where no method stored its importance.
    """
    panels, whole = [], {}
    scored = [model for model in models if "importance" in model.record]
    for name in dict.fromkeys(model.name for model in scored):
        totals = [model.record["importance"] for model in scored if model.name == name]
        layers, groups = list(totals[0]), scored[0].record["groups"]
        sums = np.array([[of[layer] for layer in layers] for of in totals])  # (S, L, G)
        shares = sums / np.maximum(sums.sum(axis=-1, keepdims=True), np.finfo(float).tiny)
        panels.append(charts.shares(name, layers, groups, shares.mean(axis=0)))
        whole[name] = shares.sum(axis=(0, 1)) / max(shares.sum(), np.finfo(float).tiny)
    if not panels:
        return []
    title = "Share of importance of each group, by layer"
    by_layer = Figure(title, panels, picture="importance_share.png")
    if len(layers) <= FEW_LAYERS:
        return [by_layer]
    short = charts.shares("Mean of all layers", list(whole), groups, np.array(list(whole.values())))
    return [
        Figure("Share of importance of each group, mean of all layers", [short]),
        Folded(title, [by_layer]),
    ]


def costs(cells: Sequence[Cell], measured: Mapping[str, Mapping[str, float]]) -> list[Block]:
    """Weights of the networks, and what was measured of them.

    Args:
        cells: the dense networks, and each method after its last round.
        measured: of some of them by name: what `fairgrape measure --save` has stored.

    Returns:
        A table and how to have more.
    """
    columns = {
        "bytes": ("bytes, sparse", lambda x: f"{x:,.0f}"),
        "flops": ("operations", lambda x: f"{x:,.0f}"),
        "milliseconds": ("ms per picture", lambda x: f"{x:.2f}"),
    }
    known = [key for key in columns if any(key in numbers for numbers in measured.values())]
    rows = []
    for cell in cells:
        layers = cell.models[0].record["layers"]
        total = sum(row.get("weights", 0) for row in layers)
        alive = np.mean(
            [sum(r.get("alive", 0) for r in model.record["layers"]) for model in cell.models]
        )
        numbers = measured.get(cell.name, {})
        cells_of_row = [columns[key][1](numbers[key]) if key in numbers else "n/a" for key in known]
        rows.append([cell.name, f"{alive:,.0f} of {total:,}", *cells_of_row])
    text = (
        "Zeros in a dense array save neither time nor operations; sparse storage saves bytes."
        if known
        else "Size, operations and time of a call were not measured: `fairgrape measure RUN/STAGE "
        "--save` stores them with the stage, and the next report shows them. Zeros in a dense "
        "array save neither time nor operations."
    )
    header = ["", "weights left", *[columns[key][0] for key in known]]
    return [Table(header, rows), Text(text)]
