"""FairGRAPE's selection: the compiled greedy choice beside the same loop in plain Python/NumPy.

Command:  python experiments/benchmarks/selection.py [--model resnet34] [--groups 7] [--keep 0.9]
Prints the time for the whole network, the cost per kept weight of both, and their ratio, measured
in one run; --json FILE writes them with versions and machine. Importances are drawn (lognormal,
correlated over groups), the layers are those of the network.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from fairgrape_jax import masks, models
from fairgrape_jax.selection import descending, select_greedy


def layer_sizes(model: str) -> list[int]:
    """Weights of every prunable layer."""
    module = models.create(model, 7)
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    table = masks.sparsity_table(masks.full_masks(shapes["params"]))
    return [row["weights"] for row in table]


def drawn(n: int, groups: int, seed: int) -> np.ndarray:
    """(n, groups) float32: a part that all groups share, times one of their own."""
    rng = np.random.default_rng(seed)
    common = rng.standard_normal((n, 1), np.float32) * 2
    return np.exp(common + rng.standard_normal((n, groups), np.float32))


def python_loop(importance: np.ndarray, keep: int, steps: int) -> float:
    """Seconds per selected weight of the loop in plain Python/NumPy, over its first `steps`."""
    n, groups = importance.shape
    order = [descending(importance[:, k]) for k in range(groups)]
    target = importance.sum(axis=0, dtype=np.float64)
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
            kept += importance[w]
            share = kept / kept.sum()
    return (time.perf_counter() - started) / count


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="resnet34")
    parser.add_argument("--groups", type=int, default=7)
    parser.add_argument("--keep", type=float, default=0.9)
    parser.add_argument("--steps", type=int, default=20_000, help="steps of the Python loop")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    sizes = layer_sizes(options.model)
    layers = [drawn(n, options.groups, seed) for seed, n in enumerate(sizes)]
    keeps = [masks.kept(n, options.keep) for n in sizes]
    select_greedy(np.ones((2, 2), np.float32), np.ones(2, bool), 1)  # compiles the loop

    def choose(index: int) -> int:
        return int(select_greedy(layers[index], np.ones(sizes[index], bool), keeps[index]).sum())

    started = time.perf_counter()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        largest_first = sorted(range(len(sizes)), key=lambda i: -sizes[i])
        assert sum(pool.map(choose, largest_first)) == sum(keeps)
    whole = time.perf_counter() - started

    middle = int(np.argsort(sizes)[len(sizes) // 2])
    python = python_loop(layers[middle], keeps[middle], options.steps)
    compiled = whole / sum(keeps)
    result = {
        "model": options.model,
        "weights": sum(sizes),
        "groups": options.groups,
        "keep": options.keep,
        "whole network, compiled (s)": round(whole, 2),
        "compiled, per kept weight (us)": round(1e6 * compiled, 3),
        "python loop, per kept weight (us)": round(1e6 * python, 3),
        "python loop, whole network, extrapolated (s)": round(python * sum(keeps), 1),
        "ratio": round(python / compiled, 1),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "jax": jax.__version__,
    }
    for name, value in result.items():
        print(f"{name}: {value}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
