"""Cut batches on the host into micro-batches of one group each, of few shapes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Bool, Float32, Int

from fairgrape_jax.masks import Array

Form = Literal["pure", "vmap"]
Batch = Any  # a pytree of arrays with samples along their first axis


class Part(NamedTuple):
    """What one call adds: samples of one group, or, in the form "vmap", a batch of all groups.

    Attributes:
        batch: a pytree of arrays of b samples.
        scale: of each sample in the sum of the losses, of one group or of all.
        counts: the micro-batches of each group, or samples, that are whole with it.
        group: its number; None for all.
        start: whether a micro-batch begins with it.
        end: whether it ends with it.
    """

    batch: Batch
    scale: Float32[np.ndarray, "*G b"]
    counts: Int[np.ndarray, " G"]
    group: int | None
    start: bool
    end: bool


def membership(groups: ArrayLike, num_groups: int, samples: int) -> Array:
    """The members of every group, (G, B) bool, from ids (B,) or as they are.

    Args:
        groups: (B,) int, negative for no group; or (G, B) bool.
        num_groups: G.
        samples: B.

    Raises:
        ValueError: other shapes or dtypes, or a group that is not below G.

    Example:
        >>> membership(np.array([1, -1, 0]), 2, 3)
        array([[False, False,  True],
               [ True, False, False]])
    """
    if num_groups < 1:
        raise ValueError(f"num_groups: {num_groups} is not at least 1")
    array = groups if isinstance(groups, jax.Array) else np.asarray(groups)
    if array.dtype == bool:
        if array.shape != (num_groups, samples):
            raise ValueError(
                f"groups {array.shape} bool: ({num_groups}, {samples}) is expected, groups first"
            )
        return array
    if not jnp.issubdtype(array.dtype, jnp.integer) or array.shape != (samples,):
        raise ValueError(
            f"groups {array.shape} {array.dtype}: a whole number for each of the {samples} samples "
            f"is expected, or their membership ({num_groups}, {samples}) bool"
        )
    if isinstance(array, jax.core.Tracer):
        return array == jnp.arange(num_groups, dtype=array.dtype)[:, None]
    ids = np.asarray(jax.device_get(array))
    if ids.size and ids.max() >= num_groups:
        raise ValueError(f"groups: {ids.max()} is not below num_groups, {num_groups}")
    return ids == np.arange(num_groups)[:, None]


def checked_batches(
    batches: Iterable[tuple[Batch, ArrayLike]], num_groups: int
) -> Iterator[tuple[Batch, Bool[np.ndarray, "G B"]]]:
    """Each batch with its membership, (G, B) on the host.

    Args:
        batches: pairs of a batch and its groups.
        num_groups: G.
    """
    for number, item in enumerate(batches):
        if not isinstance(item, list | tuple) or len(item) != 2:
            raise ValueError(f"batches: number {number} is no pair of a batch and its groups")
        batch, groups = item
        members = membership(groups, num_groups, sample_count(batch))
        yield batch, np.asarray(jax.device_get(members))


def parts(
    batches: Iterable[tuple[Batch, np.ndarray]],
    micro_batch: int | None,
    form: Form,
    squares: bool,
) -> Iterator[Part]:
    """What is added, one after the other; a group's micro-batches in the order of its samples.

    Args:
        batches: each with its membership, (G, B) bool.
        micro_batch: samples of a micro-batch; None: those of a group in a batch.
        form: pure or vmap.
        squares: whether each micro-batch has a mean of its own.
    """
    unit = 0
    for batch, members in batches if micro_batch is None else _regroup(batches, micro_batch):
        counts = members.sum(axis=1)
        scale = members.astype(np.float32)
        if squares:
            scale /= np.maximum(counts, 1).astype(np.float32)[:, None]
        ended = np.minimum(counts, 1) if squares else counts
        if form == "vmap":
            yield Part(batch, scale, ended, None, True, True)
            continue
        host = jax.device_get(batch)
        # Four sizes for the last micro-batch of a group: little is empty, little is compiled.
        unit = max(1, micro_batch // 4) if micro_batch else unit
        unit = unit or max(1, members.shape[1] // (8 * len(members)))
        for k in np.flatnonzero(counts):
            places = np.flatnonzero(members[k])
            sizes = [micro_batch] if len(places) == micro_batch else pieces(len(places), unit)
            first = 0
            for size in sizes:
                rows = places[first : first + size]
                first += size
                # A sample that is there twice weighs nothing the second time.
                rows = np.concatenate([rows, np.repeat(rows[:1], size - len(rows))])
                weight = scale[k, rows] * (np.arange(size) < len(places) - first + size)
                last = first >= len(places)
                counted = np.where(np.arange(len(counts)) == k, ended, 0) * last
                yield Part(
                    jax.tree.map(lambda x, rows=rows: np.asarray(x)[rows], host),
                    weight.astype(np.float32),
                    counted,
                    int(k),
                    first == size or not squares,
                    last or not squares,
                )


def pieces(samples: int, unit: int = 1) -> list[int]:
    """Sizes that hold some samples, one or two of few sizes, so that few programs are compiled.

    The sizes are `unit` times 1, 2, 3, 4, 6, 8, 12, 16 and so on; no more than a fifth is empty,
    but for less than a unit.

    Args:
        samples: how many to hold.
        unit: the smallest size.

    Example:
        >>> pieces(9), pieces(16), pieces(13), pieces(9, unit=4)
        ([6, 3], [16], [12, 1], [12])
    """
    sizes = [unit]
    while sizes[-1] < samples:
        half, odd = divmod(len(sizes), 2)
        sizes.append(unit * (2 ** (half + 1) if odd else 3 * 2 ** (half - 1)))
    plans = [[size] for size in sizes if size >= samples]
    plans += [[a, b] for a in sizes for b in sizes if b <= a and a + b >= samples > a]
    # A call costs about what a sample costs.
    return min(plans, key=lambda plan: (sum(plan) + unit * len(plan), len(plan)))


def _regroup(
    batches: Iterable[tuple[Batch, np.ndarray]], size: int
) -> Iterator[tuple[Batch, np.ndarray]]:
    """Micro-batches of `size` samples of one group, across batches; a group's last is short."""
    waiting: dict[int, list[Batch]] = {}
    groups = 0

    def micro_batch(k: int, batch: Batch) -> tuple[Batch, np.ndarray]:
        return batch, np.repeat(np.arange(groups)[:, None] == k, sample_count(batch), axis=1)

    for batch, members in batches:
        groups, host = len(members), jax.device_get(batch)
        for k in np.flatnonzero(members.any(axis=1)).tolist():
            places = np.flatnonzero(members[k])
            part = jax.tree.map(lambda x, places=places: np.asarray(x)[places], host)
            queue = waiting.setdefault(k, [])
            queue.append(part)
            if sum(map(sample_count, queue)) < size:
                continue
            joined = jax.tree.map(lambda *x: np.concatenate(x), *queue)
            for first in range(0, sample_count(joined), size):
                part = jax.tree.map(lambda x, first=first: x[first : first + size], joined)
                full = sample_count(part) == size
                waiting[k] = [] if full else [part]
                if full:
                    yield micro_batch(k, part)
    for k, queue in sorted(waiting.items()):
        if queue:
            yield micro_batch(k, jax.tree.map(lambda *x: np.concatenate(x), *queue))


def sample_count(batch: Batch) -> int:
    """B, of a pytree of arrays with B samples along their first axis.

    Args:
        batch: a pytree of arrays with samples along their first axis.
    """
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(batch)]
    lengths = {shape[:1] for shape in shapes}
    if len(lengths) != 1 or () in lengths:
        raise ValueError(
            f"batch: arrays {shapes}; all must have the same number of samples along the first axis"
        )
    return int(shapes[0][0])
