"""Convolutions of few or odd numbers of channels on a CPU: XLA's own, and on `padded_widths`.

Command:  python -m experiments.benchmarks.channels [--channels 3 15] [--features 24 48]
          [--shapes 32,3,1,8 ...] [--repeats 5] [--json FILE]
Shapes are pixels, side of the kernel, stride and batch. Printed for each shape and for few (16 at
most) and many features: in how many of all cases the widths are padded, and how many times as long
XLA's own convolution takes there, at least, in the median, at most.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from experiments.benchmarks.timing import add_json, interleaved, machine, show
from fairgrape_jax.models.convolution import conv_general_dilated, padded_widths

CHANNELS = (1, 2, 3, 4, 5, 6, 7, 9, 10, 14, 15, 18, 22, 23, 30, 31, 45, 50, 63, 101)
FEATURES = (
    *(1, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 45, 48, 50),
    *(56, 60, 64, 68, 72, 80, 90, 96, 100, 112, 120, 128),
)
SHAPES = ("32,3,1,8", "32,3,2,8", "32,7,2,8", "8,3,1,64")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--channels", type=int, nargs="+", default=CHANNELS)
    parser.add_argument("--features", type=int, nargs="+", default=FEATURES)
    parser.add_argument("--shapes", nargs="+", default=SHAPES)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="append the rows to this file")
    options = parser.parse_args()
    rows = [row for shape in options.shapes for row in summaries(shape, options)]
    show(rows)
    print(machine())
    add_json(options.json, vars(options), rows)


def summaries(shape: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for few features, and one for many."""
    rows = []
    for name, few in (("1 to 16", True), ("more", False)):
        features = [count for count in options.features if (count <= 16) == few]
        cases = list(itertools.product(options.channels, features))
        padded = [case for case in cases if padded_widths(*case) != case]
        ratios = [ratio(shape, *case, options.repeats) for case in padded]
        row = {"row": shape, "features": name, "cases": len(cases), "padded": len(padded)}
        for word, function in (("least", min), ("median", statistics.median), ("most", max)):
            row[word] = round(function(ratios), 2) if ratios else ""
        rows.append(row)
    return rows


def ratio(shape: str, channels: int, features: int, repeats: int) -> float:
    """The least seconds of XLA's convolution over those of the padded one, in turn."""
    side, kernel, stride, batch = map(int, shape.split(","))
    pictures = jnp.ones((batch, side, side, channels))
    weights = jnp.ones((kernel, kernel, channels, features))
    options: dict[str, Any] = {
        "window_strides": (stride, stride),
        "padding": "SAME",
        "dimension_numbers": ("NHWC", "HWIO", "NHWC"),
    }
    calls: dict[str, Callable[[], Any]] = {
        name: functools.partial(jax.jit(functools.partial(convolve, **options)), pictures, weights)
        for name, convolve in (("XLA", lax.conv_general_dilated), ("padded", conv_general_dilated))
    }
    whole, padded = interleaved(calls, repeats).values()
    return min(whole) / min(padded)


if __name__ == "__main__":
    main()
