"""The programs that a run compiles, with the shapes of what they are called with."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from fairgrape_jax import config, scoring
from fairgrape_jax.config import Experiment
from fairgrape_jax.masks import Tree
from fairgrape_jax.plan import choice
from fairgrape_jax.plan.shapes import Program, Shapes, nbytes, network_and_dense
from fairgrape_jax.plan.statistics import statistics_of
from fairgrape_jax.remedies import Active, Measured, Setting, active
from fairgrape_jax.rounds.retraining import in_step
from fairgrape_jax.rounds.scored_network import WithTeacher
from fairgrape_jax.rounds.scoring_plan import plan_scoring
from fairgrape_jax.rounds.steps import scored_groups
from fairgrape_jax.scoring.statistics import Statistic
from fairgrape_jax.training.state import Carry
from fairgrape_jax.training.step import Companions


def programs(shapes: Shapes) -> dict[str, Callable[[], Program]]:
    """The programs of a run by name, each made when it is called for.

    In the order in which a run comes to them.

    Args:
        shapes: of the network, its data and its devices.

    Returns:
        A function that makes each.
    """
    experiment = shapes.session.experiment
    made: dict[str, Callable[[], Program]] = {"training": functools.partial(_training, shapes)}
    for name in experiment.methods:
        title = retraining_program(experiment, name)
        if title not in made:
            of_method = dataclasses.replace(shapes, session=shapes.session.of_method(name))
            made[title] = functools.partial(_retraining, of_method, title)
    passes = statistics_of(shapes)
    for number, (statistic, over, extra, asking) in enumerate(passes):
        # A run of FairGRAPE has one, and the name that everybody expects.
        name = "scoring" if number == 0 else f"scoring of {', '.join(dict.fromkeys(asking))}"
        name = name if name not in made else f"{name} {number + 1}"
        options = {"statistic": statistic, "over": over, "extra": extra, "name": name}
        made[name] = functools.partial(_scoring, shapes, **options)
    if passes and not experiment.execution.shard_groups:
        made["reduction"] = functools.partial(_reduction, shapes)
    made["evaluation"] = functools.partial(_evaluation, shapes)
    on_device = experiment.scoring.select == "threshold"
    methods = {config.method_of(experiment, name) for name in experiment.methods}
    maxmin_too = "fairgrape-maxmin" in methods  # which begins with FairGRAPE's choice
    if maxmin_too or ("fairgrape" in methods and on_device):
        made["selection"] = functools.partial(choice.make_selection, shapes)
    if maxmin_too and choice.large_layers(shapes):
        made["max-min"] = functools.partial(choice.make_maxmin, shapes)
    return made


def retraining_program(experiment: Experiment, method: str) -> str:
    """The name of the program by which a method is retrained.

    Args:
        experiment: what is planned.
        method: of the experiment.
    """
    remedy = config.apply_protocol(experiment, method).remedy
    rows = any(in_step(one.row) for one in active(remedy))
    if not (remedy.teaches or rows or experiment.quantise.active):
        return "training"
    if remedy == experiment.remedy:
        return "retraining"
    alike = [
        name
        for name in experiment.methods
        if config.apply_protocol(experiment, name).remedy == remedy
    ]
    return f"retraining of {', '.join(alike)}"


def train_batch(shapes: Shapes) -> dict[str, jax.ShapeDtypeStruct]:
    """A batch of training, cut over the devices.

    Args:
        shapes: of the network, its data and its devices.

    Returns:
        The shapes of the batch by name.
    """
    dataset, experiment = shapes.session.dataset, shapes.session.experiment
    each = experiment.batch // len(shapes.devices)
    return {
        "images": shapes.rows((each, *dataset.shape), np.uint8),
        "labels": shapes.rows((each, len(dataset.classes)), np.int32),
        "ids": shapes.rows((each,), np.int32),
    }


def _train(
    shapes: Shapes, name: str, function: Any, *more: Tree, carried: Tree = (), held: bool = False
) -> Program:
    session = shapes.session
    batch = train_batch(shapes)
    if held:
        batch |= {f"held_{name}": shape for name, shape in batch.items()}
    finite = jax.ShapeDtypeStruct((), np.bool_)
    carry = shapes.placed(Carry(shapes.network.state, finite, carried), None)
    masks = shapes.placed(shapes.network.masks, None)
    rate = shapes.placed(jax.ShapeDtypeStruct((), np.float32), None)
    calls = len(session.dataset.train) // session.experiment.batch
    arriving = nbytes(batch) // len(shapes.devices)
    dense = 0 if more else nbytes((shapes.network.state, shapes.network.masks))
    return Program(
        name=name,
        function=function,
        arguments=(carry, masks, batch, rate, *more),
        donated=nbytes(carry),
        resident=arriving + dense,
        calls=max(calls, 1),
        per="epoch",
    )


def _training(shapes: Shapes) -> Program:
    return _train(shapes, "training", shapes.session.steps.train)


def _retraining(shapes: Shapes, name: str) -> Program:
    session, network = shapes.session, shapes.network
    remedy, dataset = session.experiment.remedy, session.dataset
    rows = tuple(one for one in active(remedy) if in_step(one.row))
    teaches = remedy.teaches or any(row.teaches(options) for _, row, options in rows)
    held = any(row.held_out(options) for _, row, options in rows)

    def table(samples: int, needed: bool) -> Any:
        return jax.ShapeDtypeStruct((samples,), np.int32) if needed else None

    companions = Companions(
        network.variables if teaches else None,
        table(len(dataset.train), bool(rows)),
        table(len(dataset.validation), held),
    )
    function = session.steps.retrain(rows, session.experiment.quantise.active)
    carried = carried_shapes(shapes, rows)
    return _train(
        shapes,
        name,
        function,
        shapes.placed(companions, None),
        carried=carried,
        held=held,
    )


def carried_shapes(shapes: Shapes, rows: Sequence[Active]) -> Tree:
    """The shapes of what ingredients of retraining carry; () for nothing.

    Args:
        shapes: of the network, its data and its devices.
        rows: the ingredients.
    """
    if not rows:
        return ()
    dataset = shapes.session.dataset
    count = scored_groups(shapes.session.experiment, dataset)

    def nothing(split: str) -> Measured:
        samples = len(getattr(dataset, split))
        return Measured(np.zeros(samples), np.zeros(samples), np.zeros(samples, np.int32))

    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes.network.state.params)
    full = jax.tree.map(lambda x: np.ones(x.shape, bool), shapes.network.masks)
    setting = Setting(count, zeros, full, 0, 1, nothing, nothing)
    carried = {name: row.start(options, setting) for name, row, options in rows if row.start}
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), carried)


def _scoring(shapes: Shapes, *, statistic: Statistic, over: Any, extra: Tree, name: str) -> Program:
    session, network = shapes.session, shapes.network
    experiment, dataset = session.experiment, session.dataset
    plan = plan_scoring(session, statistic, over, 0)
    make = session.steps.accumulate_mixed if plan.mixed else session.steps.accumulate
    size = experiment.scoring.micro_batch
    slots = plan.schedule.order.shape[2]
    rows = len(plan.schedule.groups[0])
    sums = scoring.Sums(
        rows=jax.tree.map(lambda m: shapes.rows((rows, *m.shape), np.float32), network.masks),
        block=jax.tree.map(lambda m: shapes.rows(m.shape, np.float32), network.masks),
    )
    batch = {
        "images": shapes.rows((slots, size, *dataset.shape), np.uint8),
        "labels": shapes.rows((slots, size, len(dataset.classes)), np.int32),
        "group": shapes.rows((slots, size), np.int32),
        "valid": shapes.rows((slots, size), np.bool_),
        "number": shapes.rows((slots,), np.int32),
        "row": shapes.rows((slots,), np.int32),
        "start": shapes.rows((slots,), np.bool_),
        "end": shapes.rows((slots,), np.bool_),
    }
    statistics: Any = network.state.batch_stats
    if experiment.remedy.scores:
        statistics = WithTeacher(statistics, network.variables)
    whole = (network.state.params, statistics, network.masks, extra)
    held = nbytes(network.state.params) + nbytes(network.state.batch_stats)
    count = len(shapes.devices)
    return Program(
        name=name,
        function=make(statistic, len(dataset.groups), size),
        arguments=(sums, *(shapes.placed(part, None) for part in whole), batch),
        donated=nbytes(sums) // count,
        resident=network_and_dense(shapes) - held + nbytes(batch) // count,
        calls=len(plan.schedule.order),
        per="round",
    )


def _reduction(shapes: Shapes) -> Program:
    network, groups = shapes.network, len(shapes.session.dataset.groups)
    rows = jax.tree.map(lambda m: shapes.rows((groups, *m.shape), np.float32), network.masks)
    counts = shapes.placed(jax.ShapeDtypeStruct((groups,), np.float32), None)
    block = 4 * sum(math.prod(m.shape) for m in jax.tree.leaves(network.masks))
    return Program(
        name="reduction",
        function=shapes.session.steps.reduce(groups),
        arguments=(rows, counts),
        donated=nbytes(rows) // len(shapes.devices),
        resident=network_and_dense(shapes) + block,
        calls=1,
        per="round",
    )


def _evaluation(shapes: Shapes) -> Program:
    session, network = shapes.session, shapes.network
    dataset, size = session.dataset, session.experiment.execution.evaluation_batch
    batch = {
        "images": shapes.rows((size, *dataset.shape), np.uint8),
        "labels": shapes.rows((size, len(dataset.classes)), np.int32),
        "valid": shapes.rows((size,), np.bool_),
    }
    count = len(shapes.devices)
    held = (network.state.params, network.state.batch_stats, network.masks)
    return Program(
        name="evaluation",
        function=session.steps.evaluate,
        arguments=(*(shapes.placed(part, None) for part in held), batch),
        donated=0,
        resident=network_and_dense(shapes) - nbytes(held) + nbytes(batch) // count,
        calls=math.ceil(len(dataset.test) / (size * count)),
        per="round",
    )
