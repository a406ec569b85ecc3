"""The plots of a report, as PNG files. The one file that imports matplotlib."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from fairgrape_jax import escape, storage

if TYPE_CHECKING:
    from fairgrape_jax.reports.results import Cell, Model


# Okabe and Ito's palette: distinct for readers with any colour vision.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")


def color(index: int) -> str:
    """The colour of a series, repeating after eight."""
    return COLORS[index % len(COLORS)]


def line(index: int) -> dict[str, str]:
    """The colour and dashes of a curve, different for 24 of them."""
    return {"color": color(index), "linestyle": ("-", "--", ":")[index // len(COLORS) % 3]}


def save(path: Path, figure: Figure) -> None:
    """Write a figure so that its file is there whole or not at all."""
    with storage.atomic_write(path) as partial, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # letters that matplotlib's font lacks are boxes
        figure.savefig(partial, dpi=130, format="png")


def plain(name: str) -> str:
    """A name as a text of matplotlib, to which dollars are the ends of a formula."""
    return escape.visible(name).replace("$", r"\$")


def accuracy_over_rounds(path: Path, models: Sequence[Model]) -> None:
    """Accuracy against weights left, a panel per group: every seed thin, the mean thick."""
    groups = models[0].record["groups"]
    figure = Figure(figsize=(4.2 * len(groups), 3.8), layout="constrained")
    panels = figure.subplots(1, len(groups), sharey=True, squeeze=False)[0]
    for k, (panel, group) in enumerate(zip(panels, groups, strict=True)):
        dense = [m.record["test"]["group_accuracy"][k] for m in models if is_dense(m)]
        panel.axhline(np.mean(dense), color="0.4", linestyle="--", linewidth=1, label="dense")
        for i, name in enumerate(pruned_names(models)):
            x, each = curves(models, name, "group_accuracy", k)
            for values in each:
                panel.plot(x, values, **line(i), alpha=0.3, linewidth=0.8)
            panel.plot(x, each.mean(axis=0), **line(i), linewidth=2, marker=".", label=plain(name))
        against_weights(panel, plain(group))
    panels[0].set_ylabel("test accuracy (%)")
    panels[0].legend(fontsize=8)
    save(path, figure)


def accuracy_and_disparity(path: Path, models: Sequence[Model]) -> None:
    """Overall accuracy, the worst group's, and rho(D) against weights left: means over seeds.

    Bars, where there are several seeds, reach a standard error of the mean to either side.
    """
    shown = {
        "accuracy": "test accuracy (%)",
        "worst_group": "accuracy of the worst group (%)",
        "rho_change": "rho(D) (points)",
    }
    figure = Figure(figsize=(5 * len(shown) + 1.5, 4.4), layout="constrained")
    panels = figure.subplots(1, len(shown))
    for panel, (key, title) in zip(panels, shown.items(), strict=True):
        for i, name in enumerate(pruned_names(models)):
            x, each = curves(models, name, key)
            error = each.std(axis=0, ddof=1) / np.sqrt(len(each)) if len(each) > 1 else None
            shift = x * 1.005**i  # bars of several methods at one place stay apart
            panel.errorbar(
                shift,
                each.mean(axis=0),
                error,
                **line(i),
                marker=".",
                label=plain(name),
                elinewidth=0.7,
            )
        against_weights(panel, title)
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right center", fontsize=8, handlelength=3)
    save(path, figure)


def curves(
    models: Sequence[Model], name: str, metric: str, group: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Weights left in percent, (R,), and a metric, of one group if named, of each seed, (S, R).

    R is the number of rounds that every seed of the method has.
    """
    rounds: dict[int, list[Model]] = {}
    for model in models:
        if model.name == name:
            rounds.setdefault(model.seed, []).append(model)
    shared = min(map(len, rounds.values()))
    each = np.array([[m.record["test"][metric] for m in own[:shared]] for own in rounds.values()])
    first = next(iter(rounds.values()))[:shared]
    return np.array([100 * m.density for m in first]), each if group is None else each[..., group]


def against_weights(panel: Any, title: str) -> None:
    """A logarithmic axis of weights left, the dense network at its left."""
    panel.set(xscale="log", title=title, xlabel="weights left (%)")
    panel.invert_xaxis()
    panel.xaxis.set_major_locator(LogLocator(10, subs=(1.0, 2.0, 5.0)))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.grid(alpha=0.3)


def change_per_group(path: Path, cells: Sequence[Cell]) -> None:
    """Change of accuracy of each group by method, a panel per density, with intervals and seeds."""
    pruned = [cell for cell in cells if not cell.dense_itself]
    densities = sorted({round(cell.density, 3) for cell in pruned}, reverse=True)[-4:]
    names = list(dict.fromkeys(cell.name for cell in pruned))
    groups = pruned[0].models[0].record["groups"]
    figure = Figure(figsize=(1.2 + 3.0 * len(densities), 3.8), layout="constrained")
    panels = figure.subplots(1, len(densities), squeeze=False)[0]
    width = 0.8 / len(names)
    for panel, density in zip(panels, densities, strict=True):
        for cell in (cell for cell in pruned if round(cell.density, 3) == density):
            i = names.index(cell.name)
            x = np.arange(len(groups)) + (i - (len(names) - 1) / 2) * width
            mean = cell.mean["group_change"]
            spread = [mean - cell.low["group_change"], cell.high["group_change"] - mean]
            panel.bar(x, mean, width, color=color(i), alpha=0.75, label=plain(cell.name))
            panel.errorbar(
                x, mean, np.maximum(spread, 0), fmt="none", ecolor="0.2", capsize=2, linewidth=1
            )
            for model in cell.models:
                changes = model.record["test"]["group_change"]
                panel.plot(x, changes, "o", color="0.2", markersize=2.5)
        panel.axhline(0, color="0.2", linewidth=0.8)
        panel.set_xticks(
            np.arange(len(groups)), [*map(plain, groups)], rotation=0 if len(groups) < 4 else 40
        )
        panel.set_title(f"{100 * density:.1f} % of weights left")
        panel.grid(alpha=0.3, axis="y")
    panels[0].set_ylabel("change of accuracy (points)")
    panels[0].legend(fontsize=8)
    save(path, figure)


def importance_share(path: Path, models: Sequence[Model]) -> None:
    """Each group's share of importance by layer: dense, and after each method (cf. Fig. 5)."""
    scored = [model for model in models if "importance" in model.record]
    names = list(dict.fromkeys(model.name for model in scored))
    groups = scored[0].record["groups"]
    layers = list(scored[0].record["importance"])
    figure = Figure(figsize=(1 + 3.2 * len(names), 3.8), layout="constrained")
    panels = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for panel, name in zip(panels, names, strict=True):
        shares = []
        for model in scored:
            if model.name == name:
                totals = np.array([model.record["importance"][layer] for layer in layers])
                whole = totals.sum(axis=1, keepdims=True)
                shares.append(np.divide(totals, whole, out=np.zeros_like(totals), where=whole > 0))
        mean = np.mean(shares, axis=0)
        for k, group in enumerate(groups):
            panel.plot(
                range(len(layers)), mean[:, k], marker=".", color=color(k), label=plain(group)
            )
        panel.set_title(plain(name))
        panel.set_ylim(0, 1)
        panel.grid(alpha=0.3)
        if len(layers) <= 12:
            panel.set_xticks(range(len(layers)), layers, rotation=60, fontsize=7)
        else:
            panel.set_xlabel("layer")
    panels[0].set_ylabel("share of importance")
    panels[0].legend(fontsize=8)
    save(path, figure)


def is_dense(model: Model) -> bool:
    """Whether a model is the unpruned network."""
    return model.record["method"] == "dense"


def pruned_names(models: Sequence[Model]) -> list[str]:
    """The methods in the order in which they were run."""
    return list(dict.fromkeys(model.name for model in models if not is_dense(model)))
