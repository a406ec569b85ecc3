"""The compiled steps of a run: what is built once and used in every round of every method."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict

from fairgrape_jax import evaluate, importance, losses, models, parallel, train
from fairgrape_jax.config import Experiment
from fairgrape_jax.data import augment, pipeline
from fairgrape_jax.data.types import Dataset, Split
from fairgrape_jax.importance import Execution
from fairgrape_jax.masks import Tree, full_masks


@dataclasses.dataclass(frozen=True)
class Steps:
    """The network, the optimizer and the lifted steps; each compiles once per run.

    slots: micro-batches per device and call of `accumulate`; layers: the names of the prunable
    layers in the order of the network, which a pytree of dicts does not keep.
    """

    devices: list[jax.Device]
    module: nn.Module
    optimizer: optax.GradientTransformation
    train: Callable[..., Any]
    evaluate: Callable[..., Any]
    accumulate: Callable[..., Any]
    reduce: Callable[..., Any]
    slots: int
    layers: tuple[str, ...]


def build(experiment: Experiment, dataset: Dataset, devices: list[jax.Device]) -> Steps:
    """Make every step of `experiment`; nothing is compiled before it is first called.

    devices: those of this process; the steps run on as many of every process.
    """
    module = models.create(
        experiment.model,
        sum(dataset.classes),
        axis_name=parallel.AXIS if experiment.sync_batch_stats else None,
        dtype=experiment.precision,
    )
    optimizer = train.OPTIMIZERS[experiment.optimizer](experiment.momentum, experiment.weight_decay)
    execution, slots = batching(devices[0].platform, len(dataset.groups))
    scoring = experiment.scoring

    def make_loss(batch_stats: Tree) -> importance.Loss:
        def loss(params: Tree, images: Any, labels: Any, valid: Any) -> jax.Array:
            pictures = augment.normalise(images, dataset.mean, dataset.std)
            logits: Any = module.apply({"params": params, "batch_stats": batch_stats}, pictures)
            each = losses.cross_entropy(logits, labels, dataset.classes)
            return losses.masked_mean(each, valid)

        return loss

    def lift(step: Callable[..., Any], in_axes: Any, out_axes: Any, donate: Any = ()) -> Any:
        return parallel.lift(
            step,
            devices,
            in_axes=in_axes,
            out_axes=out_axes,
            donate=donate,
            how=experiment.lift,
        )

    return Steps(
        devices=devices,
        module=module,
        optimizer=optimizer,
        train=lift(
            train.make_train_step(module, dataset, optimizer, experiment.augmentation),
            (None, None, 0, None),
            None,
            donate=(0,),
        ),
        evaluate=lift(evaluate.make_evaluate_step(module, dataset), (None, None, None, 0), None),
        accumulate=lift(
            importance.make_accumulate(make_loss, scoring.formula, execution),
            (0, None, None, None, 0),
            0,
            donate=(0,),
        ),
        reduce=lift(importance.make_reduce(scoring.formula), (0, None, None, None), None),
        slots=slots,
        layers=layer_order(module, dataset),
    )


def batching(platform: str, groups: int) -> tuple[Execution, int]:
    """How the micro-batches of one call are executed, and how many there are.

    On XLA:CPU one at a time, because convolutions batched over groups are slow there.
    """
    return ("unroll", 1) if platform == "cpu" else ("vmap", groups)


def layer_order(module: nn.Module, dataset: Dataset) -> tuple[str, ...]:
    """The names of the prunable layers in the order in which the network makes them."""
    names: list[str] = []

    def init(key: jax.Array) -> Any:
        variables = module.init(key, jnp.zeros((1, *dataset.shape)), train=False)
        flat = flatten_dict(variables["params"], sep="/")  # in order: no pytree has sorted it yet
        names.extend(name.removesuffix("/kernel") for name in flat if name.endswith("/kernel"))
        return variables

    jax.eval_shape(init, jax.random.key(0))
    return tuple(names)


def initial_state(experiment: Experiment, steps: Steps, dataset: Dataset, seed: int) -> train.State:
    """The state before training: fresh from the seed, or with pretrained weights but the head."""
    state = train.init_state(steps.module, dataset, steps.optimizer, seed)
    if experiment.pretrained:
        variables = models.load_pretrained(
            experiment.model,
            experiment.pretrained,
            {"params": state.params, "batch_stats": state.batch_stats},
        )
        state = state._replace(
            params=variables["params"], batch_stats=variables.get("batch_stats", {})
        )
    return parallel.replicate(state, steps.devices)


def initial_masks(steps: Steps, state: train.State) -> Tree:
    """Everything alive, on every device."""
    return parallel.replicate(full_masks(state.params), steps.devices)


def predict(
    experiment: Experiment, steps: Steps, state: train.State, masks: Tree, split: Split
) -> evaluate.Predictions:
    """What the masked network says of every sample of `split`."""
    return evaluate.predict(
        steps.evaluate,
        steps.devices,
        state.params,
        state.batch_stats,
        masks,
        split,
        experiment.evaluation_batch,
    )


def score(
    experiment: Experiment,
    steps: Steps,
    state: train.State,
    masks: Tree,
    dataset: Dataset,
    *,
    grouped: bool,
    seed: int,
) -> Tree:
    """Importance on the scoring sample of `seed`: NumPy tree of (G, *w.shape), or (1, *w.shape).

    Each device adds up its own micro-batches; there is one reduction at the end.
    """
    groups = len(dataset.groups)
    scoring = experiment.scoring
    plan = pipeline.group_batches(
        dataset.train, scoring.fraction, scoring.micro_batch, groups, seed, grouped=grouped
    )
    # One shape for both kinds: without groups, row 0 alone is used.
    sums = importance.empty_sums(masks, groups, steps.devices)
    count = parallel.device_count(steps.devices)
    batches = importance.micro_batches(dataset.train, plan, count, steps.slots, parallel.part())
    for batch in parallel.ahead(batches, steps.devices):
        sums = steps.accumulate(sums, state.params, state.batch_stats, masks, batch)
    counts = importance.counts(plan, groups, scoring.formula)
    reduced = jax.device_get(steps.reduce(sums, state.params, masks, counts))
    rows = groups if grouped else 1
    return jax.tree.map(lambda leaf: np.asarray(leaf)[:rows], reduced)
