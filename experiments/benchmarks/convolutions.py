"""Every convolution of a network's forward and backward pass: XLA's own beside ours, on a CPU.

Command:  python -m experiments.benchmarks.convolutions [--model resnet18] [--size 64] [--batch 32]
          [--repeats 5] [--json FILE]
A row for each different convolution: its input and kernel, how many of them, and the least
milliseconds of each form; at the end the sums over all of them.
"""

from __future__ import annotations

import argparse
import functools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from experiments.benchmarks.timing import add_json, seconds, show
from fairgrape_jax import models
from fairgrape_jax.models.convolution import conv_general_dilated


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="resnet18", choices=models.MODELS)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="append the rows to this file")
    options = parser.parse_args()
    counted = Counter(convolutions(gradient(options)))
    rows = [measure(options, *each) | {"times": count} for each, count in counted.items()]
    show(rows)
    for name in ("XLA, ms", "ours, ms"):
        print(f"all, {name}: {sum(row['times'] * row[name] for row in rows):.0f}")
    add_json(options.json, vars(options), rows)


def gradient(options: argparse.Namespace) -> Any:
    """The program of the gradient for all parameters, of a sum of logits in training mode."""
    module = models.create(options.model, 7)
    images = jax.ShapeDtypeStruct((options.batch, options.size, options.size, 3), jnp.float32)
    variables = jax.eval_shape(module.init, jax.random.key(0), images)

    def total(params: Any, batch_stats: Any, pixels: jax.Array) -> jax.Array:
        network = {"params": params, "batch_stats": batch_stats}
        keys = {"dropout": jax.random.key(0)}
        logits, _ = module.apply(network, pixels, train=True, mutable=["batch_stats"], rngs=keys)
        return logits.sum()

    stats = variables.get("batch_stats", {})
    return jax.make_jaxpr(jax.grad(total))(variables["params"], stats, images).jaxpr


def convolutions(program: Any) -> Iterator[tuple[Any, Any, Any]]:
    """Shapes of input and kernel, and parameters, of every convolution within a program."""
    for equation in program.eqns:
        if equation.primitive.name == "conv_general_dilated":
            shapes = [variable.aval.shape for variable in equation.invars]
            yield (
                shapes[0],
                shapes[1],
                tuple(sorted(equation.params.items(), key=lambda item: item[0])),
            )
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from convolutions(inner)


def measure(options: argparse.Namespace, lhs: Any, rhs: Any, params: Any) -> dict[str, Any]:
    """A row of the table."""
    rng = np.random.default_rng(0)
    arrays = [jnp.asarray(rng.standard_normal(shape, np.float32)) for shape in (lhs, rhs)]
    forms = {"XLA, ms": lax.conv_general_dilated, "ours, ms": conv_general_dilated}
    row: dict[str, Any] = {"input": lhs, "kernel": rhs}
    for name, form in forms.items():
        compiled = jax.jit(functools.partial(form, **dict(params)))
        compiled(*arrays)  # not counted: it compiles
        work = functools.partial(compiled, *arrays)
        row[name] = round(1e3 * min(seconds(work) for _ in range(options.repeats)), 2)
    return row


if __name__ == "__main__":
    main()
