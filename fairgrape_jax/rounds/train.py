"""Training stages: epochs at falling rates, the best epoch, and going on in the middle of one."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np

from fairgrape_jax import metrics, parallel, tracking, training
from fairgrape_jax.config import Stage
from fairgrape_jax.data import batches
from fairgrape_jax.errors import Preempted
from fairgrape_jax.masks import Tree
from fairgrape_jax.parallel import preemption
from fairgrape_jax.progress import bar, say
from fairgrape_jax.rounds import ingredients
from fairgrape_jax.rounds.ingredients import NOBODY, TakingPart
from fairgrape_jax.rounds.predict import predict, tally
from fairgrape_jax.rounds.session import Network, Session
from fairgrape_jax.storage import resumable
from fairgrape_jax.storage.resumable import Passes
from fairgrape_jax.storage.slots import Slots
from fairgrape_jax.systems.options import epochs_before_choice
from fairgrape_jax.training import finite
from fairgrape_jax.training.epoch import Step
from fairgrape_jax.training.state import Carry, State

SILENCE = 20.0  # seconds of training after which an epoch gets a line of its own

EpochRecord = dict[str, float]


@dataclasses.dataclass(frozen=True)
class Training:
    """What stays the same through the epochs of one training.

    Attributes:
        session: the run.
        masks: on the devices.
        step: the lifted step, called as `Steps.train`.
        seed: of the order of the data.
        title: for messages.
        slots: where the place is saved.
        passes: how evaluations are made.
        taking: the ingredients of retraining that take part.
        series: of its scalars where the run is tracked, the method of a seed.
        quantised: whether its step runs the network with the quantisers of the run.
    """

    session: Session
    masks: Tree
    step: Step
    seed: int
    title: str
    slots: Slots
    passes: Passes
    taking: TakingPart = NOBODY
    series: str = ""
    quantised: bool = False


@dataclasses.dataclass(frozen=True)
class Place:
    """How far a training is: what a save holds.

    Attributes:
        state: on the devices.
        history: the record of each epoch that is complete.
        best: the state after the epoch of the lowest validation loss in this stage, in NumPy
            arrays; None where none is sought, or yet.
        best_loss: that loss; infinity for none.
        done: steps made of the epoch that is under way.
        total: the sum of their losses.
        trained: the record of an epoch that is trained and not yet evaluated.
        carried: what ingredients carry, on the devices; () for nothing.
    """

    state: State
    history: tuple[EpochRecord, ...] = ()
    best: State | None = None
    best_loss: float = math.inf
    done: int = 0
    total: float = 0.0
    trained: EpochRecord | None = None
    carried: Tree = ()


class Epoch(NamedTuple):
    """An epoch of the plan: its learning rate, whether the best is sought, whether it is the last
    of its stage."""

    rate: float
    seeks_best: bool
    ends_stage: bool


def run_stages(
    train: Training,
    state: State,
    stages: Sequence[Stage],
    after: Callable[[int, State], None] = lambda epochs, state: None,
) -> Place:
    """Train through stages.

    Every `resumable.SAVE_EVERY` seconds, and after a notice of preemption, the place is saved, in
    the middle of an epoch or at its end; called again with the same arguments, training goes on
    from there to the same bits.

    Args:
        train: which training.
        state: where it begins, on the devices, which take over its buffers.
        stages: what to go through.
        after: called with the number of epochs done, and the state after the last one.

    Returns:
        The place at the end.

    Raises:
        Preempted: after a notice, when the step is done and the place is saved.
        NotFiniteError: for a step or an evaluation that is not finite.
    """
    plan, devices = plan_epochs(stages), train.session.devices
    network = Network(state, train.masks)
    carried = ingredients.start(train.taking, network, len(plan), devices, train.passes)
    place = restore_place(train, state, carried)
    reader = Reader.at(train, place, len(plan))
    reported = time.perf_counter()
    with train.slots, bar(train.title, reader.steps_left) as advance:
        for epoch in plan[len(place.history) :]:
            place = train_one_epoch(train, place, epoch, reader, advance)
            place = evaluate_epoch(train, place, epoch, len(plan))
            tracking.log_epoch(train.series, place.history[-1])
            after(len(place.history), place.state)
            place = restore_best(train, place, epoch)
            line = epoch_line(place.history, len(plan))
            advance(note=line)
            if time.perf_counter() - reported > SILENCE:
                reported = time.perf_counter()
                say(f"{train.title}: {line}  input wait {reader.clock.milliseconds:.1f} ms/step")
            if train.slots.due():
                save(train.slots, place)
    state = ingredients.finish(train.taking, place.carried, place.state, devices)
    return dataclasses.replace(place, state=state)


@dataclasses.dataclass(frozen=True)
class Reader:
    """The batches of all epochs that are left, and how long the loop waits for them."""

    samples: Iterator[dict[str, np.ndarray]]
    clock: batches.Clock
    steps_left: int

    @classmethod
    def at(cls, train: Training, place: Place, count: int) -> Reader:
        """From a place on, through a plan of `count` epochs.

        Args:
            train: which training.
            place: how far it is.
            count: the epochs of the whole plan.
        """
        split, batch = train.session.dataset.train, train.session.experiment.batch
        left = count - len(place.history) - (place.trained is not None)
        samples = batches.train_batches(
            split,
            batch,
            train.seed,
            int(place.state.epoch),
            start=place.done,
            part=parallel.process_index_and_count(),
            epochs=left,
            order=train.taking.order,
            held_out=train.taking.held_out,
        )
        steps = left * batches.steps_per_epoch(len(split), batch) - place.done
        return cls(samples, batches.Clock(), steps)


def train_one_epoch(
    train: Training, place: Place, epoch: Epoch, reader: Reader, advance: Callable[..., None]
) -> Place:
    """The place when an epoch is trained; as it is if it was.

    Args:
        train: which training.
        place: how far it is.
        epoch: of the plan.
        reader: the batches that are left.
        advance: called after each step.
    """
    if place.trained is not None:
        return place
    session = train.session
    state, loss, carried = training.train_epoch(
        train.step,
        place.state,
        train.masks,
        session.dataset.train,
        devices=session.devices,
        batch=session.experiment.batch,
        rate=epoch.rate,
        seed=train.seed,
        parameters=session.steps.parameters,
        done=place.done,
        total=place.total,
        advance=advance,
        pause=functools.partial(pause, train, place),
        clock=reader.clock,
        samples=reader.samples,
        carried=place.carried,
        order=train.taking.order,
    )
    record = {"epoch": int(state.epoch), "rate": epoch.rate, "loss": loss}
    return dataclasses.replace(
        place, state=state, done=0, total=0.0, trained=record, carried=carried
    )


def pause(
    train: Training, place: Place, carry: Carry, count: int
) -> Callable[[float], None] | None:
    """What to do after step `count` of an epoch that began at `place`: None, save, or stop.

    The processes ask each other for the time, so not at every step.

    Args:
        train: which training.
        place: where the epoch began.
        carry: after the step.
        count: steps made of the epoch.
    """
    session = train.session
    last = batches.steps_per_epoch(len(session.dataset.train), session.experiment.batch)
    stop = preemption.stop_requested()
    look = count % resumable.LOOK_EVERY == 0 and count < last
    if not stop and not (look and train.slots.due()):
        return None

    def keep(total: float) -> None:
        now = dataclasses.replace(place, state=carry.state, carried=carry.carried)
        save(train.slots, dataclasses.replace(now, done=count, total=total))
        if stop:
            epochs = len(place.history)
            raise Preempted(f"{train.title}, saved after epoch {epochs}, step {count}")

    return keep


def evaluate_epoch(train: Training, place: Place, epoch: Epoch, count: int) -> Place:
    """The place when a trained epoch is evaluated, if the best one is sought, and recorded.

    Args:
        train: which training.
        place: how far it is.
        epoch: of the plan.
        count: the epochs of the plan.
    """
    record, best, best_loss = dict(place.trained or {}), place.best, place.best_loss
    network, carried = Network(place.state, train.masks), place.carried
    if train.taking.active:
        with save_on_stop(train.slots, place):
            done, fold = len(place.history) + 1, train.passes
            setting = ingredients.make_setting(
                train.taking, network, epoch=done, epochs=count, fold=fold
            )
            carried = ingredients.after_epoch(train.taking, carried, setting, train.session.devices)
    if epoch.seeks_best:
        with save_on_stop(train.slots, place):
            predictions = predict(train.session, network, "validation", train.passes)
        record["validation_loss"] = float(predictions.losses.mean(dtype=np.float64))
        counts = tally(train.session.dataset, predictions)
        record["validation_accuracy"] = float(metrics.accuracy(counts))
        if record["validation_loss"] < best_loss:
            best, best_loss = finite.to_host(place.state), record["validation_loss"]
        train.passes.clear()
    history = (*place.history, record)
    return Place(place.state, history, best, best_loss, carried=carried)


def restore_best(train: Training, place: Place, epoch: Epoch) -> Place:
    """At the end of a stage the place with the state of its best epoch, if one was sought.

    The counters go on: no epoch's order and no step's key is used twice.

    Args:
        train: which training.
        place: how far it is.
        epoch: of the plan.
    """
    if not epoch.ends_stage or place.best is None:
        return place
    best = place.best._replace(step=place.state.step, epoch=place.state.epoch)
    state = parallel.replicate(best, train.session.devices)
    return Place(state, place.history, carried=place.carried)


def epoch_line(history: Sequence[EpochRecord], count: int) -> str:
    """The last epoch in words.

    Args:
        history: the record of each epoch.
        count: the epochs of the plan.
    """
    record = history[-1]
    line = f"epoch {len(history)}/{count}  loss {record['loss']:.4f}"
    if "validation_accuracy" in record:
        line += f"  validation accuracy {record['validation_accuracy']:.1f}"
    return line


@contextlib.contextmanager
def save_on_stop(slots: Slots, place: Place) -> Iterator[None]:
    """Save a place if a notice comes while the body looks at what was trained.

    Args:
        slots: where places are saved.
        place: how far the training is.
    """
    try:
        yield
    except Preempted:
        save(slots, place)
        slots.wait()
        raise


def save(slots: Slots, place: Place) -> None:
    """Begin to save a place; the files are written while training goes on.

    Args:
        slots: where places are saved.
        place: how far the training is.
    """
    has_best = place.best is not None
    metadata = {"history": list(place.history), "done": place.done, "total": place.total}
    metadata |= {"trained": place.trained, "best_loss": place.best_loss if has_best else None}
    metadata |= {"step": int(place.state.step)}
    tree = {"state": place.state, "best": place.best if has_best else place.state}
    slots.save(tree | carried_part(place.carried), metadata)


def carried_part(carried: Tree) -> dict[str, Tree]:
    """What a save holds of what ingredients carry; nothing where they carry nothing.

    Args:
        carried: by name, or ().
    """
    return {"carried": carried} if jax.tree.leaves(carried) else {}


def restore_place(train: Training, state: State, carried: Tree = ()) -> Place:
    """The place to go on from; a new one at `state` if none is saved.

    Args:
        train: which training.
        state: where it begins.
        carried: what ingredients carry there.
    """
    saved = train.slots.restore({"state": state, "best": state} | carried_part(carried))
    if saved is None:
        return Place(state, carried=carried)
    tree, metadata = saved
    has_best = metadata["best_loss"] is not None
    place = Place(
        state=parallel.replicate(tree["state"], train.session.devices),
        history=tuple(metadata["history"]),
        best=tree["best"] if has_best else None,
        best_loss=metadata["best_loss"] if has_best else math.inf,
        done=metadata["done"],
        total=metadata["total"],
        trained=metadata["trained"],
        carried=parallel.replicate(tree.get("carried", carried), train.session.devices),
    )
    step = f", step {place.done}" if place.done else ""
    say(f"{train.title}: going on after epoch {len(place.history)}{step}")
    return place


def split_stage(stage: Stage, part: float) -> tuple[Stage, Stage]:
    """A stage in two: a part of its epochs, at least one where it has any, and the rest.

    Args:
        stage: what is split.
        part: of its epochs, 0 to 1, rounded.

    Returns:
        The first, which ends with its last epoch and seeks no best one, and the second.

    Example:
        >>> split_stage(Stage((2, 1), (0.1, 0.01), best=True), 0.5)[1]
        Stage(epochs=(1,), rates=(0.01,), best=True)
    """
    rates = [r for n, r in zip(stage.epochs, stage.rates, strict=True) for _ in range(n)]
    count = epochs_before_choice(len(rates), part)

    def joined(rates: Sequence[float], best: bool) -> Stage:
        pieces = [(len(list(same)), rate) for rate, same in itertools.groupby(rates)]
        return Stage(tuple(n for n, _ in pieces), tuple(r for _, r in pieces), best)

    return joined(rates[:count], False), joined(rates[count:], stage.best)


def plan_epochs(stages: Sequence[Stage]) -> list[Epoch]:
    """The epochs of stages, one after another.

    Args:
        stages: what to go through.

    Example:
        >>> stages = [Stage((2,), (0.1,)), Stage((1,), (0.01,), best=True)]
        >>> [tuple(epoch) for epoch in plan_epochs(stages)]
        [(0.1, False, False), (0.1, False, True), (0.01, True, True)]
    """
    plan = []
    for stage in stages:
        pieces = zip(stage.epochs, stage.rates, strict=True)
        rates = [rate for count, rate in pieces for _ in range(count)]
        plan += [Epoch(rate, stage.best, i + 1 == len(rates)) for i, rate in enumerate(rates)]
    return plan
