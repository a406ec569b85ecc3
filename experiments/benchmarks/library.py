"""What importance of any loss costs beside single gradient passes over the same samples.

Command:  python -m experiments.benchmarks.library [--models mlp cnn resnet18] [--groups 7]
          [--batch 224] [--batches 3] [--repeats 5] [--json FILE]
Rows, in turn in one run, in CPU seconds of the process, with their ratio to the first one:
  gradient pass             the gradient of the mean loss of every batch, nothing added up
  pure                      importance of all groups, batches cut into parts of one group each
  pure, micro_batch=N       the same with parts of one size, regrouped across batches: of the size
                            that a group has in a batch on average, and of a whole batch
  vmap                      the definition: each batch passed once for every group
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import fairgrape_jax as fg
from experiments.benchmarks.timing import add_json, show, table
from fairgrape_jax import models

BASE = "gradient pass"
SHAPES = {"mlp": (28, 28, 1), "cnn": (28, 28, 1), "resnet18": (32, 32, 3)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--groups", type=int, default=7)
    parser.add_argument("--batch", type=int, default=224)
    parser.add_argument("--batches", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--no-vmap", action="store_true", help="leave out the slow last row")
    parser.add_argument("--json", type=Path, help="append the rows to this file")
    options = parser.parse_args()
    rows = []
    for name in options.models:
        rows += [row | {"model": name} for row in measure(options, name)]
    add_json(options.json, vars(options), rows)


def measure(options: argparse.Namespace, name: str) -> list[dict[str, Any]]:
    """All rows of one network, printed."""
    module, shape = models.create(name, 10), SHAPES[name]
    variables = jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, *shape)))
    params, rest = variables["params"], {k: v for k, v in variables.items() if k != "params"}

    def loss_fn(params: Any, batch: Any) -> jax.Array:
        logits = module.apply({"params": params, **rest}, batch[0], train=False)
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch[1])

    masks, batches = fg.full_masks(params), drawn(options, shape)
    gradient = jax.jit(jax.grad(lambda params, batch: loss_fn(params, batch).mean()))

    def passes() -> Any:
        return [gradient(params, jax.device_put(batch)) for batch, _ in batches][-1]

    def importance(**form: Any) -> Callable[[], Any]:
        return lambda: fg.average_importance(
            loss_fn, params, masks, batches, num_groups=options.groups, **form
        )

    part = max(1, options.batch // options.groups)
    work = {
        BASE: passes,
        "pure": importance(),
        f"pure, micro_batch={part}": importance(micro_batch=part),
        f"pure, micro_batch={options.batch}": importance(micro_batch=options.batch),
        "vmap": importance(form="vmap"),
    }
    if options.no_vmap:
        del work["vmap"]
    rows = table(interleaved(work, options.repeats), BASE)
    weights = sum(leaf.size for leaf in jax.tree.leaves(masks))
    print(
        f"\n{name}, {weights:,} weights, {options.batches} batches of {options.batch} pictures "
        f"{'x'.join(map(str, shape))}, {options.groups} groups, CPU seconds:"
    )
    show(rows)
    return rows


def drawn(options: argparse.Namespace, shape: tuple[int, ...]) -> list[Any]:
    """Random batches with their groups."""
    rng = np.random.default_rng(0)
    size = options.batch
    return [
        (
            (rng.normal(size=(size, *shape)).astype(np.float32), rng.integers(0, 10, size)),
            rng.integers(0, options.groups, size),
        )
        for _ in range(options.batches)
    ]


def interleaved(work: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """CPU seconds of each row, `repeats` times in turn after one call that is not counted."""
    for each in work.values():
        jax.block_until_ready(each())
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(repeats):
        for name, each in work.items():
            started = time.process_time()
            jax.block_until_ready(each())
            times[name].append(time.process_time() - started)
    return times


if __name__ == "__main__":
    main()
