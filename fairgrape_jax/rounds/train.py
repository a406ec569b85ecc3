"""Training stages: epochs at falling rates, the best epoch, and going on in the middle."""

from __future__ import annotations

import contextlib
import functools
import math
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fairgrape_jax import parallel, training
from fairgrape_jax.config import Experiment, Stage
from fairgrape_jax.data import batches
from fairgrape_jax.data.dataset import Dataset
from fairgrape_jax.errors import Preempted
from fairgrape_jax.masks import Tree
from fairgrape_jax.parallel import preemption
from fairgrape_jax.progress import bar, say
from fairgrape_jax.rounds import steps
from fairgrape_jax.rounds.steps import Steps
from fairgrape_jax.storage import checkpoint, resumable
from fairgrape_jax.training.step import State

SILENCE = 20.0  # seconds of training after which an epoch gets a line of its own


def run_stages(
    experiment: Experiment,
    compiled: Steps,
    dataset: Dataset,
    state: State,
    alive: Tree,
    stages: Sequence[Stage],
    *,
    seed: int,
    title: str,
    directory: Path,
    after: Callable[[int, State], None] = lambda epoch, state: None,
    step: Callable[..., Any] | None = None,
) -> tuple[State, list[dict[str, float]]]:
    """Train through `stages`; returns the state and a record of each epoch.

    Every `passes.SAVE_EVERY` seconds the place, in the middle of an epoch or at its end, is saved
    to `directory`/partial; called again with the same arguments, training goes on from there to
    the same bits. So it is after a notice of preemption, which raises Preempted when the step is
    done.
    after(epochs, state) is called when that many epochs of `stages` are done. step: in place of
    `Steps.train`.
    """
    partial = directory / "partial"
    history: list[dict[str, float]] = []
    best, best_loss = state, math.inf
    done, total = 0, 0.0  # steps made of the current epoch, and the sum of their losses
    trained: dict[str, float] | None = None  # the record of an epoch that is yet to be looked at
    slot = int(parallel.broadcast_from_process_0(newest(partial)))
    if slot >= 0:
        like = {"state": state, "best": best}
        found, said = checkpoint.restore_with_metadata(partial / str(slot), like)
        state, best = parallel.replicate(found["state"], compiled.devices), found["best"]
        history = said["history"]
        best_loss = math.inf if said["best_loss"] is None else said["best_loss"]
        done, total, trained = said["done"], said["total"], said["trained"]
        say(f"{title}: going on after epoch {len(history)}" + (f", step {done}" if done else ""))
    saved = spoken = time.perf_counter()
    clock = batches.Clock()

    def keep(
        state: State, done: int, total: float, trained: dict[str, float] | None = None
    ) -> None:
        """Save the place; the files are written while training goes on."""
        nonlocal saved, slot
        pending.close()
        saved, slot = time.perf_counter(), other(slot)
        place = partial / str(slot)
        pending.callback(_begin(place, state, history, best, best_loss, done, total, trained))

    def stop(state: State, done: int, total: float) -> None:
        keep(state, done, total)
        raise Preempted(f"{title}, saved after epoch {len(history)}, step {done}")

    def pause(state: State, count: int) -> Callable[[float], None] | None:
        if preemption.stop_requested():
            return functools.partial(stop, state, count)
        # The processes ask each other, so not at every step.
        if (
            count % resumable.LOOK_EVERY
            or count == per_epoch
            or not resumable.due(saved, compiled.devices)
        ):
            return None
        return functools.partial(keep, state, count)

    plan = epochs(stages)
    per_epoch = batches.steps_per_epoch(len(dataset.train), experiment.batch)
    left = len(plan) - len(history)
    reading = batches.train_batches(
        dataset.train,
        experiment.batch,
        seed,
        int(state.epoch),
        done,
        parallel.process_index_and_count(),
        epochs=left if trained is None else left - 1,
    )
    with contextlib.ExitStack() as pending, bar(title, left * per_epoch - done) as advance:
        for rate, keep_best, ends in plan[len(history) :]:
            if trained is None:
                state, loss = training.train_epoch(
                    step or compiled.train,
                    compiled.devices,
                    state,
                    alive,
                    dataset.train,
                    batch=experiment.batch,
                    rate=rate,
                    seed=seed,
                    advance=advance,
                    done=done,
                    total=total,
                    pause=pause,
                    clock=clock,
                    reading=reading,
                )
                trained = {"epoch": int(state.epoch), "rate": rate, "loss": loss}
            done, total = 0, 0.0
            record, trained = trained, None
            if keep_best:
                try:
                    seen = steps.predict(
                        *(experiment, compiled, state, alive, dataset.validation),
                        partial / "epoch",
                    )
                except Preempted:
                    keep(state, 0, 0.0, record)
                    raise
                record["validation_loss"] = float(seen.losses.mean(dtype=np.float64))
                if record["validation_loss"] < best_loss:
                    best, best_loss = jax.device_get(state), record["validation_loss"]
            history.append(record)
            after(len(history), state)
            if ends and best_loss < math.inf:
                # The counters go on: no epoch's order and no step's key is used twice.
                best = best._replace(step=state.step, epoch=state.epoch)
                state, best_loss = parallel.replicate(best, compiled.devices), math.inf
            now = time.perf_counter()
            if now - spoken > SILENCE:
                spoken = now
                waited = f"input wait {clock.milliseconds:.1f} ms/step"
                losses = f"loss {record['loss']:.4f}"
                say(f"{title}: epoch {len(history)}/{len(plan)}  {losses}  {waited}")
            if resumable.due(saved, compiled.devices):
                keep(state, 0, 0.0)
    return state, history


@contextlib.contextmanager
def kept(
    directory: Path, state: State, history: list[dict[str, float]], devices: list[jax.Device]
) -> Iterator[None]:
    """Keep the end of training if a notice comes while the body looks at what was trained."""
    try:
        yield
    except Preempted:
        partial = directory / "partial"
        slot = other(int(parallel.broadcast_from_process_0(newest(partial))))
        _begin(partial / str(slot), state, history)()
        raise


def _begin(
    place: Path,
    state: State,
    history: list[dict[str, float]],
    best: State | None = None,
    best_loss: float = math.inf,
    done: int = 0,
    total: float = 0.0,
    trained: dict[str, float] | None = None,
) -> Callable[[], None]:
    """Begin to save a place; what is returned ends it (`checkpoint.begin_save`)."""
    known = best_loss < math.inf
    said = {"history": history, "done": done, "total": total, "trained": trained}
    said |= {"best_loss": best_loss if known else None, "step": int(state.step)}
    return checkpoint.begin_save(place, {"state": state, "best": best if known else state}, said)


def other(slot: int) -> int:
    """The slot to write to when `slot` holds the newest save.

    >>> [other(slot) for slot in (-1, 0, 1)]
    [0, 1, 0]
    """
    return int(slot == 0)


def newest(partial: Path) -> int:
    """The slot, 0 or 1, of the partial save to go on from; -1 for none. One damaged is said.

    There are two, written in turn: a stop while one is written leaves the other.
    """
    steps = {}
    for slot in (0, 1):
        if not (partial / str(slot)).exists():
            continue
        if bad := checkpoint.damaged_files(partial / str(slot)):
            say(f"{partial / str(slot) / bad[0]}: damaged or not finished; going on from before")
            continue
        steps[slot] = checkpoint.read_metadata(partial / str(slot))["step"]
    return max(steps, key=lambda slot: steps[slot], default=-1)


def epochs(stages: Sequence[Stage]) -> list[tuple[float, bool, bool]]:
    """Each epoch's learning rate, whether the best one is sought, and whether it ends its stage.

    >>> epochs([Stage((2,), (0.1,)), Stage((1,), (0.01,), best=True)])
    [(0.1, False, False), (0.1, False, True), (0.01, True, True)]
    """
    plan = []
    for stage in stages:
        pieces = zip(stage.epochs, stage.rates, strict=True)
        rates = [rate for count, rate in pieces for _ in range(count)]
        plan += [(rate, stage.best, i + 1 == len(rates)) for i, rate in enumerate(rates)]
    return plan


def forget(directory: Path) -> None:
    """Remove the partial save of a stage that is complete."""
    shutil.rmtree(directory / "partial", ignore_errors=True)
