"""When zeros buy time on a CPU: a fully connected layer by a sparse kernel and by XLA, in turn.

Command:  python -m experiments.benchmarks.sparse [--layers 512x512 2048x2048] [--batches 1 64]
          [--kept 0.2 0.1 0.05 0.02 0.01] [--repeats 15] [--jax] [--json FILE]
The weights of a layer (outputs x inputs) are drawn, and so are those that are kept. "scipy" is
scipy.sparse's CSR matrix times a dense one, in one thread; XLA's dense product uses all cores. With
--jax the BCSR and BCOO matrices of jax.experimental.sparse run too, at batch 1 and up. A row is the
median of calls in turn, and "times faster" is that of dense over it, side by side; above 1 the
sparse kernel wins. The last table has the break-even: the largest part kept at which it does, by
the least times, which say most on a machine that others use.
"""

from __future__ import annotations

import argparse
import functools
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jax.experimental import sparse

from experiments.benchmarks.timing import add_json, interleaved, machine, ratio, show

DENSE = "dense"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", nargs="+", default=["512x512", "2048x2048"])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--kept", type=float, nargs="+", default=[0.2, 0.1, 0.05, 0.02, 0.01])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--jax", action="store_true", help="jax.experimental.sparse too")
    parser.add_argument("--json", type=Path, help="append the rows to this file")
    options = parser.parse_args()
    rows = [
        row
        for layer in options.layers
        for batch in options.batches
        for row in measure(layer, batch, options)
    ]
    show(rows)
    print()
    show(break_even(rows))
    print(machine() | {"scipy": scipy.__version__})
    add_json(options.json, vars(options), rows)


def measure(layer: str, batch: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows of one layer and batch: a sparse kernel at a part kept each, and dense."""
    outputs, inputs = map(int, layer.split("x"))
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((outputs, inputs), np.float32)
    x = rng.standard_normal((inputs, batch), np.float32)
    calls = kernels(weights, x, options.kept, with_jax=options.jax)
    times = interleaved(calls, options.repeats)
    rows = []
    for name, seconds in times.items():
        kernel, _, kept = name.partition(" at ")
        quartiles = statistics.quantiles(seconds, n=4)
        rows.append(
            {
                "layer": layer,
                "batch": batch,
                "row": kernel,
                "kept": kept or "1",
                "microseconds": round(statistics.median(seconds) * 1e6, 1),
                "quartiles": f"{quartiles[0] * 1e6:.1f} - {quartiles[2] * 1e6:.1f}",
                "times faster": round(ratio(times[DENSE], seconds), 2),
                "of the least": round(min(times[DENSE]) / min(seconds), 2),
            }
        )
    return rows


def kernels(
    weights: np.ndarray, x: np.ndarray, kept: list[float], *, with_jax: bool
) -> dict[str, Callable[[], Any]]:
    """What is timed, by name; each gives the product of the weights that are kept with x."""
    dense = jax.jit(jnp.matmul)
    on_device, product = jnp.asarray(x), jax.jit(lambda matrix, x: matrix @ x)
    calls: dict[str, Callable[[], Any]] = {
        DENSE: functools.partial(dense, jnp.asarray(weights), on_device)
    }
    for part in kept:
        pruned = np.where(mask(weights.shape, part), weights, np.float32(0))
        csr = scipy.sparse.csr_matrix(pruned)
        calls[f"scipy at {part}"] = functools.partial(csr.__matmul__, x)
        if with_jax:
            for kind in (sparse.BCSR, sparse.BCOO):
                matrix = kind.fromdense(jnp.asarray(pruned))
                name = f"jax {kind.__name__} at {part}"
                calls[name] = functools.partial(product, matrix, on_device)
    return calls


def mask(shape: tuple[int, ...], part: float) -> np.ndarray:
    """Drawn places, exactly so many of all."""
    count = int(np.prod(shape))
    places = np.random.default_rng(1).permutation(count)[: int(count * part)]
    flat = np.zeros(count, bool)
    flat[places] = True
    return flat.reshape(shape)


def break_even(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each layer, batch and kernel the largest part kept at which it is faster than dense by
    the least times, and at every smaller one that was measured."""
    parts: dict[tuple[Any, ...], str] = {}
    for row in sorted(rows, key=lambda row: float(row["kept"])):
        key = (row["layer"], row["batch"], row["row"])
        if row["row"] == DENSE or parts.get(key, "").endswith("not"):
            continue
        before = parts.get(key, "nothing")
        wins = row["of the least"] > 1
        parts[key] = row["kept"] if wins else f"{before}; at {row['kept']} not"
    return [
        {"layer": layer, "batch": batch, "row": kernel, "faster up to": part}
        for (layer, batch, kernel), part in parts.items()
    ]


if __name__ == "__main__":
    main()
