"""Training stages: epochs at falling rates, the best epoch, and going on in the middle."""

from __future__ import annotations

import functools
import math
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fairgrape_jax import checkpoint, parallel, steps, train
from fairgrape_jax.config import Experiment, Stage
from fairgrape_jax.data import pipeline
from fairgrape_jax.data.types import Dataset
from fairgrape_jax.masks import Tree
from fairgrape_jax.progress import bar, say
from fairgrape_jax.steps import Steps
from fairgrape_jax.train import State

SAVE_EVERY = 300.0  # seconds of training after which the place is saved
LOOK_EVERY = 10  # steps between two looks at the clock
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

    After SAVE_EVERY seconds the place, in the middle of an epoch or at its end, is saved to
    `directory`/partial; called again with the same arguments, training goes on from there to the
    same bits. after(epochs, state) is called when that many epochs of `stages` are done. step: in
    place of `Steps.train`.
    """
    partial = directory / "partial"
    history: list[dict[str, float]] = []
    best, best_loss = state, math.inf
    done, total = 0, 0.0  # steps made of the current epoch, and the sum of their losses
    if parallel.from_first(sound(partial), compiled.devices):
        found, said = checkpoint.restore_with_metadata(partial, {"state": state, "best": best})
        state, best = parallel.replicate(found["state"], compiled.devices), found["best"]
        history = said["history"]
        best_loss = math.inf if said["best_loss"] is None else said["best_loss"]
        done, total = said.get("done", 0), said.get("total", 0.0)
        say(f"{title}: going on after epoch {len(history)}" + (f", step {done}" if done else ""))
    saved = spoken = time.perf_counter()
    clock = pipeline.Clock()

    def keep(state: State, done: int, total: float) -> None:
        """Save the place."""
        nonlocal saved
        saved, known = time.perf_counter(), best_loss < math.inf
        tree = {"state": state, "best": best if known else state}
        where = {"history": history, "done": done, "total": total}
        checkpoint.save(partial, tree, where | {"best_loss": best_loss if known else None})

    def due() -> bool:
        late = time.perf_counter() - saved > SAVE_EVERY
        return bool(parallel.from_first(late, compiled.devices))

    def pause(state: State, count: int) -> Callable[[float], None] | None:
        # The processes ask each other, so not at every step.
        if count % LOOK_EVERY or count == per_epoch or not due():
            return None
        return functools.partial(keep, state, count)

    plan = epochs(stages)
    per_epoch = pipeline.steps_per_epoch(len(dataset.train), experiment.batch)
    left = len(plan) - len(history)
    reading = pipeline.train_batches(
        dataset.train,
        experiment.batch,
        seed,
        int(state.epoch),
        done,
        parallel.part(),
        epochs=left,
    )
    with bar(title, left * per_epoch - done) as advance:
        for rate, keep_best, ends in plan[len(history) :]:
            state, loss = train.train_epoch(
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
            done, total = 0, 0.0
            record = {"epoch": int(state.epoch), "rate": rate, "loss": loss}
            if keep_best:
                seen = steps.predict(experiment, compiled, state, alive, dataset.validation)
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
                say(f"{title}: epoch {len(history)}/{len(plan)}  loss {loss:.4f}  {waited}")
            if due():
                keep(state, 0, 0.0)
    return state, history


def sound(partial: Path) -> bool:
    """Whether there is a partial save that can be gone on from; one that is damaged is said."""
    if not partial.exists():
        return False
    if bad := checkpoint.damaged(partial):
        say(f"{partial / bad[0]}: damaged or not finished; this stage begins anew")
    return not bad


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
