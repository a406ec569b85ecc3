"""One step of training: loss, gradient, update, for one device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import optax

from fairgrape_jax import losses, parallel
from fairgrape_jax.data import augment
from fairgrape_jax.data.dataset import Dataset
from fairgrape_jax.losses.distillation import Remedy
from fairgrape_jax.masks import Tree, apply_masks
from fairgrape_jax.models import activations
from fairgrape_jax.training import finite
from fairgrape_jax.training.finite import StepReport
from fairgrape_jax.training.state import Carry


def make_train_step(
    module: nn.Module,
    dataset: Dataset,
    optimizer: optax.GradientTransformation,
    *,
    augmentation: str = "none",
    remedy: Remedy | None = None,
    mixup: float = 0.0,
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
        remedy: the terms of the loss, plain cross-entropy if None. The step then takes the dense
            network's variables as a fifth argument and runs it on the same pictures, in evaluation.
        mixup: its alpha; above 0 augmented pictures are mixed in pairs, and their cross-entropies.
    """
    alter = augment.AUGMENTATIONS[augmentation]  # None: the pictures as they are

    def train_step(
        carry: Carry,
        masks: Tree,
        batch: dict[str, jax.Array],
        rate: jax.Array,
        dense: Tree | None = None,
    ) -> tuple[Carry, StepReport]:
        state = carry.state
        run_key = jax.random.wrap_key_data(state.key)
        key = jax.random.fold_in(
            jax.random.fold_in(run_key, state.step), jax.lax.axis_index(parallel.AXIS)
        )
        dropout_key = jax.random.split(key)[1]
        images = batch["images"]
        if alter is not None:
            images = augment.augment_batch(alter, run_key, state.epoch, batch["ids"], images)
        mixed = None
        if mixup:
            pairs = augment.mixup(
                mixup, run_key, state.epoch, batch["ids"], images, labels=batch["labels"]
            )
            images, mixed = pairs.images, (pairs.labels, pairs.share)
        images = augment.normalise(images, dataset.mean, dataset.std)

        names = remedy.features if remedy and remedy.of_features else ()
        teacher = run(module, dense, images, names)[0] if dense is not None else None

        def objective(params: Tree) -> tuple[jax.Array, Tree]:
            outputs, batch_stats = run(
                module,
                {"params": apply_masks(masks, params), "batch_stats": state.batch_stats},
                images,
                names,
                dropout_key,
            )
            labels, classes = batch["labels"], dataset.classes
            if remedy is not None and teacher is not None:
                loss = losses.retraining_loss(
                    remedy, outputs, teacher, labels, classes, gather=all_gather_batch, mixed=mixed
                )
            elif mixed:
                loss = losses.mixed_cross_entropy(outputs.logits, labels, *mixed, classes).mean()
            else:
                loss = losses.cross_entropy(outputs.logits, labels, classes).mean()
            return loss, batch_stats

        (loss, batch_stats), gradients = jax.value_and_grad(objective, has_aux=True)(state.params)
        loss, batch_stats, gradients = jax.lax.pmean((loss, batch_stats, gradients), parallel.AXIS)
        with jax.numpy_dtype_promotion("standard"):  # optax knows no strict one
            directions, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = jax.tree.map(lambda p, d: p - rate * d, state.params, directions)
        new = state._replace(
            params=apply_masks(masks, params),
            batch_stats=batch_stats,
            opt_state=opt_state,
            step=state.step + 1,
        )
        return finite.accept(carry, new, loss, gradients)

    return train_step


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


def all_gather_batch(rows: jax.Array) -> jax.Array:
    """The features of the whole batch, (B over all devices, D), on every device.

    Its gradient adds up what all devices make of a feature: with the mean over devices that a step
    takes, that of the loss of the whole batch.
    """
    return jax.lax.all_gather(rows, parallel.AXIS, tiled=True)
