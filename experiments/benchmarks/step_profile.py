"""Where the time of a training step goes, by kind of kernel, for networks and sizes.

Command:  python -m experiments.benchmarks.step_profile [--models resnet18 ...] [--sizes 28 64 ...]
          [--pixels 131072] [--repeats 3] [--json FILE]
A row for each network and size: milliseconds of a step, of all threads together, as XLA's profiler
counts them, and which part of them went into
  products     convolutions and matrix products
  pooling      maxima over windows, and their gradient
  copies       the same numbers in another order
  layers       the rest of the network: batch norm, activations, depthwise convolutions where they
               are sums of shifts, the loss, and their gradients
  update       the optimizer, masks, and the look for numbers that are not finite
A batch has as many images as come to `--pixels`, 32 at most. A size that a network refuses is said.
"""

from __future__ import annotations

import argparse
import collections
import re
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.benchmarks.timing import add_json, pictures, show
from fairgrape_jax import models, parallel
from fairgrape_jax.config import Experiment
from fairgrape_jax.data import batches, source
from fairgrape_jax.errors import UsageError
from fairgrape_jax.plan import hlo
from fairgrape_jax.rounds.session import initial_network, open_session
from fairgrape_jax.training import Carry

GROUPS = 7
# In order: the first that is true of a kernel's operations, and of what it was traced from.
KINDS = {
    "products": (r" (convolution|dot)\(", ""),
    "pooling": ("", "reduce_window|select_and_scatter|max_pool|pooling"),
    "layers": ("", r"jvp\("),
    "update": ("", ""),
}
ORDER = re.compile(r"[a-z]+\d*\[[\d,]*\]\S* (copy|transpose|bitcast|parameter|reshape)\(")


def main(arguments: list[str] | None = None) -> None:
    """Measure and print.

    Args:
        arguments: of the command line.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--models", nargs="+", default=list(models.MODELS), choices=models.MODELS)
    parser.add_argument("--sizes", type=int, nargs="+", default=[28, 64, 96, 128, 224])
    parser.add_argument("--pixels", type=int, default=2**17, help="of a batch")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="append the rows to this file")
    options = parser.parse_args(arguments)
    rows = []
    for model in options.models:
        for size in options.sizes:
            try:
                rows.append(measure(model, size, options.pixels, options.repeats))
            except UsageError as refusal:
                print(f"{model}, {size} pixels: {refusal}", flush=True)
                continue
            print(rows[-1], flush=True)
            jax.clear_caches()
    show(rows)
    add_json(options.json, vars(options), rows)


def measure(model: str, size: int, pixels: int, repeats: int) -> dict[str, Any]:
    """The row of a network at a size.

    Args:
        model: of the table.
        size: pixels of a side.
        pixels: of a batch, about.
        repeats: steps.
    """
    batch = max(1, min(32, pixels // size**2))
    dataset = pictures(GROUPS, max(2, -(-batch // GROUPS)), size)
    experiment = Experiment(source("synthetic"), model, batch=batch)
    session = open_session(experiment, dataset, parallel.local_devices(1))
    network = initial_network(session, 0)
    samples = next(batches.train_batches(dataset.train, batch, 0, 0))
    samples = parallel.split_batch(samples, session.devices)
    train: Any = session.steps.train
    rate, carry = np.float32(1e-3), Carry(network.state)
    step = train.lower(carry, network.masks, samples, rate).compile()
    kinds = kinds_of(step.as_text())
    carry, _ = jax.block_until_ready(step(carry, network.masks, samples, rate))
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(repeats):
                carry, _ = jax.block_until_ready(step(carry, network.masks, samples, rate))
        spent = milliseconds(Path(folder), kinds)
    total = spent.total()
    parts = {kind: round(100 * spent[kind] / total) for kind in (*KINDS, "copies")}
    return {"row": model, "pixels": size, "batch": batch, "ms": round(total / repeats), **parts}


def kinds_of(program: str) -> dict[str, str]:
    """Of each operation of a compiled program, by its name, what kind of work it does.

    Args:
        program: its text.
    """
    bodies = {
        name: [line for line in body.splitlines() if re.match(r"\s+(?:ROOT )?%[\w.\-]+ = ", line)]
        for name, body in hlo.computations(program).items()
    }
    return {
        named[1]: kind_of(line, bodies)
        for body in bodies.values()
        for line in body
        if (named := re.match(r"\s+(?:ROOT )?%([\w.\-]+) = ", line))
    }


def kind_of(line: str, bodies: dict[str, list[str]]) -> str:
    """What kind of work an operation does.

    Args:
        line: of the program's text.
        bodies: the lines of the computations that it may call, by their names.
    """
    called = re.search(r"calls=%([\w.\-]+)", line)
    inner = bodies.get(called[1], []) if called else [line]
    if all(ORDER.search(each) for each in inner):
        return "copies"
    operations, origin = "\n".join(inner), " ".join(re.findall(r'op_name="([^"]*)"', line))
    return next(
        kind
        for kind, (does, traced) in KINDS.items()
        if re.search(does, operations) and re.search(traced, origin)
    )


def milliseconds(folder: Path, kinds: dict[str, str]) -> collections.Counter[str]:
    """What a recorded program spent on each kind, all threads together.

    Args:
        folder: that the profiler wrote to.
        kinds: of the operations, by their names.
    """
    (path,) = folder.rglob("*.xplane.pb")
    spent: collections.Counter[str] = collections.Counter()
    for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
        for line in plane.lines:
            for event in line.events:
                operation = dict(event.stats).get("hlo_op")
                # A loop's time is that of the operations in it.
                if operation in kinds and not operation.startswith(("while", "call")):
                    spent[kinds[operation]] += event.duration_ns / 1e6
    return spent


if __name__ == "__main__":
    main()
