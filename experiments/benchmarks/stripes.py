"""What cut stripes buy: a call of the dense network, of the masked one, and over its stripes.

Command:  python -m experiments.benchmarks.stripes [--models cnn resnet18] [--size 32]
          [--batches 1 64] [--left 0.5 0.25 0.1] [--repeats 15] [--json FILE]
Stripes are those of largest part in the magnitudes of their filter (`stripes`), of drawn weights,
at uniform densities of the stripes of every layer but the head. Rows are called in turn; "times
faster" is the median of dense over this row, side by side, and of the least ones.
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

from experiments.benchmarks.timing import add_json, interleaved, machine, show, times_faster
from fairgrape_jax import models
from fairgrape_jax.masks import apply_masks, full_masks
from fairgrape_jax.methods import METHODS, Problem, prune
from fairgrape_jax.methods.unit_flops import operations, weight_costs
from fairgrape_jax.rounds.parameters import prunable_layers
from fairgrape_jax.systems.stripped import strip_network

DENSE = "dense"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["cnn", "resnet18"])
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--left", type=float, nargs="+", default=[0.5, 0.25, 0.1])
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
    shape = (options.size, options.size, 1 if model in ("cnn", "mlp") else 3)
    images = jnp.zeros((1, *shape))
    variables = jax.jit(module.init)(jax.random.key(0), images)
    params = jax.device_get(variables["params"])
    full = full_masks(params)
    layers = tuple(prunable_layers(_names(params), params).values())
    problem = Problem(params, full, module=module, shape=shape, layers=layers)
    costs = weight_costs(problem)
    networks: dict[str, tuple[Callable[..., Any], Any, float, float]] = {
        DENSE: (jax.jit(module.apply), variables, 1.0, 1.0)
    }
    sizes = _sizes(full, costs)
    for left in options.left:
        masks = prune(METHODS["stripes"], problem, left)
        counts = _sizes(masks, costs)
        parts = sum(counts.values()) / sum(sizes.values())
        flops = operations(counts, costs) / operations(sizes, costs)
        masked = dict(variables) | {"params": apply_masks(masks, params)}
        stripped = strip_network(module, variables, masks, images)
        networks[f"{left:.0%} of the stripes, masked"] = (jax.jit(module.apply), masked, parts, 1.0)
        networks[f"{left:.0%} of the stripes alone"] = (
            jax.jit(stripped.apply),
            jax.device_put(stripped.variables),
            parts,
            flops,
        )
    rows = []
    for batch in options.batches:
        x = jnp.asarray(np.random.default_rng(0).standard_normal((batch, *shape), np.float32))
        calls: dict[str, Callable[[], Any]] = {
            name: functools.partial(function, held, x)
            for name, (function, held, _, _) in networks.items()
        }
        times = interleaved(calls, options.repeats)
        for name, (_, _, weights, flops) in networks.items():
            rows.append(
                {
                    "network": model,
                    "batch": batch,
                    "row": name,
                    "weights": f"{weights:.1%}",
                    "operations": f"{flops:.1%}",
                    "ms": round(statistics.median(times[name]) * 1e3, 2),
                    "least": round(min(times[name]) * 1e3, 2),
                    **times_faster(times[DENSE], times[name]),
                }
            )
    return rows


def _names(params: Any) -> tuple[str, ...]:
    """The names of all parameters, the head's last."""
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    names = ["/".join(key.key for key in path) for path in paths]
    return tuple(sorted(names, key=lambda name: name.startswith("fc")))


def _sizes(masks: Any, costs: dict[str, int]) -> dict[str, int]:
    """The weights of each layer that are alive."""
    leaves = jax.tree.leaves(masks)
    return {name: int(np.sum(mask)) for name, mask in zip(costs, leaves, strict=True)}


if __name__ == "__main__":
    main()
