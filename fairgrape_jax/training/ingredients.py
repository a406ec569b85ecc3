"""How ingredients of retraining take part in a step, one device of several."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from fairgrape_jax import losses, remedies
from fairgrape_jax.data import augment
from fairgrape_jax.data.dataset import Dataset
from fairgrape_jax.masks import Tree, apply_masks
from fairgrape_jax.remedies import Active, Batch, HeldOut, Made, Remedy

Mixed = tuple[Int[jax.Array, "B T"], Float[jax.Array, " B"]]


def frozen_names(ingredients: Sequence[Active], parameters: Sequence[str]) -> frozenset[str]:
    """The parameters that some ingredient freezes.

    Args:
        ingredients: those of the training.
        parameters: the names of all, in the order of the network.
    """
    rows = [(row.frozen, options) for _, row, options in ingredients]
    return frozenset(n for f, options in rows if f for n in f(options, tuple(parameters)))


def forward(ingredients: Sequence[Active], carried: Tree, params: Tree) -> Tree:
    """The parameters that the network runs with.

    Args:
        ingredients: those of the training.
        carried: by name.
        params: before their masks.
    """
    for name, row, options in ingredients:
        if row.forward is not None:
            params = row.forward(options, carried[name], params)
    return params


def correct_share(
    logits: jax.Array, labels: Int[jax.Array, "B T"], classes: Sequence[int]
) -> Float[jax.Array, " B"]:
    """The share of each sample's tasks that are predicted right.

    Args:
        logits: (B, sum of classes).
        labels: (B, T) int32.
        classes: of each task.

    Example:
        >>> correct_share(jnp.array([[0.0, 1.0, 5.0, 0.0]]), jnp.array([[1, 1]]), (2, 2)).tolist()
        [0.5]
    """
    return (losses.predictions(logits, classes) == labels).astype(jnp.float32).mean(axis=1)


def loss_with_ingredients(
    ingredients: Sequence[Active],
    carried: Tree,
    view: Batch,
    classes: Sequence[int],
    remedy: Remedy,
    *,
    mixed: Mixed | None = None,
    gather: Callable[[jax.Array], jax.Array] = remedies.gather,
) -> tuple[jax.Array, Tree]:
    """The loss of a batch on this device, and what is carried once it was looked at.

    Args:
        ingredients: those of the training.
        carried: by name.
        view: the batch; its losses and correctness are filled in here.
        classes: of each task.
        remedy: the weights of the terms.
        mixed: where pictures are mixed in pairs, as for `remedies.retraining_loss`.
        gather: brings together the parts of a batch.
    """
    outputs, teacher = view.outputs, view.teacher
    plain = remedies.label_losses(remedy, outputs, teacher, view.labels, classes, mixed=mixed)
    view = view._replace(
        losses=jax.lax.stop_gradient(plain),
        correct=correct_share(jax.lax.stop_gradient(outputs.logits), view.labels, classes),
    )
    weights, new = None, dict(carried)
    for name, row, options in ingredients:
        if row.weigh is not None:
            after, each = row.weigh(options, new.get(name, ()), view)
            new |= {name: after} if name in new else {}
            weights = each if weights is None else weights * each
    weights = None if weights is None else jax.lax.stop_gradient(weights)
    loss = remedies.retraining_loss(
        remedy,
        outputs,
        teacher,
        view.labels,
        classes,
        gather=gather,
        mixed=mixed,
        weights=weights,
    )
    for name, row, options in ingredients:
        if row.term is not None:
            loss += row.term(options, new.get(name, ()), view)
    return loss, jax.lax.stop_gradient(new) if new else carried


def after_step(ingredients: Sequence[Active], carried: Tree, made: Made) -> Tree:
    """What is carried on from a step.

    Args:
        ingredients: those of the training.
        carried: by name.
        made: the step.
    """
    new = dict(carried)
    for name, row, options in ingredients:
        if row.after_step is not None:
            new[name] = row.after_step(options, new[name], made)
    return new or carried


def evaluate_held_out(
    module: nn.Module,
    dataset: Dataset,
    masks: Tree,
    batch: dict[str, jax.Array],
    groups: jax.Array | None,
    *,
    batch_stats: Tree,
) -> Callable[[Tree], HeldOut] | None:
    """What `Made.held_out` is; None for a step without such a batch.

    Args:
        module: the network.
        dataset: its pictures' normalisation and the classes of its tasks.
        masks: bool leaves, None where not prunable.
        batch: with held_images, held_labels and held_ids.
        groups: (M,) of the validation split.
        batch_stats: running statistics.
    """
    if "held_images" not in batch or groups is None:
        return None
    images = augment.normalise(batch["held_images"], dataset.mean, dataset.std)
    labels = batch["held_labels"]

    def held_out(params: Tree) -> HeldOut:
        variables = {"params": apply_masks(masks, params), "batch_stats": batch_stats}
        logits: Tree = module.apply(variables, images, train=False)
        each = losses.cross_entropy(logits, labels, dataset.classes)
        right = correct_share(logits, labels, dataset.classes)
        return HeldOut(each, right, groups[batch["held_ids"]])

    return held_out
