"""What zeros buy: a call of the dense network, of one with zeros, and of smaller ones, in turn.

Command:  python -m experiments.benchmarks.structures [--models resnet18 mobilenet_v2] [--size 64]
          [--batches 1 64] [--flops 0.5 0.25] [--multiple 1] [--repeats 15] [--json FILE]
The weights are drawn: which channels stay makes no difference to the time, only how many do. A row
is the median of calls of all rows in turn, beside the least of them, which says most on a machine
that others use; "times faster" is the median of dense over this row, side by side, and of the least
ones. "99 % zeros" has 99 of 100 weights zero in the dense arrays.
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

import fairgrape_jax as fg
from experiments.benchmarks.timing import add_json, interleaved, machine, show, times_faster
from fairgrape_jax import models
from fairgrape_jax.structures.cost import Counter

DENSE = "dense"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["resnet18", "mobilenet_v2"])
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--flops", type=float, nargs="+", default=[0.5, 0.25])
    parser.add_argument("--multiple", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", type=Path, help="append the rows to this file")
    options = parser.parse_args()
    rows = [row for model in options.models for row in measure(model, options)]
    show(rows)
    print(machine())
    add_json(options.json, vars(options), rows)


def measure(model: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows of one network."""
    module = models.create(model, 2)
    images = jnp.zeros((1, options.size, options.size, 3))
    variables = jax.jit(module.init)(jax.random.key(0), images)
    structures = fg.find_structures(module.apply, variables, images)
    whole = structures.full_masks()
    dense = Counter(structures)(whole)
    apply = jax.jit(module.apply)
    zeros, _ = fg.prune(variables, fg.full_masks(variables), 0.01, method="magnitude")
    networks: dict[str, tuple[Callable[..., Any], Any, float, float]] = {
        DENSE: (apply, variables, 1.0, 1.0),
        "99 % zeros": (apply, fg.apply_masks(zeros, variables), 0.01, 1.0),
    }
    for part in options.flops:
        masks, info = fg.prune_structures(
            structures, variables, whole, part, method="magnitude", multiple=options.multiple
        )
        small = fg.shrink(structures, variables, masks)
        name = f"{1 - part:.0%} of the operations removed"
        networks[name] = small.apply, small.params, info["weights"], info["flops"]
    rows = []
    for batch in options.batches:
        shape = (batch, options.size, options.size, 3)
        x = jnp.asarray(np.random.default_rng(0).standard_normal(shape, np.float32))
        calls: dict[str, Callable[[], Any]] = {
            name: functools.partial(function, params, x)
            for name, (function, params, _, _) in networks.items()
        }
        times = interleaved(calls, options.repeats)
        for name, (_, _, weights, flops) in networks.items():
            quartiles = statistics.quantiles(times[name], n=4)
            rows.append(
                {
                    "network": model,
                    "batch": batch,
                    "row": name,
                    "weights": f"{weights:.1%}",
                    "million operations": round(flops * dense.flops / 1e6, 1),
                    "ms": round(statistics.median(times[name]) * 1e3, 2),
                    "quartiles": f"{quartiles[0] * 1e3:.2f} - {quartiles[2] * 1e3:.2f}",
                    "least": round(min(times[name]) * 1e3, 2),
                    **times_faster(times[DENSE], times[name]),
                }
            )
    return rows


if __name__ == "__main__":
    main()
