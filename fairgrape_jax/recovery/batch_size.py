"""Find by trying which batch fits on devices that have run out of memory."""

from __future__ import annotations

import contextlib
import dataclasses
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from fairgrape_jax import parallel, passes
from fairgrape_jax.config import Experiment
from fairgrape_jax.data import batches
from fairgrape_jax.data.dataset import Dataset
from fairgrape_jax.errors import TrainingError
from fairgrape_jax.parallel.out_of_memory import OutOfMemoryError, is_out_of_memory
from fairgrape_jax.remedies import active
from fairgrape_jax.rounds import ingredients, score, steps
from fairgrape_jax.rounds.ingredients import TakingPart
from fairgrape_jax.rounds.predict import predict
from fairgrape_jax.rounds.retraining import retraining_step
from fairgrape_jax.rounds.session import (
    Network,
    Session,
    copy_on_devices,
    initial_network,
    open_session,
)
from fairgrape_jax.scoring.statistics import SQUARES
from fairgrape_jax.training.state import Carry


@contextlib.contextmanager
def advise_on_error(
    experiment: Experiment, dataset: Dataset, devices: list[jax.Device]
) -> Iterator[None]:
    """Turn an OutOfMemoryError of the body into a TrainingError that names a batch that fits.

    It is one that was tried: with the network, its dense form and the optimizer in place, and the
    next batch on its way, as in the run.

    Args:
        experiment: what is done.
        dataset: with which data.
        devices: those of this process.
    """
    try:
        yield
    except OutOfMemoryError as error:
        # The failed calls hold arrays; what they held must be free for the trials.
        traceback.clear_frames(error.__traceback__)
        raise TrainingError(advise(experiment, dataset, devices, error)) from None


def advise(
    experiment: Experiment, dataset: Dataset, devices: list[jax.Device], error: OutOfMemoryError
) -> str:
    """One line: what did not fit, by its size, and what does.

    Args:
        experiment: what is done.
        dataset: with which data.
        devices: those of this process.
        error: the phase that had no room, and the reason.
    """
    if error.phase not in TRIALS:
        return f"{error}: the network alone is too large for {devices[0].device_kind}"
    size = size_of(experiment, error.phase, parallel.device_count(devices))
    line = f"{error.phase}: out of device memory with {size.words} ({error.reason}); "
    if jax.process_count() > 1:
        half = max(size.images // 2 // size.least, 1) * size.least
        return f"{line}try {size.flag} {half}: not tried over many hosts"
    batching = steps.batching(devices[0].platform, len(dataset.groups), experiment)
    if error.phase == "scoring" and batching != ("unroll", 1):
        execution = dataclasses.replace(experiment.execution, micro_batches="single")
        if fits("scoring", dataclasses.replace(experiment, execution=execution), dataset, devices):
            return f"{line}--execution.micro-batches single was tried and fits, to the same scores"
    for smaller in halves(size.images // size.least):
        images = smaller * size.least
        if fits(error.phase, with_size(experiment, error.phase, images), dataset, devices):
            another = ", which is another experiment: give another --out"
            same = ", and the run goes on"
            end = same if error.phase == "evaluation" else another
            return f"{line}{images} was tried and fits: {size.flag} {images}{end}"
    return f"{line}nothing smaller fits either: give more devices, or larger ones"


class Size(NamedTuple):
    """How many images one phase takes at once: the flag that says so, the number, its least value,
    and all that in words."""

    flag: str
    images: int
    least: int
    words: str


def size_of(experiment: Experiment, phase: str, devices: int) -> Size:
    """The images that training, scoring or evaluation take at once on so many devices.

    Args:
        experiment: what is done.
        phase: training, scoring or evaluation.
        devices: how many there are, of all processes.
    """
    if phase == "training":
        images, least, field = experiment.batch, devices, "batch"
        each = f"({images // devices} on each of {devices} devices)"
    elif phase == "scoring":
        images, least, field = experiment.scoring.micro_batch, 1, "scoring.micro_batch"
        each = f"on each of {devices} devices"
    else:
        images, least = experiment.execution.evaluation_batch, 1
        field = "execution.evaluation_batch"
        each = f"on each of {devices} devices"
    return Size(f"--{field.replace('_', '-')}", images, least, f"{field} {images} {each}")


def halves(size: int) -> list[int]:
    """Half, a quarter and so on, down to 1.

    Args:
        size: 1 or more.

    Example:
        >>> halves(12)
        [6, 3, 1]
    """
    return [size >> k for k in range(1, size.bit_length())]


def with_size(experiment: Experiment, phase: str, size: int) -> Experiment:
    """The experiment with another batch for one phase.

    Args:
        experiment: what is done.
        phase: training, scoring or evaluation.
        size: the images that it takes at once.
    """
    if phase == "scoring":
        scoring = dataclasses.replace(experiment.scoring, micro_batch=size)
        return dataclasses.replace(experiment, scoring=scoring)
    if phase == "training":
        return dataclasses.replace(experiment, batch=size)
    execution = dataclasses.replace(experiment.execution, evaluation_batch=size)
    return dataclasses.replace(experiment, execution=execution)


def fits(phase: str, experiment: Experiment, dataset: Dataset, devices: list[jax.Device]) -> bool:
    """Whether the devices have the memory for one call of a step; it is made.

    Args:
        phase: training, scoring or evaluation.
        experiment: what is done.
        dataset: with which data.
        devices: those of this process.
    """
    try:
        session = open_session(experiment, dataset, devices)
        dense = initial_network(session, experiment.seeds[0])
        jax.block_until_ready(TRIALS[phase](session, copy_on_devices(dense), dense))
    except (OutOfMemoryError, jax.errors.JaxRuntimeError) as error:
        if not isinstance(error, OutOfMemoryError) and not is_out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)
        return False
    return True


def _train(session: Session, network: Network, dense: Network) -> Any:
    split, batch, devices = session.dataset.train, session.experiment.batch, session.devices
    few = split.take(np.resize(np.arange(len(split)), batch))
    taking = TakingPart(active(session.experiment.remedy), session, dense)
    samples = next(batches.train_batches(few, batch, 0, 0, held_out=taking.held_out))
    cut = parallel.split_batch(samples, devices)
    remedy = session.experiment.remedy
    step = retraining_step(session.steps, remedy, dense.state, session.dataset)
    first, following = parallel.prefetch_to_devices([cut, cut], devices)
    carried = ingredients.start(taking, network, 1, devices, passes.fold)
    carry = Carry(network.state, carried=carried)
    return step(carry, network.masks, first, np.float32(0)), following


def _score(session: Session, network: Network, dense: Network) -> Any:
    dataset, options = session.dataset, session.experiment.scoring
    count = options.micro_batch * parallel.device_count(session.devices) * len(dataset.groups)
    few = dataset.train.take(np.arange(min(len(dataset.train), count)))
    smaller = dataclasses.replace(session, dataset=dataclasses.replace(dataset, train=few))
    return score.average(smaller, network, SQUARES, over="groups", seed=0, dense=dense)


def _evaluate(session: Session, network: Network, dense: Network) -> Any:
    dataset, batch = session.dataset, session.experiment.execution.evaluation_batch
    count = 2 * batch * parallel.device_count(session.devices)
    few = dataset.test.take(np.arange(min(len(dataset.test), count)))
    smaller = dataclasses.replace(session, dataset=dataclasses.replace(dataset, test=few))
    return predict(smaller, network, "test").losses


# One call of a step with a network, and the dense one that a run holds beside it.
TRIALS: dict[str, Callable[[Session, Network, Network], Any]] = {
    "training": _train,
    "scoring": _score,
    "evaluation": _evaluate,
}
