"""Plugins as a user would write them, and tables that are as before when a test is over."""

import contextlib
from pathlib import Path

import pytest

from fairgrape_jax.config.registered import TABLES

METHOD = '''"""A method of one's own: the smallest weights."""
import jax
import numpy as np

import fairgrape_jax as fg
from fairgrape_jax.masks import select_prunable
from fairgrape_jax.methods import Method


def score(problem):
    return jax.tree.map(lambda w: -np.abs(w), select_prunable(problem.masks, problem.params))


fg.register("method", "smallest", Method("smallest |w|", score))
'''
METRICS = '''"""Metrics of one's own."""
import numpy as np

import fairgrape_jax as fg
from fairgrape_jax.metrics import group_accuracy


def middle_group(counts, dense):
    """Median over groups of accuracy."""
    return np.median(group_accuracy(counts, dense), axis=-1)


def group_twice(counts, dense):
    """Twice the accuracy of each group."""
    return 2 * group_accuracy(counts, dense)


fg.register("metric", "middle_group", middle_group)
fg.register("metric", "group_twice", group_twice)
'''
DATASET = '''"""A dataset and a network of one's own."""
from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import linen as nn

import fairgrape_jax as fg
from fairgrape_jax import data
from fairgrape_jax.data.sources.synthetic import Synthetic


@dataclasses.dataclass(frozen=True)
class MyNpz(data.Source):
    """Pictures of mine."""

    count: int = 200
    """How many."""

    name: ClassVar[str] = "my_npz"


def load(source, progress=None, reading=None):
    return data.load(Synthetic(samples=source.count, groups=2, classes=2, size=8))


class Small(nn.Module):
    """A network of mine."""

    num_classes: int
    axis_name: str | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.Dense(16, dtype=self.dtype, name="fc1")(x.reshape(len(x), -1)))
        return nn.Dense(self.num_classes, dtype=self.dtype, name="fc2")(x).astype(jnp.float32)


fg.register("dataset", "my_npz", (MyNpz, load))
fg.register("model", "small", Small)
'''


@contextlib.contextmanager
def tables_as_before():
    """Rows that the body registers are gone afterwards."""
    before = {kind: set(table) for kind, table in TABLES.items()}
    try:
        yield
    finally:
        forget(before)


def forget(before=None):
    """Take out the rows from outside, as a new process would not have them."""
    for kind, table in TABLES.items():
        for name in set(table.origins) - (before or {}).get(kind, set()):
            table.unregister(name)


@pytest.fixture
def tables():
    with tables_as_before():
        yield


def install(folder, distribution, module, code, entry_points, version="1.0"):
    """An installed package with one module, as pip leaves it in a folder of the module path."""
    folder.mkdir(exist_ok=True, parents=True)
    (folder / f"{module}.py").write_text(code)
    info = Path(folder) / f"{distribution.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
    )
    lines = []
    for group, rows in entry_points.items():
        lines += [f"[fairgrape_jax.{group}]", *(f"{name} = {row}" for name, row in rows.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
