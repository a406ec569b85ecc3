"""Patterns that hardware is fast with: at most N of every M weights, or whole tiles.

A kernel is looked at as a matrix of (inputs, outputs), the inputs of a convolution in the order
(height, width, channel). A block of N:M lies along the inputs of one output, as sparse tensor cores
read it; with `offset` its weights are that far apart, 128 for the lanes of a TPU.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Int, Shaped

from fairgrape_jax.masks import Array, Masks

NumpyBlocks = Int[np.ndarray, " n"]


@dataclasses.dataclass(frozen=True)
class NofM:
    """At most `kept` of every `of` weights along the inputs: 2:4, 1:4."""

    kept: int = 2
    """N."""
    of: int = 4
    """M."""
    offset: int = 1
    """How far apart the weights of a block are."""

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong with its fields."""
        if not 0 < self.kept < self.of:
            yield "kept", f"{self.kept}:{self.of} is no pattern; give N:M with 0 < N < M"
        if self.offset < 1:
            yield "offset", f"{self.offset} is less than 1"

    def __str__(self) -> str:
        return f"{self.kept}:{self.of}" + (f"@{self.offset}" if self.offset > 1 else "")


@dataclasses.dataclass(frozen=True)
class Tiles:
    """Weights are kept or pruned in whole tiles of the matrix; those at its edge are smaller."""

    inputs: int = 4
    """Rows of a tile."""
    outputs: int = 4
    """Columns of a tile."""

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong with its fields."""
        if min(self.inputs, self.outputs) < 1 or self.inputs * self.outputs < 2:
            yield "inputs", f"{self} is no tile of two or more weights"

    def __str__(self) -> str:
        return f"{self.inputs}x{self.outputs}"


Pattern = NofM | Tiles


class Limits(NamedTuple):
    """How many weights the blocks of a layer keep.

    Attributes:
        blocks: the number of each weight's block, from 0.
        least: of each block.
        most: of each block.
    """

    blocks: NumpyBlocks
    least: Int[np.ndarray, " blocks"]
    most: Int[np.ndarray, " blocks"]


def parse_n_of_m(word: str) -> NofM | None:
    """N of M as a word.

    Args:
        word: none, N:M, or N:M@OFFSET.

    Raises:
        ValueError: another word.

    Example:
        >>> parse_n_of_m("2:4"), parse_n_of_m("none")
        (NofM(kept=2, of=4, offset=1), None)
    """
    if word in ("", "none"):
        return None
    numbers = re.fullmatch(r"(\d+):(\d+)(?:@(\d+))?", word, re.ASCII)
    if not numbers:
        raise ValueError(f"{word!r} is not none, N:M or N:M@OFFSET (2:4, 1:4@128)")
    pattern = NofM(*(int(number) for number in numbers.groups(default="1")))
    check_pattern(pattern)
    return pattern


def parse_tiles(word: str) -> Tiles | None:
    """Tiles as a word.

    Args:
        word: none, or ROWSxCOLUMNS.

    Raises:
        ValueError: another word.

    Example:
        >>> parse_tiles("4x1"), parse_tiles("none")
        (Tiles(inputs=4, outputs=1), None)
    """
    if word in ("", "none"):
        return None
    numbers = re.fullmatch(r"(\d+)x(\d+)", word, re.ASCII)
    if not numbers:
        raise ValueError(f"{word!r} is not none or ROWSxCOLUMNS (4x4)")
    pattern = Tiles(*map(int, numbers.groups()))
    check_pattern(pattern)
    return pattern


def parse_pattern(word: str) -> Pattern | None:
    """Any pattern as a word.

    Args:
        word: none, N:M, N:M@OFFSET, or ROWSxCOLUMNS for tiles.

    Raises:
        ValueError: another word.

    Example:
        >>> parse_pattern("1:4@128"), parse_pattern("4x4")
        (NofM(kept=1, of=4, offset=128), Tiles(inputs=4, outputs=4))
    """
    return parse_tiles(word) if "x" in word else parse_n_of_m(word)


def check_pattern(pattern: Pattern) -> None:
    """ValueError for numbers that make no pattern.

    Args:
        pattern: what is checked.
    """
    for _, problem in pattern.problems():
        raise ValueError(f"pattern: {problem}")


def outputs_first(masks: Masks) -> list[bool]:
    """Whether the first axis of a kernel is that of its outputs, for every layer.

    It is in Equinox's and PyTorch's order, whose kernels are called weight; in all others the last.

    Args:
        masks: bool leaves, None where not prunable.

    Example:
        >>> alive = np.ones((2, 2), bool)
        >>> outputs_first({"a": {"kernel": alive}, "b": {"weight": alive}})
        [False, True]
    """
    paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(masks)[0]]
    return [jax.tree_util.keystr(path).rstrip("']").endswith("weight") for path in paths]


def as_matrix(
    kernel: Shaped[Array, "*w"], outputs_first: bool = False
) -> Shaped[np.ndarray, "inputs outputs"]:
    """A kernel as a matrix of (inputs, outputs), the channel the fastest of the inputs.

    Args:
        kernel: (..., inputs, outputs), or (outputs, inputs, ...) if `outputs_first`.
        outputs_first: which of the two.

    Example:
        >>> as_matrix(np.arange(8).reshape(2, 2, 2)).tolist()
        [[0, 1], [2, 3], [4, 5], [6, 7]]
        >>> as_matrix(np.arange(8).reshape(2, 2, 2), outputs_first=True).tolist()
        [[0, 4], [2, 6], [1, 5], [3, 7]]
    """
    array = np.asarray(kernel)
    if outputs_first:
        array = np.moveaxis(array, (0, 1), (-1, -2)) if array.ndim > 1 else array
    return array.reshape(math.prod(array.shape[:-1]), array.shape[-1])


def block_numbers(
    pattern: Pattern, shape: Sequence[int], outputs_first: bool = False
) -> NumpyBlocks:
    """The number of the block or tile of each weight of a kernel.

    Args:
        pattern: whose blocks.
        shape: of the kernel.
        outputs_first: as for `as_matrix`.

    Returns:
        In the order of the kernel's elements, from 0 without a gap.

    Example:
        >>> block_numbers(NofM(1, 2), (4, 1)), block_numbers(NofM(1, 2, offset=2), (4, 1))
        (array([0, 0, 1, 1]), array([0, 1, 0, 1]))
        >>> block_numbers(Tiles(2, 1), (3, 2))
        array([0, 1, 0, 1, 2, 3])
    """
    places = as_matrix(np.arange(math.prod(shape)).reshape(shape), outputs_first)
    rows, columns = (np.arange(n) for n in places.shape)
    if isinstance(pattern, NofM):
        whole = pattern.of * pattern.offset
        row = rows // whole * pattern.offset + rows % pattern.offset
        column, per_row = columns, len(columns)
    else:
        row, column = rows // pattern.inputs, columns // pattern.outputs
        per_row = -(-len(columns) // pattern.outputs)
    numbers = np.empty(places.size, np.int64)
    numbers[places] = row[:, None] * per_row + column
    return numbers


def limits(
    pattern: NofM, blocks: NumpyBlocks, previous: Bool[np.ndarray, " n"], keep: int
) -> Limits:
    """How many weights each block keeps where `keep` of all are kept.

    At most N of M. While more are kept than that allows, in the rounds before the last, all blocks
    keep the same number but for one weight, so that no block is short later: 3:4 comes before 2:4.

    Args:
        pattern: N of M.
        blocks: the number of each weight's block.
        previous: the weights alive.
        keep: how many to keep, not more than are alive.

    Example:
        >>> limits(NofM(2, 4), np.repeat([0, 1], 4), np.ones(8, bool), 5)
        Limits(blocks=array([0, 0, 0, 0, 1, 1, 1, 1]), least=array([2, 2]), most=array([3, 3]))
    """
    alive = np.bincount(blocks[previous], minlength=blocks.max(initial=-1) + 1)
    most = pattern.kept
    while np.minimum(alive, most).sum() < keep:
        most += 1
    least = 0 if most == pattern.kept else most - 1
    return Limits(blocks, np.minimum(alive, least), np.minimum(alive, most))


def joined_blocks(parts: Sequence[Int[np.ndarray, " _n"]]) -> NumpyBlocks:
    """The numbers of several layers' blocks, one after the other.

    Args:
        parts: of each layer.

    Example:
        >>> joined_blocks([np.array([0, 0, 1]), np.array([0, 1])])
        array([0, 0, 1, 2, 3])
    """
    counts = [part.max(initial=-1) + 1 for part in parts]
    firsts = np.cumsum([0, *counts[:-1]])
    return np.concatenate([part + first for part, first in zip(parts, firsts, strict=True)])


def most_in_block(pattern: NofM, masks: Masks) -> int:
    """The largest number of weights that any block of a network keeps.

    Args:
        pattern: whose blocks.
        masks: bool leaves, None where not prunable.

    Example:
        >>> most_in_block(NofM(2, 4), {"kernel": np.array([[True], [False], [True], [True]])})
        3
    """
    return max(
        int(np.bincount(blocks[np.asarray(mask).reshape(-1)], minlength=1).max())
        for mask, blocks in zip(
            jax.tree.leaves(masks), blocks_of_layers(pattern, masks), strict=True
        )
    )


def blocks_of_layers(pattern: Pattern, masks: Masks) -> list[NumpyBlocks]:
    """The number of each weight's block or tile, of every layer.

    Args:
        pattern: whose blocks.
        masks: bool leaves, None where not prunable.
    """
    shapes = [np.shape(mask) for mask in jax.tree.leaves(masks)]
    return [
        block_numbers(pattern, shape, first)
        for shape, first in zip(shapes, outputs_first(masks), strict=True)
    ]
