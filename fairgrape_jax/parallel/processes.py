"""What the processes of a run tell each other: values, checksums, rows."""

from __future__ import annotations

import zlib
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from fairgrape_jax.masks import Array, Tree

T = TypeVar("T")


def process_index_and_count() -> tuple[int, int]:
    """The number of this process, and of all: which part of every batch it reads, of how many."""
    return jax.process_index(), jax.process_count()


def broadcast_from_process_0(tree: T) -> T:
    """The NumPy values of process 0, on every process; all wait for each other.

    For what must not differ by a clock, a file system or a processor.

    Args:
        tree: a pytree of arrays or plain numbers, of the same shapes on every process.

    Returns:
        The tree of process 0 in NumPy arrays, of the same dtypes; `tree` itself where there is one
        process.
    """
    if jax.process_count() == 1:
        return tree
    values, structure = jax.tree.flatten(jax.tree.map(np.asarray, tree))
    # As bytes: no conversion on the way, no dtype that a device lacks.
    sent = np.concatenate([np.frombuffer(value.tobytes(), np.uint8) for value in values])
    received = np.asarray(multihost_utils.broadcast_one_to_all(sent))
    ends = np.cumsum([value.nbytes for value in values])[:-1]
    pieces = zip(np.split(received, ends), values, strict=True)
    copies = [np.frombuffer(p.tobytes(), v.dtype).reshape(v.shape) for p, v in pieces]
    return jax.tree.unflatten(structure, copies)


def checksum(tree: Tree) -> int:
    """A CRC-32 of the shapes, dtypes and values of a pytree of arrays.

    Args:
        tree: a pytree of arrays.

    Example:
        >>> checksum(None), checksum([np.zeros(2)]) == checksum([np.zeros(2, np.float32)])
        (0, False)
    """
    crc = 0
    for value in jax.tree.leaves(tree):
        array = np.asarray(value)
        crc = zlib.crc32(f"{array.shape}{array.dtype}".encode(), crc)
        crc = zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data, crc)
    return crc


def processes_agree(tree: Tree) -> bool:
    """Whether every process holds the same values, bit for bit; all get the same answer.

    Args:
        tree: a pytree of arrays, any on each process: what is compared is a checksum.
    """
    if jax.process_count() == 1:
        return True
    return len(np.unique(all_gather_rows(np.full((1, 1), checksum(tree), np.uint32)))) == 1


def all_gather_rows(rows: Array) -> np.ndarray:
    """The rows of every process, one below the other, by process; all wait for each other.

    Args:
        rows: an array (R, ...), of the same shape and of at most 32 bits on every process.

    Returns:
        A NumPy array (processes * R, ...) of the same dtype.
    """
    return np.asarray(multihost_utils.process_allgather(np.asarray(rows), tiled=True))
