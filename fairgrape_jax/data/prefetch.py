"""Make batches ahead of their use, and measure how long a loop waits for them."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np

from fairgrape_jax.data.dataset import Split
from fairgrape_jax.data.images.records import THREADS
from fairgrape_jax.parallel import preemption

Batch = TypeVar("Batch")


def make_batches(
    make: Callable[[int], Batch], numbers: range, split: Split, workers: int = 0
) -> Iterator[Batch]:
    """Make batches in order, ahead of their use where the pictures are on disk.

    Args:
        make: Makes the batch of a number.
        numbers: Of the batches.
        split: What they are made of.
        workers: Processes that make them, which take seconds to start; 0 for threads.

    Yields:
        make(number) for each.
    """
    if isinstance(split.images, np.ndarray) or not numbers:
        return map(make, numbers)
    return prefetch(make, numbers, workers)


def prefetch(make: Callable[[int], Batch], numbers: range, workers: int = 0) -> Iterator[Batch]:
    """Make batches ahead of their use, by Grain.

    A thread decodes, or waits for a disk. At most one batch per thread, or two per process, wait
    for their use.

    Args:
        make: Makes the batch of a number.
        numbers: Of the batches.
        workers: Processes that make them; 0 for two threads per core.

    Yields:
        make(number) for each, in order.
    """
    import grain

    threads = 1 if workers else 2 * THREADS
    batches = grain.MapDataset.range(numbers.start, numbers.stop).map(make)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(threads, 2))
    iterator = batches.to_iter_dataset(options)
    if workers:
        from absl import flags

        if not flags.FLAGS.is_parsed():  # else Grain's workers fail (google/grain #1355)
            flags.FLAGS.mark_as_parsed()
        iterator = iterator.mp_prefetch(
            grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2)
        )
    return _started(iter(iterator))


def _started(iterator: Iterator[Batch]) -> Iterator[Batch]:
    with preemption.block_signals():  # the processes start with the first batch
        first = list(itertools.islice(iterator, 1))
    yield from first
    yield from iterator


class Clock:
    """How long a loop waited for its input.

    Attributes:
        seconds: All waits together.
        count: How many batches were waited for.

    Example:
        >>> clock = Clock()
        >>> list(clock.timed([1, 2])), clock.count
        ([1, 2], 2)
    """

    def __init__(self) -> None:
        self.seconds, self.count = 0.0, 0

    def timed(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Add up the time until each batch is there.

        Args:
            batches: What is waited for.

        Yields:
            The batches.
        """
        iterator = iter(batches)
        while True:
            started = time.perf_counter()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            self.seconds += time.perf_counter() - started
            self.count += 1
            yield batch

    @property
    def milliseconds(self) -> float:
        """Mean wait for a batch."""
        return 1e3 * self.seconds / max(self.count, 1)
