"""Training stages: epochs at falling rates, the best epoch, and going on in the middle of one."""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from fairgrape_jax import metrics, parallel, tracking, training
from fairgrape_jax.config import Stage
from fairgrape_jax.data import batches
from fairgrape_jax.data.prefetch import Clock
from fairgrape_jax.errors import Preempted
from fairgrape_jax.masks import Tree
from fairgrape_jax.parallel import preemption
from fairgrape_jax.progress import bar, say
from fairgrape_jax.rounds import ingredients, saves
from fairgrape_jax.rounds.epochs import Epoch, plan_epochs
from fairgrape_jax.rounds.ingredients import NOBODY, TakingPart
from fairgrape_jax.rounds.predict import predict, tally
from fairgrape_jax.rounds.saves import EpochRecord, Place, carried_part, save_on_stop
from fairgrape_jax.rounds.session import Network, Session
from fairgrape_jax.storage import resumable
from fairgrape_jax.storage.resumable import Passes
from fairgrape_jax.storage.slots import Slots
from fairgrape_jax.training import finite
from fairgrape_jax.training.epoch import Step
from fairgrape_jax.training.state import Carry, State

SILENCE = 20.0  # seconds of training after which an epoch gets a line of its own


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
                saves.save(train.slots, place)
    state = ingredients.finish(train.taking, place.carried, place.state, devices)
    return dataclasses.replace(place, state=state)


@dataclasses.dataclass(frozen=True)
class Reader:
    """The batches of all epochs that are left, and how long the loop waits for them."""

    samples: Iterator[dict[str, np.ndarray]]
    clock: Clock
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
        return cls(samples, Clock(), steps)


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
        saves.save(train.slots, dataclasses.replace(now, done=count, total=total))
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
