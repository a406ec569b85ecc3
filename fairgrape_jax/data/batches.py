"""Make batches: the order of samples is a pure function of seed, epoch and step.

Every batch is made by a pure function of its number: pictures in memory are indexed, pictures on
disk are read and decoded by that same call. Grain makes the batches of the latter ahead of their
use, in threads or processes, and hands them over by number; so results do not depend on how many
there are, and to resume at a step is to begin with its number.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator

import numpy as np

from fairgrape_jax.data.dataset import Split
from fairgrape_jax.data.prefetch import make_batches
from fairgrape_jax.data.scoring_batches import GroupBatches, group_batches
from fairgrape_jax.errors import TrainingError

Order = Callable[[int, int, int], np.ndarray]  # (samples, seed, epoch) -> as many places of samples

__all__ = [
    "GroupBatches",
    "HeldOutBatches",
    "Order",
    "batch_ids",
    "batch_numbers",
    "epoch_order",
    "group_batches",
    "padded_batches",
    "read_images",
    "replacements",
    "rows_of_process",
    "steps_per_epoch",
    "train_batches",
]


def epoch_order(n: int, seed: int, epoch: int) -> np.ndarray:
    """The order in which an epoch meets the samples.

    Args:
        n: The number of samples.
        seed: Seed of the run.
        epoch: The epoch's number, from 0.

    Returns:
        (n,) places of samples, each once.

    Example:
        >>> sorted(epoch_order(4, seed=0, epoch=1).tolist())
        [0, 1, 2, 3]
    """
    return np.random.default_rng([seed, epoch]).permutation(n)


def steps_per_epoch(n: int, batch: int) -> int:
    """Whole batches in an epoch.

    Args:
        n: The number of samples.
        batch: Samples of a batch.

    Returns:
        Their number; 1 where there are fewer samples than a batch has.

    Example:
        >>> steps_per_epoch(10, 4), steps_per_epoch(3, 4)
        (2, 1)
    """
    return max(n // batch, 1)


def train_batches(
    split: Split,
    batch: int,
    seed: int,
    epoch: int,
    *,
    start: int = 0,
    part: tuple[int, int] = (0, 1),
    epochs: int = 1,
    order: Order = epoch_order,
    held_out: Split | None = None,
) -> Iterator[dict[str, np.ndarray]]:
    """Batches of exactly `batch` samples, in the order of the epoch; the remainder is dropped.

    A split smaller than a batch is repeated, in the epoch's order, until it fills the one batch. A
    picture that is lost is replaced by the next of its batch that is not.

    Args:
        split: What is trained on.
        batch: Samples of a batch, over all processes.
        seed: Seed of the run.
        epoch: The first epoch's number.
        start: The first step to give, so that a run resumes in the middle of an epoch.
        part: Which process's rows of each batch to give, (which, of how many).
        epochs: How many to go through, with the same worker processes where there are some.
        order: Of the samples of an epoch, a pure function.
        held_out: Another split, of which each batch has as many samples beside its own.

    Yields:
        images (batch, H, W, C) uint8; labels (batch, T) int32; ids (batch,) int32, the places of
        the samples in the split; held_images, held_labels and held_ids likewise of `held_out`.
    """
    make: Callable[[int], dict[str, np.ndarray]] = functools.partial(
        _train_batch, split, batch, seed, epoch, part=part, order=order
    )
    if held_out is not None:
        first = epoch * steps_per_epoch(len(split), batch)
        make = HeldOutBatches(make, held_out, batch, seed, first, part)
    numbers = range(start, epochs * steps_per_epoch(len(split), batch))
    return make_batches(make, numbers, split, getattr(split.images, "workers", 0))


@dataclasses.dataclass(frozen=True)
class HeldOutBatches:
    """Makes batches of a training split with samples of another one in them.

    These go through permutations of that split, one after another, whatever epoch it is.

    Attributes:
        make: Makes the batch of a number.
        held_out: The other split.
        batch: Samples of a batch, over all processes.
        seed: Seed of the run.
        first: What the numbers are counted from.
        part: As for `train_batches`.
    """

    make: Callable[[int], dict[str, np.ndarray]]
    held_out: Split
    batch: int
    seed: int
    first: int
    part: tuple[int, int]

    def __call__(self, number: int) -> dict[str, np.ndarray]:
        """A batch with held_images, held_labels and held_ids.

        Args:
            number: Of the batch.
        """
        places, count = (
            np.arange(self.batch) + (self.first + number) * self.batch,
            len(self.held_out),
        )
        rounds, within = np.divmod(places, count)
        ids = [
            _held_out_order(count, self.seed, turn)[within[rounds == turn]]
            for turn in np.unique(rounds).tolist()
        ]
        chosen = rows_of_process(np.concatenate(ids), self.part)
        images, chosen = _read_sound(self.held_out, chosen)
        held = {"held_images": images, "held_labels": self.held_out.labels[chosen]}
        return self.make(number) | held | {"held_ids": chosen.astype(np.int32)}


def batch_ids(
    split: Split, batch: int, seed: int, epoch: int, step: int, *, order: Order = epoch_order
) -> np.ndarray:
    """The samples of a batch of `train_batches`, of all processes.

    Args:
        split: What is trained on.
        batch: Samples of a batch.
        seed: Seed of the run.
        epoch: The epoch's number.
        step: The batch's number in it.
        order: Of the samples of an epoch.

    Returns:
        (batch,) places in the split. A picture that is lost is named itself, not what stands in for
        it.
    """
    return _filled_order(len(split), batch, seed, epoch, order)[step * batch : (step + 1) * batch]


def _train_batch(
    split: Split,
    batch: int,
    seed: int,
    first: int,
    number: int,
    *,
    part: tuple[int, int],
    order: Order,
) -> dict[str, np.ndarray]:
    """Batch `number`, counted from the beginning of epoch `first`."""
    epoch, step = divmod(number, steps_per_epoch(len(split), batch))
    places = _filled_order(len(split), batch, seed, first + epoch, order)
    chosen = rows_of_process(places[step * batch : (step + 1) * batch], part)
    images, chosen = _read_sound(split, chosen)
    return {"images": images, "labels": split.labels[chosen], "ids": chosen.astype(np.int32)}


def _read_sound(split: Split, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pictures of some places and these places; others stand in for those that are lost."""
    images, good = read_images(split, chosen)
    if good.all():
        return images, chosen
    stand_in = replacements(good)
    return images[stand_in], chosen[stand_in]


@functools.lru_cache(maxsize=2)  # the round that ends and the one that begins
def _held_out_order(n: int, seed: int, turn: int) -> np.ndarray:
    # A stream that no epoch of the training split uses.
    return np.random.default_rng([seed, turn, 1]).permutation(n)


@functools.lru_cache(maxsize=2)  # the epoch that ends and the one that begins
def _filled_order(n: int, batch: int, seed: int, epoch: int, order: Order) -> np.ndarray:
    return np.resize(order(n, seed, epoch), max(n, batch))


def replacements(good: np.ndarray) -> np.ndarray:
    """What stands in for the samples of a batch that are lost.

    Args:
        good: (B,) bool, False for those that are lost.

    Returns:
        (B,) for each place the next one that is good, around the end; itself where it is good.

    Raises:
        TrainingError: None is good.

    Example:
        >>> replacements(np.array([False, True, False])).tolist()
        [1, 1, 1]
    """
    if not good.any():
        raise TrainingError("no picture of a whole batch can be decoded; prepare the data again")
    places = np.flatnonzero(good)
    return places[np.searchsorted(places, np.arange(len(good))) % len(places)]


def read_images(split: Split, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Read pictures, wherever they are.

    Args:
        split: What holds them.
        indices: Places in it, of any shape.

    Returns:
        Pixels (*indices.shape, H, W, C) uint8, and which of them could be read.
    """
    if isinstance(split.images, np.ndarray):
        return split.images[indices], np.ones(indices.shape, bool)
    return split.images.read(indices)


def rows_of_process(rows: np.ndarray, part: tuple[int, int]) -> np.ndarray:
    """The rows that one process reads.

    Args:
        rows: (B, ...), of all processes.
        part: (which, of how many equal parts).

    Returns:
        (B / parts, ...).

    Example:
        >>> rows_of_process(np.arange(6), (1, 3))
        array([2, 3])
    """
    which, parts = part
    return rows.reshape(parts, -1, *rows.shape[1:])[which]


def padded_batches(
    split: Split, batch: int, part: tuple[int, int] = (0, 1), begin: int = 0
) -> Iterator[dict[str, np.ndarray]]:
    """Every sample once, in order.

    Args:
        split: The samples.
        batch: Samples of a batch, over all processes.
        part: As for `train_batches`.
        begin: The number of the first batch to give.

    Yields:
        images, labels, groups, and valid (batch,) bool. The last batch is filled up with sample 0,
        which is not valid there, so that all have one shape; nor is a picture that is lost.
    """
    make = functools.partial(_padded_batch, split, batch, part)
    return make_batches(make, batch_numbers(split, batch)[begin:], split)


def batch_numbers(split: Split, batch: int) -> range:
    """The numbers of the batches that hold every sample.

    Args:
        split: The samples.
        batch: Samples of a batch.

    Returns:
        From 0 on.
    """
    return range(-(-len(split) // batch))


def _padded_batch(
    split: Split, batch: int, part: tuple[int, int], step: int
) -> dict[str, np.ndarray]:
    numbers = rows_of_process(np.arange(step * batch, (step + 1) * batch), part)
    inside = numbers < len(split)
    chosen = np.where(inside, numbers, 0)
    images, good = read_images(split, chosen)
    labels, groups = split.labels[chosen], split.groups[chosen]
    return {"images": images, "labels": labels, "groups": groups, "valid": inside & good}
