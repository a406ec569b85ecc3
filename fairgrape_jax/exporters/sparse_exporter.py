"""The exporter of sparse storage: what it writes, reads back and reports."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from rich.filesize import decimal

from fairgrape_jax.errors import UsageError
from fairgrape_jax.exporters.arrays import check_safetensors
from fairgrape_jax.exporters.base import (
    Exporter,
    Model,
    Options,
    leaves,
    mask_leaves,
    with_leaves,
)
from fairgrape_jax.exporters.sparse import NAME, read, sizes, write
from fairgrape_jax.masks import Tree


def _check(model: Model) -> None:
    check_safetensors(model)
    if not mask_leaves(model):
        raise UsageError("--to sparse: no weight is pruned; give masks=, or another format")


def _stored(model: Model, options: Options) -> Tree:
    """The variables as the file holds them: with weights of pruned layers rounded, if so chosen."""
    if options.values == "exact":
        return model.variables
    arrays = leaves(model.variables)
    for name in mask_leaves(model):
        with np.errstate(over="ignore"):
            rounded = arrays[name].astype(np.float16)
        if not np.isfinite(rounded).all():
            raise UsageError(f"values float16: {name!r} holds weights beyond 65,504; give exact")
        arrays[name] = rounded.astype(arrays[name].dtype)
    return with_leaves(model.variables, arrays)


def _write(model: Model, folder: Path, options: Options) -> None:
    arrays, masks = leaves(_stored(model, options)), mask_leaves(model)
    if options.values == "float16":
        arrays |= {name: arrays[name].astype(np.float16) for name in masks}
    write(folder / NAME, arrays, masks)


def _read(model: Model, folder: Path) -> Tree:
    arrays, masks = read(folder / NAME)
    expected = leaves(model.variables)
    for name, mask in mask_leaves(model).items():
        if name not in masks or not np.array_equal(masks[name], mask):
            raise UsageError(f"the mask of {name!r} is another one")
        arrays[name] = arrays[name].astype(expected[name].dtype)
    return with_leaves(model.variables, arrays)


def _report(model: Model, folder: Path) -> list[str]:
    begun = time.perf_counter()
    read(folder / NAME)
    seconds = time.perf_counter() - begun
    took = sizes((folder / NAME).read_bytes())
    return [
        f"{NAME}: {decimal(took.file)}, {took.file / took.bound:.2f} of the entropy of its masks "
        f"and values; dense {decimal(took.dense)}, zipped {decimal(took.zipped)}; "
        f"read in {seconds:.2f} s"
    ]


EXPORTER = Exporter(
    "masks and what is left of the weights, in nearly their entropy",
    _write,
    _read,
    _check,
    stored=_stored,
    report=_report,
)
