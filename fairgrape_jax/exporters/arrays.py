"""Weights as npz and safetensors files, and masks alone, by the names of the network's leaves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors.numpy import save

from fairgrape_jax import storage
from fairgrape_jax.errors import UsageError
from fairgrape_jax.exporters.base import (
    Exporter,
    Model,
    Options,
    leaf_name,
    leaves,
    mask_leaves,
    with_leaves,
)
from fairgrape_jax.masks import Tree, pack, unpack
from fairgrape_jax.models import weights

NPZ, SAFETENSORS, MASKS = "model.npz", "model.safetensors", "masks.npz"
SHAPE = ".shape"  # the shape of packed masks, behind the name


def write_safetensors(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write a safetensors file, there whole or not at all.

    Args:
        path: The file.
        arrays: Of any order in memory, and any type of `weights.DTYPES`.
    """
    # The library writes the bytes of an array as they lie, whatever their order.
    content = save({k: np.ascontiguousarray(v).reshape(v.shape) for k, v in arrays.items()})
    with storage.atomic_write(path) as partial:
        partial.write_bytes(content)


def check_safetensors(model: Model) -> None:
    """Refuse what safetensors cannot hold.

    Args:
        model: What is exported.

    Raises:
        UsageError: An array of a type that the format does not have.
    """
    _check_types(model, {str(np.dtype(kind)) for kind in weights.DTYPES.values()}, "safetensors")


def _check_npz(model: Model) -> None:
    plain = "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64"
    _check_types(model, {*plain.split(), "complex64", "complex128"}, "npz")


def _check_types(model: Model, known: set[str], form: str) -> None:
    for name, leaf in leaves(model.variables).items():
        if str(leaf.dtype) not in known:
            raise UsageError(
                f"--to {form}: {name!r} is {leaf.dtype}, which such a file cannot hold; give "
                "another format, or parameters of another type"
            )


def _check_masks(model: Model) -> None:
    if not mask_leaves(model):
        raise UsageError("--to masks: there are none; give masks=")


def _write_npz(model: Model, folder: Path, options: Options) -> None:
    storage.write_arrays(folder / NPZ, leaves(model.variables))


def _read_npz(model: Model, folder: Path) -> Tree:
    return with_leaves(model.variables, storage.read_arrays(folder / NPZ))


def _write_safetensors(model: Model, folder: Path, options: Options) -> None:
    write_safetensors(folder / SAFETENSORS, leaves(model.variables))


def _read_safetensors(model: Model, folder: Path) -> Tree:
    return with_leaves(model.variables, weights.read(folder / SAFETENSORS))


def _write_masks(model: Model, folder: Path, options: Options) -> None:
    arrays: dict[str, np.ndarray] = {}
    for name, mask in mask_leaves(model).items():
        arrays[name] = pack(mask)
        arrays[name + SHAPE] = np.asarray(mask.shape, np.int64)
    storage.write_arrays(folder / MASKS, arrays)


def read_masks(path: Path) -> dict[str, np.ndarray]:
    """The masks of a file.

    Args:
        path: A file that `--to masks` wrote.

    Returns:
        Bool arrays by the names of their leaves.
    """
    stored = storage.read_arrays(path)
    names = [name for name in stored if name + SHAPE in stored]
    return {name: unpack(stored[name], stored[name + SHAPE].tolist()) for name in names}


def _read_masks(model: Model, folder: Path) -> Tree:
    """The weights of the network under the masks of the file."""
    masks, expected = read_masks(folder / MASKS), mask_leaves(model)
    if masks.keys() != expected.keys():
        raise UsageError("the masks are of other leaves")
    for name, mask in expected.items():
        if not np.array_equal(mask, masks[name]):
            raise UsageError(f"the mask of {name!r} is another one")

    def masked(path: Any, leaf: Any) -> Any:
        mask = masks.get(leaf_name(path))
        return leaf if mask is None else np.where(mask, leaf, np.zeros_like(leaf))

    return jax.tree_util.tree_map_with_path(masked, model.variables)


NPZ_EXPORTER = Exporter("weights, for any NumPy", _write_npz, _read_npz, _check_npz)
SAFETENSORS_EXPORTER = Exporter(
    "weights, read by every framework and executing nothing",
    _write_safetensors,
    _read_safetensors,
    check_safetensors,
)
MASKS_EXPORTER = Exporter("masks alone, as packed bits", _write_masks, _read_masks, _check_masks)
