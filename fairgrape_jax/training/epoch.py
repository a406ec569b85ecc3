"""One epoch: a pass over the training split, its loss read one step late."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np

from fairgrape_jax import parallel
from fairgrape_jax.data import batches
from fairgrape_jax.data.dataset import Split
from fairgrape_jax.data.prefetch import Clock
from fairgrape_jax.masks import Tree
from fairgrape_jax.training import finite
from fairgrape_jax.training.finite import NotFinite, NotFiniteError, StepReport
from fairgrape_jax.training.state import Carry, State

Step = Callable[..., tuple[Carry, StepReport]]
# (carry, steps made) -> None to go on, or what is to be called with the sum of their losses.
Pause = Callable[[Carry, int], Callable[[float], None] | None]


def train_epoch(
    step: Step,
    state: State,
    masks: Tree,
    split: Split,
    *,
    devices: Sequence[jax.Device],
    batch: int,
    rate: float,
    seed: int,
    parameters: Sequence[str] = (),
    done: int = 0,
    total: float = 0.0,
    advance: Callable[[], None] = lambda: None,
    pause: Pause = lambda carry, count: None,
    clock: Clock | None = None,
    samples: Iterator[dict[str, np.ndarray]] | None = None,
    carried: Tree = (),
    order: batches.Order = batches.epoch_order,
) -> tuple[State, float, Tree]:
    """Train through `split` once, in the order of (seed, state.epoch).

    The loss of a step, which tells whether it was finite, is read while the device is at the next
    one: to wait for it would leave the device idle. Each process reads its own rows of a batch.

    Args:
        step: the lifted step of `make_train_step`.
        state: on the devices, which take over its buffers.
        masks: on the devices.
        split: the training split.
        devices: those of this process.
        batch: images per step, over all devices of all processes.
        rate: the learning rate.
        seed: of the order of the samples.
        parameters: the names of all parameters in the order of the network, for an error.
        done: where the epoch goes on in the middle, the steps made before.
        total: the sum of their losses.
        advance: called after each step.
        pause: called after each step; what it returns saves the place.
        clock: measures how long the loop waits for its input.
        samples: the batches of this epoch and maybe of later ones; made here if None.
        carried: what ingredients carry, on the devices, which take over its buffers.
        order: of the samples, as for `batches.train_batches`.

    Returns:
        The state on the devices, an epoch further, the mean loss of the epoch, and what ingredients
        carry on.

    Raises:
        NotFiniteError: for a step that gives a number that is not finite, with the state before
            it; on every process, since all see the same.
    """
    epoch, first = int(state.epoch), int(state.step) - done
    carry = Carry(state, parallel.replicate(np.True_, devices), carried)
    previous, count, rate_array = None, done, np.float32(rate)
    if samples is None:
        place = parallel.process_index_and_count()
        samples = batches.train_batches(
            split, batch, seed, epoch, start=done, part=place, order=order
        )
    left = itertools.islice(samples, batches.steps_per_epoch(len(split), batch) - done)
    timed = (clock or Clock()).timed(left)

    def loss_of(report: StepReport) -> float:
        """The loss of the last step, `count` being made; or the error."""
        loss = float(report.loss)
        if math.isfinite(loss):
            return loss
        before, flags = finite.to_host(carry.state), np.asarray(report.finite)
        details = {
            "step": first + count - 1,
            "epoch": epoch,
            "step_in_epoch": count - 1,
            "rate": rate,
            "ids": batches.batch_ids(split, batch, seed, epoch, count - 1, order=order).tolist(),
        }
        bad, where = finite.bad_parts(before, flags, parameters), f"at step {first + count - 1}"
        carried = jax.tree.map(np.array, jax.device_get(carry.carried))
        raise NotFiniteError(NotFinite("step", where, bad, before, details, carried))

    rows = (parallel.split_batch(each, devices) for each in timed)
    for placed in parallel.prefetch_to_devices(rows, devices):
        carry, report = step(carry, masks, placed, rate_array)
        if previous is not None:
            total += loss_of(previous)
        previous, count = report, count + 1
        advance()
        if save := pause(carry, count):
            total += loss_of(previous)
            previous = None
            save(total)
    if previous is not None:
        total += loss_of(previous)
    number: Tree = np.int32(epoch + 1)
    after = carry.state._replace(epoch=parallel.replicate(number, devices))
    return after, total / count, carry.carried
