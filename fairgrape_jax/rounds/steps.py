"""The compiled steps of a run: built once, used in every round of every method."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from fairgrape_jax import models, parallel, scoring
from fairgrape_jax.config import Experiment
from fairgrape_jax.data.dataset import Dataset
from fairgrape_jax.errors import UsageError
from fairgrape_jax.masks import Tree
from fairgrape_jax.models.activations import module_names
from fairgrape_jax.remedies import Active, Remedy
from fairgrape_jax.rounds.parameters import initial_shapes, prunable_layers
from fairgrape_jax.rounds.scored_network import make_scored_network
from fairgrape_jax.scoring.importance import Execution
from fairgrape_jax.scoring.statistics import ScoredNetwork, Statistic
from fairgrape_jax.scoring.uncleared import Uncleared, make_add_uncleared
from fairgrape_jax.systems.quantised import quantised_layers, with_quantisers
from fairgrape_jax.training import evaluate
from fairgrape_jax.training.optimizers import OPTIMIZERS
from fairgrape_jax.training.state import State
from fairgrape_jax.training.step import make_train_step

# How micro-batches are executed where `execution.micro_batches` is "auto"; "single" where a
# platform has no row. Single is the one that takes no memory beyond the sums and one gradient.
EXECUTIONS: dict[str, Literal["single", Execution]] = {
    # Against a plain gradient pass over the same images, 7 groups of 16, on 2 cores: a ResNet-18 at
    # 64 pixels takes 1.00 single and 1.32 by vmap, the small CNN at 28 pixels 1.11 single, 1.50
    # unrolled, 1.86 by vmap, and 12.5 in a scan (experiments/benchmarks/importance.py).
    "cpu": "single",
}


LiftedStep = Callable[..., Any]  # of arrays by position, each a row per device or everywhere alike
Accumulate = Callable[[Statistic, int, int], LiftedStep]  # (statistic, groups, micro-batch)


@dataclasses.dataclass(frozen=True)
class Steps:
    """The network, the optimizer and the lifted steps; each compiles once per run.

    Attributes:
        devices: those of this process.
        module: the network.
        quantised: it with its quantisers, as it is retrained and evaluated; `module` where the
            experiment has none.
        optimizer: gives directions, before the learning rate.
        train: the lifted `training.make_train_step`.
        retrain: (ingredients, quantised) to the step as train, with the terms of `remedy` and
            ingredients of retraining, and their `training.step.Companions` after the rest; of
            `quantised` or of `module`.
        evaluate: the lifted `evaluate.make_evaluate_step`.
        accumulate: (statistic, groups, micro-batch) -> the step that adds up a statistic.
        accumulate_mixed: likewise, for gradients of groups where `scoring.form` is "mixed".
        reduce: (groups) -> the step that makes means of the sums.
        add_uncleared: that of `scoring.uncleared`, on one device.
        slots: micro-batches per device and call of `accumulate`.
        parameters: the names of all parameters in the order of the network, which a pytree of
            dicts does not keep.
        layers: those of the prunable layers, likewise.
    """

    devices: list[jax.Device]
    module: nn.Module
    quantised: nn.Module
    optimizer: optax.GradientTransformation
    train: LiftedStep
    retrain: Callable[[tuple[Active, ...], bool], LiftedStep]
    evaluate: LiftedStep
    accumulate: Accumulate
    accumulate_mixed: Accumulate
    reduce: Callable[[int], LiftedStep]
    add_uncleared: Callable[..., Uncleared]
    slots: int
    parameters: tuple[str, ...]
    layers: tuple[str, ...]


def build(experiment: Experiment, dataset: Dataset, devices: list[jax.Device]) -> Steps:
    """Make every step of an experiment; nothing is compiled before it is first called.

    Args:
        experiment: what is done.
        dataset: the data that it is done with.
        devices: those of this process; the steps run on as many of every process.
    """
    module = models.create(
        experiment.model,
        sum(dataset.classes),
        axis_name=parallel.AXIS if experiment.sync_batch_stats else None,
        dtype=experiment.precision,
    )
    quantised = with_quantisers(module, experiment.quantise, parallel.AXIS)
    optimizer = OPTIMIZERS[experiment.optimizer](experiment.momentum, experiment.weight_decay)
    remedy = with_features(experiment, module, dataset)
    order, shapes = initial_shapes(module, dataset)
    if experiment.quantise.active:
        check_quantisers(quantised, dataset, prunable_layers(order, shapes).values())
    lift = functools.partial(parallel.lift, devices=devices, by=experiment.execution.lift)
    train = functools.partial(
        make_train_step,
        dataset=dataset,
        optimizer=optimizer,
        augmentation=experiment.augmentation,
        mixup=experiment.mixup,
    )
    retraining = functools.partial(
        train, remedy=remedy, groups=scored_groups(experiment, dataset), parameters=order
    )
    execution, slots = batching(devices[0].platform, len(dataset.groups), experiment)
    network = make_scored_network(module, dataset, experiment.scoring.form, remedy.pw)
    accumulate, accumulate_mixed, reduce = scoring_steps(lift, network, execution)
    return Steps(
        devices=devices,
        module=module,
        quantised=quantised,
        optimizer=optimizer,
        train=lift(train(module), in_axes=(None, None, 0, None), out_axes=None, donate=(0,)),
        retrain=retraining_steps(lift, retraining, (module, quantised)),
        evaluate=lift(
            evaluate.make_evaluate_step(quantised, dataset),
            in_axes=(None, None, None, 0),
            out_axes=None,
        ),
        accumulate=accumulate,
        accumulate_mixed=accumulate_mixed,
        reduce=reduce,
        add_uncleared=jax.jit(make_add_uncleared(network), donate_argnums=0),
        slots=slots,
        parameters=order,
        layers=tuple(prunable_layers(order, shapes, experiment.prunable).values()),
    )


def retraining_steps(
    lift: Callable[..., LiftedStep],
    make_step: Callable[..., Callable[..., Tree]],
    modules: tuple[nn.Module, nn.Module],
) -> Callable[[tuple[Active, ...], bool], LiftedStep]:
    """`Steps.retrain`.

    Args:
        lift: (step, in_axes=, out_axes=, donate=) to the lifted step.
        make_step: (module, ingredients=) to the step of one device.
        modules: the network, and it with its quantisers.
    """

    @functools.cache
    def retrain(ingredients: tuple[Active, ...], quantised: bool) -> LiftedStep:
        step = make_step(modules[int(quantised)], ingredients=ingredients)
        return lift(step, in_axes=(None, None, 0, None, None), out_axes=None, donate=(0,))

    return retrain


def scoring_steps(
    lift: Callable[..., LiftedStep],
    make_network: Callable[[Tree], ScoredNetwork],
    execution: Execution,
) -> tuple[Accumulate, Accumulate, Callable[[int], LiftedStep]]:
    """`Steps.accumulate`, `Steps.accumulate_mixed` and `Steps.reduce`.

    Args:
        lift: (step, in_axes=, out_axes=, donate=) to the lifted step.
        make_network: (batch_stats) to the network that is scored.
        execution: how the micro-batches of one call are executed.
    """
    # The sums and the batch of each device; the network, its masks and more are everywhere alike.
    adding = functools.partial(
        lift, in_axes=(0, None, None, None, None, 0), out_axes=0, donate=(0,)
    )

    @functools.cache
    def accumulate(statistic: Statistic, groups: int, size: int) -> LiftedStep:
        return adding(scoring.make_accumulate(make_network, statistic, execution))

    @functools.cache
    def accumulate_mixed(statistic: Statistic, groups: int, size: int) -> LiftedStep:
        return adding(scoring.make_accumulate_mixed(make_network, groups, statistic, execution))

    @functools.cache
    def reduce(groups: int) -> LiftedStep:
        # In place of the sums, which come back as every device's copy of the means.
        return lift(scoring.reduce_to_means, in_axes=(0, None), out_axes=0, donate=(0,))

    return accumulate, accumulate_mixed, reduce


def variables(state: State) -> Tree:
    """The parameters and running statistics of a network.

    Args:
        state: of the network.
    """
    return {"params": state.params, "batch_stats": state.batch_stats}


def with_features(experiment: Experiment, module: nn.Module, dataset: Dataset) -> Remedy:
    """The remedy with the names of its features. UsageError for a name that is no module's.

    Args:
        experiment: what is done.
        module: its network.
        dataset: for the shape of a picture.
    """
    remedy = experiment.remedy
    if not remedy.of_features:
        return remedy
    names = remedy.features or models.FEATURES.get(experiment.model, ())
    if not names:
        raise UsageError(f"remedy.features: name the modules of {experiment.model} to compare")
    modules = module_names(module, dataset.shape)
    for name in names:
        if name not in modules:
            raise UsageError(
                f"remedy.features: {name!r} is no module of {experiment.model}: choose from "
                f"{', '.join(modules)}"
            )
    return dataclasses.replace(remedy, features=tuple(names))


def scored_groups(experiment: Experiment, dataset: Dataset) -> int:
    """How many groups scores and ingredients of retraining look at: people's, or clusters.

    Args:
        experiment: what is done.
        dataset: the data that it is done with.
    """
    clusters = experiment.scoring.groups
    return clusters.count if clusters else len(dataset.groups)


def check_quantisers(quantised: nn.Module, dataset: Dataset, layers: Iterable[str]) -> None:
    """UsageError for a layer with weights that has no quantisers.

    Args:
        quantised: a network with quantisers.
        dataset: for the shape of a picture.
        layers: its layers.
    """

    def init(key: jax.Array) -> Tree:
        return quantised.init(key, jnp.zeros((1, *dataset.shape)), train=False)["batch_stats"]

    have = quantised_layers(jax.eval_shape(init, jax.random.key(0)))
    if without := [name for name in layers if name not in have]:
        raise UsageError(
            f"quantise: layer {without[0]} is no Linen convolution or dense layer, whose weights "
            "and activations can be quantised; give 0 bits, or another model"
        )


def batching(platform: str, groups: int, experiment: Experiment) -> tuple[Execution, int]:
    """How the micro-batches of one call are executed, and how many there are on a device.

    A mixed micro-batch is a call of its own: the execution is then that of its G backward passes.

    Args:
        platform: of the devices.
        groups: how many there are.
        experiment: what is done.
    """
    execution = experiment.execution.micro_batches
    if execution == "auto":
        execution = EXECUTIONS.get(platform, "single")
    if execution == "single":
        return "unroll", 1
    return execution, 1 if experiment.scoring.form == "mixed" else groups
