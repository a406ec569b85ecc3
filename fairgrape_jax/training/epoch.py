"""One pass over the training split."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

import jax
import numpy as np

from fairgrape_jax import parallel
from fairgrape_jax.data import batches as pipeline
from fairgrape_jax.data.dataset import Split
from fairgrape_jax.masks import Tree
from fairgrape_jax.training import finite
from fairgrape_jax.training.finite import Seen
from fairgrape_jax.training.step import State


def train_epoch(
    step: Callable[..., tuple[State, Seen]],
    devices: list[jax.Device],
    state: State,
    masks: Tree,
    split: Split,
    *,
    batch: int,
    rate: float,
    seed: int,
    advance: Callable[[], None] = lambda: None,
    done: int = 0,
    total: float = 0.0,
    pause: Callable[[State, int], Callable[[float], None] | None] = lambda state, count: None,
    clock: pipeline.Clock | None = None,
    reading: Iterator[dict[str, np.ndarray]] | None = None,
) -> tuple[State, float]:
    """One pass over `split` in the order of (seed, state.epoch); returns the mean loss.

    A step that gives a number that is not finite raises NotFiniteError, with what it was and the
    state before; on every process, since all see the same. The loss, which tells, is read one step
    late, so that waiting for it never leaves the device idle. Each process reads its own rows of
    every batch.
    done, total: where an epoch goes on in the middle, its steps made before and the sum of their
    losses. pause(state, steps made) may return what is to be called with the sum of their losses,
    to save the place. clock: measures how long the loop waits for its input. reading: where the
    epoch's batches are taken from, of several epochs one after another.
    """
    epoch, first = int(state.epoch), int(state.step) - done
    pending, count = None, done
    rate_array = np.float32(rate)
    if reading is None:
        reading = pipeline.train_batches(
            split, batch, seed, epoch, done, parallel.process_index_and_count()
        )
    own = itertools.islice(reading, pipeline.steps_per_epoch(len(split), batch) - done)
    timed = (clock or pipeline.Clock()).timed(own)
    batches = (parallel.split_batch(samples, devices) for samples in timed)

    def failed(seen: Seen) -> finite.NotFiniteError:
        """Of the last step, `count` being made; `state` may be that of the one after."""
        number, ids = first + count - 1, pipeline.ids(split, batch, seed, epoch, count - 1)
        place = {"where": f"at step {number}", "step": number, "epoch": epoch}
        place |= {"step_in_epoch": count - 1, "rate": rate, "ids": ids.tolist()}
        return finite.in_step(state, seen, place)

    for samples in parallel.prefetch_to_devices(batches, devices):
        state, seen = step(state, masks, samples, rate_array)
        if pending is not None:
            total += checked(pending, failed)
        pending, count = seen, count + 1
        advance()
        if save := pause(state, count):
            total += checked(pending, failed)
            pending = None
            save(total)
    if pending is not None:
        total += checked(pending, failed)
    epoch_done = parallel.replicate(np.int32(epoch + 1), devices)
    return state._replace(epoch=epoch_done), total / count


def checked(seen: Seen, failed: Callable[[Seen], Exception]) -> float:
    """The loss of a step as a float; what `failed` makes of it is raised if that is not finite."""
    loss = float(seen.loss)
    if not math.isfinite(loss):
        raise failed(seen)
    return loss
