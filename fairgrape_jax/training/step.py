"""One step of training: loss, gradient, update, for one device."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from fairgrape_jax import losses, parallel, remedies
from fairgrape_jax.data import augment
from fairgrape_jax.data.dataset import Dataset
from fairgrape_jax.masks import Tree, apply_masks
from fairgrape_jax.models import activations
from fairgrape_jax.remedies import Active, Batch, Made, Remedy
from fairgrape_jax.training import finite
from fairgrape_jax.training.finite import StepReport
from fairgrape_jax.training.ingredients import (
    after_step,
    evaluate_held_out,
    forward,
    frozen_names,
    loss_with_ingredients,
)
from fairgrape_jax.training.pictures import Draw, Pictures, prepare_pictures
from fairgrape_jax.training.state import Carry, State


class Companions(NamedTuple):
    """What stands beside a training step and does not change; None for what is not needed.

    Attributes:
        dense: the dense network's variables.
        groups: (N,) int32, the group of each training sample.
        held_groups: (M,) int32, that of each sample of the validation split.
    """

    dense: Tree = None
    groups: jax.Array | None = None
    held_groups: jax.Array | None = None

    def of(self, ids: jax.Array) -> jax.Array:
        """The groups of training samples, -1 for none.

        Args:
            ids: (B,) int32, their places in the split.
        """
        return jnp.full(ids.shape, -1) if self.groups is None else self.groups[ids]


NOTHING = Companions()


class Inputs(NamedTuple):
    """What the loss of a step looks at beside the parameters.

    Attributes:
        batch: of this device.
        pictures: of the batch, as the network sees them.
        teacher: the dense network's outputs; None where nothing looks at them.
        dropout_key: of this device and step.
    """

    batch: dict[str, jax.Array]
    pictures: Pictures
    teacher: losses.Outputs | None
    dropout_key: jax.Array


@dataclasses.dataclass(frozen=True, eq=False)
class TrainStep:
    """The step of one device; `make_train_step` says what its parts are.

    Attributes:
        module: the network.
        dataset: normalisation and classes.
        optimizer: gives directions.
        alter: changes pictures at random; None for none.
        mixup: its alpha.
        remedy: the terms of the loss.
        ingredients: what else takes part.
        groups: how many groups they see.
        features: the modules whose outputs the loss compares.
        still: the names of parameters that do not move.
    """

    module: nn.Module
    dataset: Dataset
    optimizer: optax.GradientTransformation
    alter: augment.Augmentation | None
    mixup: float
    remedy: Remedy | None
    ingredients: Sequence[Active]
    groups: int
    features: Sequence[str]
    still: frozenset[str]

    def train_step(
        self,
        carry: Carry,
        masks: Tree,
        batch: dict[str, jax.Array],
        rate: jax.Array,
        companions: Companions = NOTHING,
    ) -> tuple[Carry, StepReport]:
        """What is carried after the step, and its report.

        Args:
            carry: the state, and what ingredients carry.
            masks: bool leaves, None where not prunable.
            batch: of this device.
            rate: the learning rate.
            companions: what does not change.
        """
        state = carry.state
        inputs = self.look(state, batch, companions)
        objective = functools.partial(self.loss, carry, masks, inputs, companions)
        (loss, (batch_stats, carried)), gradients = jax.value_and_grad(objective, has_aux=True)(
            state.params
        )
        loss, batch_stats, gradients = jax.lax.pmean((loss, batch_stats, gradients), parallel.AXIS)

        def make() -> State:
            new = update(self.optimizer, state, masks, gradients, rate=rate, still=self.still)
            return new._replace(batch_stats=batch_stats)

        new = make()
        if not self.ingredients:
            return finite.accept(carry, new, loss, gradients, make=make)
        held_groups = companions.held_groups
        held_out = evaluate_held_out(
            self.module, self.dataset, masks, batch, held_groups, batch_stats=batch_stats
        )
        made = Made(new.params, masks, gradients, state.step, self.groups, held_out)
        carried = after_step(self.ingredients, carried, made)
        return finite.accept(carry, new, loss, gradients, carried, make=make)

    def look(self, state: State, batch: dict[str, jax.Array], companions: Companions) -> Inputs:
        """What the loss looks at, with the random draws of the step.

        Args:
            state: before the step.
            batch: of this device.
            companions: with the dense network, where it teaches.
        """
        run_key = jax.random.wrap_key_data(state.key)
        key = jax.random.fold_in(
            jax.random.fold_in(run_key, state.step), jax.lax.axis_index(parallel.AXIS)
        )
        dropout_key = jax.random.split(key)[1]
        draw = Draw(run_key, state.epoch)
        pictures = prepare_pictures(batch, self.dataset, self.alter, self.mixup, draw)
        teacher = None
        if companions.dense is not None:
            teacher, _ = run(self.module, companions.dense, pictures.images, self.features)
        return Inputs(batch, pictures, teacher, dropout_key)

    def loss(
        self, carry: Carry, masks: Tree, inputs: Inputs, companions: Companions, params: Tree
    ) -> tuple[jax.Array, tuple[Tree, Tree]]:
        """The mean loss of a batch; with it the running statistics and what ingredients carry.

        Args:
            carry: before the step.
            masks: bool leaves, None where not prunable.
            inputs: of the batch.
            companions: with the groups of samples.
            params: those that the loss is a function of.
        """
        state, pictures = carry.state, inputs.pictures
        shown = apply_masks(masks, forward(self.ingredients, carry.carried, params))
        variables = {"params": shown, "batch_stats": state.batch_stats}
        outputs, batch_stats = run(
            self.module, variables, pictures.images, self.features, inputs.dropout_key
        )
        if not self.ingredients:
            loss = mean_loss(outputs, pictures, self.dataset.classes, self.remedy, inputs.teacher)
            return loss, (batch_stats, carry.carried)
        view = Batch(
            params=shown,
            masks=masks,
            outputs=outputs,
            teacher=inputs.teacher,
            labels=pictures.labels,
            groups=companions.of(inputs.batch["ids"]),
            num_groups=self.groups,
            losses=jnp.zeros(()),
            correct=jnp.zeros(()),
            step=state.step,
        )
        loss, carried = loss_with_ingredients(
            self.ingredients,
            carry.carried,
            view,
            self.dataset.classes,
            self.remedy or Remedy(),
            mixed=pictures.mixed,
        )
        return loss, (batch_stats, carried)


def make_train_step(
    module: nn.Module,
    dataset: Dataset,
    optimizer: optax.GradientTransformation,
    *,
    augmentation: str = "none",
    remedy: Remedy | None = None,
    mixup: float = 0.0,
    ingredients: Sequence[Active] = (),
    groups: int = 0,
    parameters: Sequence[str] = (),
) -> Callable[..., tuple[Carry, StepReport]]:
    """The per-device step (carry, masks, batch, rate) -> (carry, report with the batch's loss).

    Parameters are masked in the forward pass and after the update, so a pruned weight is exactly
    zero whatever the optimizer does. Loss, gradients and running statistics are averaged over the
    devices, so that all stay equal; whether batch norm normalises by the statistics of all is the
    module's `axis_name`. A step that gives a number that is not finite is not made, on any device
    (`finite.accept`).

    The step takes masks like the parameters, None where not prunable; a batch of images
    (B, H, W, C) uint8, labels (B, T) int32, and ids (B,) int32 where pictures are altered, for the
    draws are those of (run, epoch, sample), on any number of devices; and the learning rate, ()
    float32.

    Args:
        module: the network.
        dataset: its pictures' normalisation and the classes of its tasks.
        optimizer: gives directions, a row of `OPTIMIZERS`.
        augmentation: a row of `augment.AUGMENTATIONS`.
        remedy: the terms of the loss, plain cross-entropy if None. The step then takes `Companions`
            as a fifth argument, and runs the dense network on the same pictures, in evaluation.
        mixup: its alpha; above 0 augmented pictures are mixed in pairs, and their cross-entropies.
        ingredients: what else takes part in the step, `remedies.Ingredient`.
        groups: how many groups they see.
        parameters: the names of all parameters in the order of the network, for those that freeze
            some.
    """
    return TrainStep(
        module=module,
        dataset=dataset,
        optimizer=optimizer,
        alter=augment.AUGMENTATIONS[augmentation],
        mixup=mixup,
        remedy=remedy,
        ingredients=ingredients,
        groups=groups,
        features=remedy.features if remedy and remedy.of_features else (),
        still=frozen_names(ingredients, parameters),
    ).train_step


def mean_loss(
    outputs: losses.Outputs,
    pictures: Pictures,
    classes: Sequence[int],
    remedy: Remedy | None,
    teacher: losses.Outputs | None,
) -> jax.Array:
    """The mean loss of a batch.

    Args:
        outputs: the network's.
        pictures: what it saw.
        classes: of each task.
        remedy: the terms of the loss.
        teacher: the dense network's outputs; plain cross-entropy if None.
    """
    labels, mixed = pictures.labels, pictures.mixed
    if remedy is not None and teacher is not None:
        return remedies.retraining_loss(
            remedy, outputs, teacher, labels, classes, gather=remedies.gather, mixed=mixed
        )
    if mixed:
        return losses.mixed_cross_entropy(outputs.logits, labels, *mixed, classes).mean()
    return losses.cross_entropy(outputs.logits, labels, classes).mean()


def update(
    optimizer: optax.GradientTransformation,
    state: State,
    masks: Tree,
    gradients: Tree,
    *,
    rate: jax.Array,
    still: frozenset[str] = frozenset(),
) -> State:
    """The state a step of the optimizer further, pruned weights at zero.

    Args:
        optimizer: gives directions.
        state: before the step.
        masks: bool leaves, None where not prunable.
        gradients: a tree like the parameters.
        rate: the learning rate.
        still: the names of parameters that do not move.
    """
    with jax.numpy_dtype_promotion("standard"):  # optax knows no strict one
        directions, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    params = jax.tree.map(lambda p, d: p - rate * d, state.params, directions)
    if still:
        moved, before = (flatten_dict(tree, sep="/") for tree in (params, state.params))
        held = {name: before[name] if name in still else leaf for name, leaf in moved.items()}
        params = unflatten_dict(held, sep="/")
    masked = apply_masks(masks, params)
    return state._replace(params=masked, opt_state=opt_state, step=state.step + 1)


def run(
    module: nn.Module,
    variables: Tree,
    images: jax.Array,
    names: Sequence[str] = (),
    dropout_key: jax.Array | None = None,
) -> tuple[losses.Outputs, Tree]:
    """The outputs of a network, with those of its modules `names`, and its batch statistics.

    Args:
        module: the network.
        variables: its parameters and batch statistics.
        images: (B, H, W, C) float32, normalised.
        names: paths of modules within it.
        dropout_key: runs it in training mode; in evaluation if None.
    """
    options: dict[str, Any] = {"mutable": ["batch_stats"], "train": False}
    if dropout_key is not None:
        options |= {"train": True, "rngs": {"dropout": dropout_key}}
    logits, features, changed = activations.run(module, variables, images, names, **options)
    return losses.Outputs(logits, features), changed.get("batch_stats", {})
