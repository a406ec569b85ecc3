"""What the tests of data share: real files, where they are at hand, and small splits."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from fairgrape_jax.data.dataset import Dataset, Split
from fairgrape_jax.data.sources import prepared

ROOT = Path(__file__).resolve().parents[2]
GOLDEN_FILES = ROOT / "tests" / "golden"
SHARED = Path(os.environ.get("FAIRGRAPE_SHARED", ROOT.parent / "shared"))


def shared(name: str) -> Path:
    """A folder of real data beside the project; skips the test where it is absent."""
    path = SHARED / "data" / name
    if not path.exists():
        pytest.skip(f"data/{name} is not at hand: set FAIRGRAPE_SHARED to the folder that holds it")
    return path


def assert_same(a: Dataset, b: Dataset) -> None:
    for name in ("train", "validation", "test"):
        for field in ("images", "labels", "groups"):
            x, y = (getattr(getattr(d, name), field) for d in (a, b))
            assert x.dtype == y.dtype
            np.testing.assert_array_equal(x, y)
    assert (a.tasks, a.groups, a.notes) == (b.tasks, b.groups, b.notes)


def split_of(counts: list[int]) -> Split:
    """Shuffled groups of the given sizes; every label is its sample's number."""
    groups = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    n = len(groups)
    numbers = np.arange(n, dtype=np.int32)[:, None]
    return Split(np.zeros((n, 2, 2, 1), np.uint8), numbers, groups.astype(np.int32))


def made(name, place, data_dir, called="", shard_bytes=8_000, **options) -> Path:
    """A dataset prepared from the folder `place`, in small shards."""
    from fairgrape_jax.data.builders import builder
    from fairgrape_jax.data.builders.prepare import prepare

    given = builder(name).options(**options)
    return prepare(
        name, place, given, data_dir=data_dir, called=called, shard_bytes=shard_bytes
    ).directory


def source(data_dir: Path, name: str, **options) -> prepared.Prepared:
    """The options that read it, as pictures of 16 pixels."""
    return prepared.Prepared(path=str(data_dir), dataset=name, **{"size": 16} | options)
