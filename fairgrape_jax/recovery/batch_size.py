"""Which batch fits on the devices, found by trying."""

from __future__ import annotations

import contextlib
import dataclasses
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from fairgrape_jax import parallel
from fairgrape_jax.config import Experiment
from fairgrape_jax.data import batches
from fairgrape_jax.data.dataset import Dataset
from fairgrape_jax.errors import TrainingError
from fairgrape_jax.parallel.out_of_memory import OutOfMemoryError, is_out_of_memory
from fairgrape_jax.rounds import score, steps
from fairgrape_jax.scoring.statistics import SQUARES


class Held(NamedTuple):
    """What a run holds on the devices beside what is tried: the state, the dense one, masks."""

    state: Any
    dense: Any
    masks: Any


@contextlib.contextmanager
def advice(experiment: Experiment, dataset: Dataset, devices: list[jax.Device]) -> Iterator[None]:
    """Where a device has no memory left within the body, TrainingError names a batch that fits.

    It is one that was tried: with the network, its dense form and the optimizer in place, and the
    next batch on its way, as in the run.
    """
    try:
        yield
    except OutOfMemoryError as error:
        # The failed calls hold arrays; what they held must be free for the trials.
        traceback.clear_frames(error.__traceback__)
        raise TrainingError(advised(experiment, dataset, devices, error)) from None


def advised(
    experiment: Experiment, dataset: Dataset, devices: list[jax.Device], error: OutOfMemoryError
) -> str:
    """One line: what did not fit, by its size, and what does."""
    count = parallel.device_count(devices)
    sizes = {
        "training": ("batch", experiment.batch, count),
        "scoring": ("scoring.micro_batch", experiment.scoring.micro_batch, 1),
        "evaluation": ("evaluation_batch", experiment.evaluation_batch, 1),
    }
    if error.what not in sizes:
        return f"{error}: the network alone is too large for {devices[0].device_kind}"
    field, size, least = sizes[error.what]
    flag = f"--{field.replace('_', '-')}"
    told = f"{size} ({size // count} on each of {count} devices)"
    if error.what != "training":
        told = f"{size} on each of {count} devices"
    said = f"{error.what}: out of device memory with {field} {told} ({error.reason}); "
    if jax.process_count() > 1:
        return f"{said}try {flag} {max(size // 2 // least, 1) * least}: not tried over many hosts"
    if error.what == "scoring" and steps.batching(
        devices[0].platform, len(dataset.groups), experiment.scoring
    ) != ("unroll", 1):
        scoring = dataclasses.replace(experiment.scoring, execution="single")
        if fits("scoring", dataclasses.replace(experiment, scoring=scoring), dataset, devices):
            return f"{said}--scoring.execution single was tried and fits, to the same scores"
    for smaller in halves(size // least):
        changed = with_size(experiment, error.what, smaller * least)
        if fits(error.what, changed, dataset, devices):
            return f"{said}{smaller * least} was tried and fits: {flag} {smaller * least}" + (
                ", which is another experiment: give another --out"
                if error.what != "evaluation"
                else ", and the run goes on"
            )
    return f"{said}nothing smaller fits either: give more devices, or larger ones"


def halves(size: int) -> list[int]:
    """Half, a quarter and so on, down to 1.

    >>> halves(12)
    [6, 3, 1]
    """
    return [size >> k for k in range(1, size.bit_length())]


def with_size(experiment: Experiment, what: str, size: int) -> Experiment:
    """The experiment with another batch for one purpose."""
    if what == "scoring":
        scoring = dataclasses.replace(experiment.scoring, micro_batch=size)
        return dataclasses.replace(experiment, scoring=scoring)
    if what == "training":
        return dataclasses.replace(experiment, batch=size)
    return dataclasses.replace(experiment, evaluation_batch=size)


def fits(what: str, experiment: Experiment, dataset: Dataset, devices: list[jax.Device]) -> bool:
    """Whether the devices have the memory for one call of a step; it is made."""
    try:
        compiled = steps.build(experiment, dataset, devices)
        state = steps.initial_state(experiment, compiled, dataset, experiment.seeds[0])
        dense = jax.tree.map(lambda x: x.copy(), state)
        held = Held(state, dense, steps.initial_masks(compiled, state))
        jax.block_until_ready(TRIALS[what](experiment, compiled, dataset, held))
    except (OutOfMemoryError, jax.errors.JaxRuntimeError) as error:
        if not isinstance(error, OutOfMemoryError) and not is_out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)
        return False
    return True


def _train(experiment: Experiment, compiled: steps.Steps, dataset: Dataset, held: Held) -> Any:
    ids = np.resize(np.arange(len(dataset.train)), experiment.batch)
    images, _ = batches.read(dataset.train, ids)
    samples = {"images": images, "labels": dataset.train.labels[ids], "ids": ids.astype(np.int32)}
    batch = parallel.split_batch(samples, compiled.devices)
    step = steps.retraining(experiment, compiled, held.dense)
    first, following = parallel.prefetch_to_devices([batch, batch], compiled.devices)
    return step(held.state, held.masks, first, np.float32(0)), following


def _score(experiment: Experiment, compiled: steps.Steps, dataset: Dataset, held: Held) -> Any:
    count = experiment.scoring.micro_batch * parallel.device_count(compiled.devices)
    few = dataset.train.take(np.arange(min(len(dataset.train), count * len(dataset.groups))))
    return score.average(
        *(experiment, compiled, held.state, held.masks, dataclasses.replace(dataset, train=few)),
        SQUARES,
        over="groups",
        seed=0,
        dense=held.dense,
    )


def _evaluate(experiment: Experiment, compiled: steps.Steps, dataset: Dataset, held: Held) -> Any:
    count = experiment.evaluation_batch * parallel.device_count(compiled.devices)
    few = dataset.test.take(np.arange(min(len(dataset.test), 2 * count)))
    return steps.predict(experiment, compiled, held.state, held.masks, few).losses


TRIALS: dict[str, Callable[..., Any]] = {
    "training": _train,
    "scoring": _score,
    "evaluation": _evaluate,
}
