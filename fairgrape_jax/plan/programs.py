"""The programs that a run compiles, with the shapes of what they are called with."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fairgrape_jax import parallel, scoring
from fairgrape_jax.config import Experiment
from fairgrape_jax.data.dataset import Dataset
from fairgrape_jax.masks import Tree, full_masks
from fairgrape_jax.methods import METHODS, Problem
from fairgrape_jax.remedies import Active, Measured, Setting, active
from fairgrape_jax.rounds import score, steps
from fairgrape_jax.rounds.session import Network, Session
from fairgrape_jax.rounds.steps import WithTeacher, in_step, scored_groups
from fairgrape_jax.scoring.statistics import GRADIENT, SQUARES, Statistic
from fairgrape_jax.selection import network as selection
from fairgrape_jax.selection.maxmin import tree as maxmin
from fairgrape_jax.selection.maxmin.layer import sampling_step
from fairgrape_jax.training.state import Carry, init_state
from fairgrape_jax.training.step import Companions


@dataclasses.dataclass(frozen=True)
class Program:
    """One compiled function of a run, before it is compiled.

    Attributes:
        name: "training", "retraining", "scoring" and so on.
        function: as the run has it, with a method `lower`.
        arguments: their shapes, dtypes and places.
        donated: bytes on one device of the arguments whose buffers the results take over.
        resident: bytes on one device of what else a run holds there meanwhile.
        calls: how often a round calls it, or an epoch for "training" and "retraining".
        per: "epoch" or "round".
    """

    name: str
    function: Any
    arguments: tuple[Any, ...]
    donated: int
    resident: int
    calls: int
    per: str


@dataclasses.dataclass(frozen=True)
class Shapes:
    """What a run has on its devices: the network as shapes, and how arrays lie there.

    Attributes:
        session: the run, with its steps on the target's devices.
        network: the state and the masks, as shapes without a place.
    """

    session: Session
    network: Network

    @property
    def devices(self) -> list[jax.Device]:
        """Those of the target, of all its hosts."""
        return self.session.devices

    def placed(self, tree: Tree, axis: int | None) -> Tree:
        """Shapes of arrays on the devices: cut along the first axis (0), or a copy each (None).

        Args:
            tree: shapes of arrays.
            axis: 0, or None.

        Returns:
            The same shapes, with where they lie.
        """
        spec = PartitionSpec() if axis is None else PartitionSpec(parallel.AXIS)
        place = NamedSharding(Mesh(np.asarray(self.devices), (parallel.AXIS,)), spec)
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), tree)

    def rows(self, shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
        """The shape of an array with a row for each device.

        Args:
            shape: of one row.
            dtype: of the array.

        Returns:
            The shape.
        """
        return self.placed(jax.ShapeDtypeStruct((len(self.devices), *shape), dtype), 0)


def shapes_of(experiment: Experiment, dataset: Dataset, devices: list[jax.Device]) -> Shapes:
    """The steps of an experiment on devices that may not be here, and the shapes of its network.

    Args:
        experiment: what is planned.
        dataset: with its numbers; its pictures are not looked at.
        devices: real ones or abstract.

    Returns:
        The shapes.
    """
    session = Session(experiment, dataset, steps.build(experiment, dataset, devices))
    module, optimizer = session.steps.module, session.steps.optimizer
    state = jax.eval_shape(lambda: init_state(module, dataset, optimizer, 0))
    masks = jax.tree.map(lambda m: jax.ShapeDtypeStruct(m.shape, m.dtype), full_masks(state.params))
    return Shapes(session, Network(state, masks))


def nbytes(tree: Tree) -> int:
    """Bytes of the arrays, or shapes of arrays, in a tree.

    Args:
        tree: arrays, or shapes of arrays; None counts nothing.

    Returns:
        Bytes.

    Example:
        >>> nbytes({"a": np.zeros(3, np.float32), "b": None})
        12
    """
    leaves = jax.tree.leaves(tree)
    return sum(math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize for leaf in leaves)


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
    if experiment.remedy.teaches or any(in_step(one.row) for one in active(experiment.remedy)):
        made["retraining"] = functools.partial(_retraining, shapes)
    passes = statistics_of(shapes)
    for number, (statistic, over, extra, methods) in enumerate(passes):
        # A run of FairGRAPE has one, and the name that everybody expects.
        name = "scoring" if number == 0 else f"scoring of {', '.join(dict.fromkeys(methods))}"
        name = name if name not in made else f"{name} {number + 1}"
        options = {"statistic": statistic, "over": over, "extra": extra, "name": name}
        made[name] = functools.partial(_scoring, shapes, **options)
    if passes and not experiment.execution.shard_groups:
        made["reduction"] = functools.partial(_reduction, shapes)
    made["evaluation"] = functools.partial(_evaluation, shapes)
    on_device = experiment.scoring.select == "threshold"
    maxmin_too = "fairgrape-maxmin" in experiment.methods  # which begins with FairGRAPE's choice
    if maxmin_too or ("fairgrape" in experiment.methods and on_device):
        made["selection"] = functools.partial(_selection, shapes)
    if maxmin_too and _large_layers(shapes):
        made["max-min"] = functools.partial(_maxmin, shapes)
    return made


def _network_and_dense(shapes: Shapes) -> int:
    """Bytes on a device of the network that is pruned, and of the dense one that it came from."""
    return 2 * nbytes((shapes.network.state, shapes.network.masks))


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


def _retraining(shapes: Shapes) -> Program:
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
    function = session.steps.retrain(rows)
    carried = carried_shapes(shapes, rows)
    return _train(
        shapes,
        "retraining",
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


class _EnoughSeenError(Exception):
    """A method has requested for its samples, and what it makes of them is not looked at."""


def statistics_of(shapes: Shapes) -> list[tuple[Statistic, Any, Tree, list[str]]]:
    """The passes over the scoring sample that the methods of an experiment ask for.

    Each method is put to a network of zeros, and what it asks for is written down.

    Args:
        shapes: of the network, its data and its devices.

    Returns:
        Of each pass the statistic, over what it is averaged, its extra arrays, and the methods that
        ask for it.
    """
    experiment, dataset = shapes.session.experiment, shapes.session.dataset
    requested: list[tuple[str, Statistic, Any, Tree]] = []

    def zeros(tree: Tree, lead: tuple[int, ...] = ()) -> Tree:
        return jax.tree.map(
            lambda x: np.broadcast_to(np.zeros((), x.dtype), (*lead, *x.shape)), tree
        )

    for method in experiment.methods:

        def average(
            statistic: Statistic,
            over: Any = "all",
            extra: Tree = None,
            params: Tree = None,
            method: str = method,
        ) -> Tree:
            requested.append((method, statistic, over, extra))
            rows = len(dataset.groups) if over == "groups" else 1
            masks = shapes.network.masks
            floats = jax.tree.map(lambda m: jax.ShapeDtypeStruct(m.shape, np.float32), masks)
            return zeros(floats, (rows,))

        def importance(over: Any, method: str = method) -> Tree:
            squares = experiment.scoring.formula == "sum-of-squares"
            requested.append((method, SQUARES if squares else GRADIENT, over, None))
            raise _EnoughSeenError

        if not {"scores", "a loss", "a run"} & set(METHODS[method].needs):
            continue
        question = Problem(
            params=zeros(shapes.network.state.params),
            masks=zeros(shapes.network.masks),
            importance=importance,
            average=average,
            module=shapes.session.steps.module,
            batch_stats=zeros(shapes.network.state.batch_stats),
            shape=dataset.shape,
            key=jax.random.key(0),
            layers=shapes.session.steps.layers,
            groups=len(dataset.groups),
            minority=(0,),
            official=experiment.protocol == "official",
        )
        with contextlib.suppress(_EnoughSeenError):
            METHODS[method].score(question)
    passes: list[tuple[Statistic, Any, Tree, list[str]]] = []
    for method, statistic, over, extra in requested:
        kind = "groups" if over == "groups" else "all"
        for known, known_over, _, methods in passes:
            if known == statistic and ("groups" if known_over == "groups" else "all") == kind:
                methods.append(method)
                break
        else:
            passes.append((statistic, over, extra, [method]))
    return passes


def _scoring(shapes: Shapes, *, statistic: Statistic, over: Any, extra: Tree, name: str) -> Program:
    session, network = shapes.session, shapes.network
    experiment, dataset = session.experiment, session.dataset
    plan = score.plan_scoring(session, statistic, over, 0)
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
        resident=_network_and_dense(shapes) - held + nbytes(batch) // count,
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
        resident=_network_and_dense(shapes) + block,
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
        resident=_network_and_dense(shapes) - nbytes(held) + nbytes(batch) // count,
        calls=math.ceil(len(dataset.test) / (size * count)),
        per="round",
    )


def _scores(shapes: Shapes) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Importance and masks as the choice takes them, leaf by leaf, on every device."""
    masks = jax.tree.leaves(shapes.network.masks)
    groups = len(shapes.session.dataset.groups)
    rows = tuple(jax.ShapeDtypeStruct((groups, *m.shape), np.float32) for m in masks)
    return shapes.placed(rows, None), shapes.placed(tuple(masks), None)


def _chosen_over(shapes: Shapes) -> tuple[jax.Device, ...]:
    """The devices that a choice is spread over, as `rounds.select` has it."""
    return () if shapes.devices[0].platform == "cpu" else tuple(shapes.devices)


def _segments(shapes: Shapes) -> tuple[int, ...]:
    allocation = shapes.session.experiment.scoring.allocation
    layers = selection.members(shapes.network.masks, allocation)
    return tuple(segment for segment, leaves in enumerate(layers.values()) for _ in leaves)


def _selection(shapes: Shapes) -> Program:
    rows, alive = _scores(shapes)
    segments = _segments(shapes)
    keep = shapes.placed(jax.ShapeDtypeStruct((segments[-1] + 1,), np.int32), None)
    devices = _chosen_over(shapes)
    function = selection.solve_leaves
    return Program(
        name="selection",
        function=_WithOptions(
            function, {"segments": segments, "finish": "greedy", "devices": devices}
        ),
        arguments=(rows, alive, keep),
        donated=0,
        # The means that the importances were copied from, on the first device.
        resident=_network_and_dense(shapes) + nbytes(rows),
        calls=1,
        per="round",
    )


def _large_layers(shapes: Shapes) -> list[int]:
    """Weights of the layers that the max-min choice passes over on devices; others are small."""
    sizes = [0] * (_segments(shapes)[-1] + 1)
    for mask, segment in zip(jax.tree.leaves(shapes.network.masks), _segments(shapes), strict=True):
        sizes[segment] += math.prod(mask.shape)
    return [size for size in sizes if sampling_step(size) > 1]


def _maxmin(shapes: Shapes) -> Program:
    rows, _ = _scores(shapes)
    devices = _chosen_over(shapes)
    shards = max(len(devices), 1)
    sizes = _large_layers(shapes)
    groups = rows[0].shape[0]
    joined = [jax.ShapeDtypeStruct((groups, n), np.float32) for n in sizes]
    masks = [jax.ShapeDtypeStruct((n,), np.bool_) for n in sizes]
    blocks = jax.eval_shape(lambda r, a: maxmin.pack_layers(r, a, shards), joined, masks)
    if len(devices) > 1:
        blocks = jax.tree.map(
            lambda axis, part: shapes.placed(part, axis),
            maxmin.CUT,
            blocks,
            is_leaf=lambda axis: axis is None,
        )
    else:
        blocks = shapes.placed(blocks, None)
    count = len(sizes)
    factor: Any = jax.ShapeDtypeStruct((count, groups), np.float32)
    number: Any = jax.ShapeDtypeStruct((count,), np.int32)
    window = shapes.placed(maxmin.Window(factor, factor, number, number), None)
    capacity = maxmin.capacity_of(sizes)
    return Program(
        name="max-min",
        function=_WithOptions(maxmin.survey_blocks, {"capacity": capacity, "devices": devices}),
        arguments=(blocks, window),
        donated=0,
        resident=_network_and_dense(shapes) + nbytes(rows),
        calls=1,
        per="round",
    )


@dataclasses.dataclass(frozen=True)
class _WithOptions:
    """A jitted function with its static arguments, which it takes by name."""

    function: Any
    options: dict[str, Any]

    def lower(self, *arguments: Any) -> Any:
        return self.function.lower(*arguments, **self.options)

    def trace(self, *arguments: Any) -> Any:
        return self.function.trace(*arguments, **self.options)


def counts_of(shapes: Shapes) -> dict[str, int]:
    """Parameters, prunable weights and bytes of a checkpoint.

    Args:
        shapes: of the network, its data and its devices.

    Returns:
        By name.
    """
    masks = jax.tree.leaves(shapes.network.masks)
    return {
        "parameters": sum(math.prod(p.shape) for p in jax.tree.leaves(shapes.network.state.params)),
        "weights": sum(math.prod(m.shape) for m in masks),
        "checkpoint_bytes": nbytes((shapes.network.state, shapes.network.masks)),
    }


__all__ = ["Program", "Shapes", "counts_of", "nbytes", "programs", "shapes_of"]
