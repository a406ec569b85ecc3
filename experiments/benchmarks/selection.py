"""FairGRAPE's selection of a whole network: loops in Python, greedy on the host, the fixed point.

Command:  python -m experiments.benchmarks.selection [--models resnet34] [--groups 7] [--keep 0.9]
Prints seconds, microseconds per kept weight, and ratios, measured in one run; --json FILE appends
them with versions and device. Importances are drawn (lognormal, correlated over groups), the layers
are those of the network. The rows:

  loop in torch       one weight at a time, tensors over groups, as the official code goes about it;
                      where torch is
  loop by group       one weight at a time in Python, a dictionary entry for each group, shares and
                      deficits of all groups worked out anew for every weight; all loops run on
                      --steps weights of one layer and are extrapolated
  loop over arrays    the same with NumPy arrays over groups: as lean as Python gets
  greedy              select_greedy, compiled, layers in threads
  threshold           select_tree, greedy's own steps at the end, on this machine's first device
  threshold, none     select_tree with finish="none": the fixed point alone
  max-min             maxmin_tree, with --maxmin; prints the widest gap to the bound
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks import timing
from fairgrape_jax import masks, models
from fairgrape_jax.methods.base import Problem
from fairgrape_jax.methods.pruning import prune_layers
from fairgrape_jax.selection import descending, select_greedy, solve_tree
from fairgrape_jax.selection.maxmin import maxmin_tree


def network(model: str, groups: int) -> tuple[masks.Tree, masks.Tree]:
    """Drawn importances of a network's layers, and its full masks."""
    module = models.create(model, 7)
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    full = masks.full_masks(shapes["params"])
    seeds = iter(range(len(jax.tree.leaves(full))))
    return jax.tree.map(lambda m: drawn(m.shape, groups, next(seeds)), full), full


def drawn(shape: tuple[int, ...], groups: int, seed: int) -> jax.Array:
    """(groups, *shape) float32: a part that all groups share, times one of their own."""
    rng = np.random.default_rng(seed)
    common = rng.standard_normal((1, *shape), np.float32) * 2
    return jnp.asarray(np.exp(common + rng.standard_normal((groups, *shape), np.float32)))


def loop_by_group(importance: np.ndarray, keep: int, steps: int) -> float:
    """Seconds per weight of the loop with an entry for each group, over its first `steps`."""
    names = range(len(importance))
    order = {k: descending(importance[k]) for k in names}
    totals = {k: float(importance[k].sum(dtype=np.float64)) for k in names}
    target = {k: totals[k] / sum(totals.values()) for k in names}
    kept = dict.fromkeys(names, 0.0)
    position = dict.fromkeys(names, 0)
    selected: set[int] = set()
    started = time.perf_counter()
    while len(selected) < min(keep, steps):
        whole = sum(kept.values())
        share = {k: kept[k] / whole if whole else 1 / len(names) for k in names}
        change = {k: (share[k] - target[k]) / target[k] for k in names}
        worst = min(change, key=lambda k: change[k])
        w = int(order[worst][position[worst]])
        position[worst] += 1
        if w not in selected:
            selected.add(w)
            for k in names:
                kept[k] += float(importance[k, w])
    return (time.perf_counter() - started) / len(selected)


def loop_over_arrays(importance: np.ndarray, keep: int, steps: int) -> float:
    """Seconds per weight of the loop with arrays over groups, over its first `steps`."""
    groups, n = importance.shape
    order = [descending(row) for row in importance]
    columns = np.ascontiguousarray(importance.T)  # the groups of a weight together
    target = columns.sum(axis=0, dtype=np.float64)
    target /= target.sum()
    share, kept = np.full(groups, 1 / groups), np.zeros(groups)
    position, selected, count = [0] * groups, np.zeros(n, bool), 0
    started = time.perf_counter()
    while count < min(keep, steps):
        k = int(np.argmin((share - target) / target))
        w = order[k][position[k]]
        position[k] += 1
        if not selected[w]:
            selected[w] = True
            count += 1
            kept += columns[w]
            share = kept / kept.sum()
    return (time.perf_counter() - started) / count


def loop_in_torch(importance: np.ndarray, keep: int, steps: int) -> float:
    """Seconds per weight of the loop with torch's tensors over groups, over its first `steps`."""
    import torch

    torch.set_num_threads(1)  # nothing here is large enough for two
    scores = torch.from_numpy(np.ascontiguousarray(importance.T))
    groups = scores.shape[1]
    order = [torch.argsort(scores[:, k], descending=True, stable=True) for k in range(groups)]
    target = scores.sum(dim=0)
    target = target / target.sum()
    share, kept = torch.full((groups,), 1 / groups), torch.zeros(groups)
    position, selected, count = [0] * groups, torch.zeros(len(scores), dtype=torch.bool), 0
    started = time.perf_counter()
    while count < min(keep, steps):
        k = int(torch.argmin((share - target) / target))
        w = int(order[k][position[k]])
        position[k] += 1
        if not selected[w]:
            selected[w] = True
            count += 1
            kept += scores[w]
            share = kept / kept.sum()
    return (time.perf_counter() - started) / count


def middle_layer(importance: masks.Tree) -> np.ndarray:
    """(G, n) of the layer of median size: what the loops are timed on."""
    leaves = sorted(jax.tree.leaves(importance), key=lambda leaf: leaf.size)
    leaf = np.asarray(leaves[len(leaves) // 2])
    return leaf.reshape(len(leaf), -1)


def measure(model: str, groups: int, density: float, options: argparse.Namespace) -> list[Any]:
    """The rows of one network."""
    importance, full = network(model, groups)
    sizes = [leaf.size for leaf in jax.tree.leaves(full)]
    keeps = sum(masks.kept(n, density) for n in sizes)
    works = {
        "greedy": lambda: prune_layers(Problem(None, full), importance, density, select_greedy),
        "threshold": lambda: solve_tree(importance, full, density)[0],
        "threshold, none": lambda: solve_tree(importance, full, density, finish="none")[0],
    }
    if options.maxmin:
        works["max-min"] = lambda: maxmin_tree(importance, full, density)[0]
    compiling = {name: timing.seconds(work) for name, work in works.items()}
    times = {name: min(each) for name, each in timing.interleaved(works, options.repeats).items()}
    reference, chosen = works["greedy"](), works["threshold"]()
    differ = sum(
        int((np.asarray(a) & ~np.asarray(b)).sum())
        for a, b in zip(jax.tree.leaves(reference), jax.tree.leaves(chosen), strict=True)
    )
    passes = [each["passes"] for each in solve_tree(importance, full, density)[1].values()]
    print(
        f"{model}: {sum(sizes)} weights, {groups} groups, keep {density}; {differ} of {keeps} "
        f"weights differ from greedy's; Newton passes {np.mean(passes):.1f} on average, "
        f"{max(passes)} at most"
    )
    if options.maxmin:
        certificates = maxmin_tree(importance, full, density)[1].values()
        gaps = [each["gap"] / each["bound"] for each in certificates if each["bound"] > 0]
        print(
            f"max-min: gap to the bound at most {max(gaps):.1e} of it, median {np.median(gaps):.1e}"
        )
    layer = middle_layer(importance)
    keep = masks.kept(layer.shape[1], density)
    loops = {"loop by group": loop_by_group, "loop over arrays": loop_over_arrays}
    if importlib.util.find_spec("torch"):
        loops = {"loop in torch": loop_in_torch} | loops
    for name, loop in loops.items():
        times[name] = loop(layer, keep, options.steps) * keeps
    rows = []
    for name in [*loops, *works]:
        first = compiling.get(name, math.nan) - times[name]
        rows.append(
            {
                "row": name,
                "model": model,
                "groups": groups,
                "keep": density,
                "seconds": round(times[name], 2),
                "us per weight": round(1e6 * times[name] / keeps, 3),
                **{f"{loop} / this": round(times[loop] / times[name], 1) for loop in loops},
                "first call more (s)": None if math.isnan(first) else round(first, 1),
            }
        )
    timing.show(rows)
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["resnet34"])
    parser.add_argument("--groups", nargs="+", type=int, default=[7])
    parser.add_argument("--keep", nargs="+", type=float, default=[0.9])
    parser.add_argument("--steps", type=int, default=20_000, help="steps of the Python loops")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--maxmin", action="store_true", help="the max-min choice too")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    select_greedy(np.ones((2, 2), np.float32), np.ones(2, bool), 1)  # compiles the loop
    rows = [
        row
        for model in options.models
        for groups in options.groups
        for keep in options.keep
        for row in measure(model, groups, keep, options)
    ]
    timing.add_json(options.json, vars(options), rows)


if __name__ == "__main__":
    main()
