"""Values made by running the public code of related systems, and the order of their kernels."""

from functools import cache

import numpy as np
import pytest

from tests.helpers.datasets import SHARED


@cache
def _read(path):
    return dict(np.load(path))


def golden(name):
    """A file of golden/related/; skips the test where it is absent."""
    path = SHARED / "golden" / "related" / f"{name}.npz"
    if not path.exists():
        pytest.skip(f"{path.name} is not at hand: set FAIRGRAPE_SHARED to the folder of golden/")
    return _read(path)


def to_ours(kernel):
    """(outputs, inputs, H, W) or (outputs, inputs) to outputs last."""
    return np.moveaxis(kernel, (0, 1), (-1, -2))


def to_torch(kernel):
    """The inverse of `to_ours`."""
    return np.moveaxis(kernel, (-1, -2), (0, 1))
