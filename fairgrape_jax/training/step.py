"""One step of training: loss, gradient, update, for one device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Float, Int

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
from fairgrape_jax.training.state import Carry, State


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
    alter = augment.AUGMENTATIONS[augmentation]
    names = remedy.features if remedy and remedy.of_features else ()
    still = frozen_names(ingredients, parameters)

    def train_step(
        carry: Carry,
        masks: Tree,
        batch: dict[str, jax.Array],
        rate: jax.Array,
        companions: Companions = NOTHING,
    ) -> tuple[Carry, StepReport]:
        state, dense = carry.state, companions.dense
        run_key = jax.random.wrap_key_data(state.key)
        key = jax.random.fold_in(
            jax.random.fold_in(run_key, state.step), jax.lax.axis_index(parallel.AXIS)
        )
        dropout_key = jax.random.split(key)[1]
        draw = Draw(run_key, state.epoch)
        pictures = prepare_pictures(batch, dataset, alter, mixup, draw)
        teacher = run(module, dense, pictures.images, names)[0] if dense is not None else None

        def objective(params: Tree) -> tuple[jax.Array, tuple[Tree, Tree]]:
            shown = apply_masks(masks, forward(ingredients, carry.carried, params))
            variables = {"params": shown, "batch_stats": state.batch_stats}
            outputs, batch_stats = run(module, variables, pictures.images, names, dropout_key)
            if not ingredients:
                loss = mean_loss(outputs, pictures, dataset.classes, remedy, teacher)
                return loss, (batch_stats, carry.carried)
            view = Batch(
                params=shown,
                masks=masks,
                outputs=outputs,
                teacher=teacher,
                labels=pictures.labels,
                groups=companions.of(batch["ids"]),
                num_groups=groups,
                losses=jnp.zeros(()),
                correct=jnp.zeros(()),
                step=state.step,
            )
            loss, carried = loss_with_ingredients(
                ingredients,
                carry.carried,
                view,
                dataset.classes,
                remedy or Remedy(),
                mixed=pictures.mixed,
            )
            return loss, (batch_stats, carried)

        (loss, (batch_stats, carried)), gradients = jax.value_and_grad(objective, has_aux=True)(
            state.params
        )
        loss, batch_stats, gradients = jax.lax.pmean((loss, batch_stats, gradients), parallel.AXIS)
        new = update(optimizer, state, masks, gradients, rate, still)
        new = new._replace(batch_stats=batch_stats)
        if not ingredients:
            return finite.accept(carry, new, loss, gradients)
        held_out = evaluate_held_out(
            module, dataset, masks, batch, companions.held_groups, batch_stats
        )
        made = Made(new.params, masks, gradients, state.step, groups, held_out)
        carried = after_step(ingredients, carried, made)
        return finite.accept(carry, new, loss, gradients, carried)

    return train_step


class Companions(NamedTuple):
    """What stands beside a training step and does not change; None for what is not needed.

    Attributes:
        dense: the dense network's variables.
        groups: (N,) int32, the group of each training sample.
        held_groups: (M,) int32, that of each sample of the validation split.
    """

    dense: Tree = None
    groups: Any = None
    held_groups: Any = None

    def of(self, ids: jax.Array) -> jax.Array:
        """The groups of training samples, -1 for none.

        Args:
            ids: (B,) int32, their places in the split.
        """
        return jnp.full(ids.shape, -1) if self.groups is None else self.groups[ids]


NOTHING = Companions()


class Draw(NamedTuple):
    """What random changes of pictures are a function of, with the number of a sample."""

    run_key: jax.Array
    epoch: jax.Array


class Pictures(NamedTuple):
    """What a network learns from in one step.

    Attributes:
        images: altered, maybe mixed in pairs, and normalised.
        labels: of each, or of the first of a pair.
        mixed: where there are pairs, the labels of the second and the share of the first.
    """

    images: Float[jax.Array, "B H W C"]
    labels: Int[jax.Array, "B T"]
    mixed: tuple[Int[jax.Array, "B T"], Float[jax.Array, " B"]] | None


def prepare_pictures(
    batch: dict[str, jax.Array],
    dataset: Dataset,
    alter: augment.Augmentation | None,
    mixup: float,
    draw: Draw,
) -> Pictures:
    """The pictures of a batch as the network sees them.

    Args:
        batch: images, labels, and ids where pictures are altered.
        dataset: the normalisation.
        alter: a row of `augment.AUGMENTATIONS`; None for the pictures as they are.
        mixup: its alpha, 0 for none.
        draw: for random changes.
    """
    images, labels, mixed = batch["images"], batch["labels"], None
    if alter is not None:
        images = augment.augment_batch(alter, *draw, batch["ids"], images)
    if mixup:
        pairs = augment.mixup(mixup, *draw, batch["ids"], images, labels=labels)
        images, mixed = pairs.images, (pairs.labels, pairs.share)
    return Pictures(augment.normalise(images, dataset.mean, dataset.std), labels, mixed)


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
