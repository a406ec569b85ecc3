"""The state of training, and one step of it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from fairgrape_jax import losses, parallel
from fairgrape_jax.data import augment
from fairgrape_jax.data.dataset import Dataset
from fairgrape_jax.losses.distillation import Remedy
from fairgrape_jax.masks import Tree, apply_masks
from fairgrape_jax.models import activations
from fairgrape_jax.training import finite
from fairgrape_jax.training.finite import Seen


class State(NamedTuple):
    """Everything that training changes; with the masks, all that a resumed run needs."""

    params: Tree
    batch_stats: Tree
    opt_state: Tree
    step: jax.Array  # () int32, steps since the start of the run; negative: see `finite.made`
    epoch: jax.Array  # () int32, epochs since the start: the position in the data
    key: jax.Array  # (2,) uint32, the run's random key; every step folds its number into it


def init_state(
    module: nn.Module, dataset: Dataset, optimizer: optax.GradientTransformation, seed: int
) -> State:
    """Fresh parameters, statistics and optimizer state, a pure function of the seed."""
    init_key, run_key = jax.random.split(jax.random.key(seed))
    variables = _initializer(module, dataset.shape)(init_key)
    params = variables["params"]
    return State(
        params=params,
        batch_stats=variables.get("batch_stats", {}),
        opt_state=optimizer.init(params),
        step=jnp.zeros((), jnp.int32),
        epoch=jnp.zeros((), jnp.int32),
        key=jax.random.key_data(run_key),
    )


@functools.cache  # every seed starts anew, but compiles no more than once
def _initializer(module: nn.Module, shape: tuple[int, ...]) -> Callable[[jax.Array], Tree]:
    return jax.jit(lambda key: module.init(key, jnp.zeros((1, *shape), jnp.float32), train=False))


def make_train_step(
    module: nn.Module,
    dataset: Dataset,
    optimizer: optax.GradientTransformation,
    augmentation: str = "none",
    remedy: Remedy | None = None,
    mixup: float = 0.0,
) -> Callable[..., tuple[State, Seen]]:
    """The per-device step (state, masks, batch, rate) -> (state, `Seen` with the batch's loss).

    remedy: the terms of the loss, plain cross-entropy if None; the step then takes the dense
    network's variables as a fifth argument and runs it on the same pictures, in evaluation.
    mixup: its alpha; above 0 augmented pictures are mixed in pairs, and their cross-entropies.

    batch: images (B, H, W, C) uint8, labels (B, T), and ids (B,) where pictures are altered: the
    draws are those of (run, epoch, sample), on any number of devices. Parameters are masked in the
    forward pass and after the update, so a pruned weight is exactly zero whatever the optimizer
    does. Loss, gradients and running statistics are averaged over the devices, so that all stay
    equal; whether batch norm normalises by the statistics of all is the module's `axis_name`. A
    step that gives a number that is not finite is not made, on any device (`finite.made`).
    """
    alter = augment.AUGMENTATIONS[augmentation]  # None: the pictures as they are

    def train_step(
        state: State,
        masks: Tree,
        batch: dict[str, jax.Array],
        rate: jax.Array,
        dense: Tree | None = None,
    ) -> tuple[State, Seen]:
        run_key = jax.random.wrap_key_data(state.key)
        key = jax.random.fold_in(
            jax.random.fold_in(run_key, state.step), jax.lax.axis_index(parallel.AXIS)
        )
        dropout_key = jax.random.split(key)[1]
        images = batch["images"]
        if alter is not None:
            images = augment.augmented(alter, run_key, state.epoch, batch["ids"], images)
        mixed = None
        if mixup:
            pairs = augment.mixup(
                mixup, run_key, state.epoch, batch["ids"], images, batch["labels"]
            )
            images, mixed = pairs.images, (pairs.labels, pairs.share)
        images = augment.normalise(images, dataset.mean, dataset.std)

        names = remedy.features if remedy and remedy.of_features else ()
        taught = run(module, dense, images, names)[0] if dense is not None else None

        def objective(params: Tree) -> tuple[jax.Array, Tree]:
            own, batch_stats = run(
                module,
                {"params": apply_masks(masks, params), "batch_stats": state.batch_stats},
                images,
                names,
                dropout_key,
            )
            labels, classes = batch["labels"], dataset.classes
            if remedy is not None and taught is not None:
                loss = losses.retraining_loss(
                    remedy, own, taught, labels, classes, gather=together, mixed=mixed
                )
            elif mixed:
                loss = losses.mixed_cross_entropy(own.logits, labels, *mixed, classes).mean()
            else:
                loss = losses.cross_entropy(own.logits, labels, classes).mean()
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
        return finite.made(state, new, loss, gradients)

    return train_step


def run(
    module: nn.Module,
    variables: Tree,
    images: jax.Array,
    names: Sequence[str] = (),
    dropout_key: jax.Array | None = None,
) -> tuple[losses.Outputs, Tree]:
    """What a network says, with the outputs of its modules `names`, and its batch statistics.

    images: normalised. In train mode with a key, else in evaluation.
    """
    how: dict[str, Any] = {"mutable": ["batch_stats"], "train": False}
    if dropout_key is not None:
        how |= {"train": True, "rngs": {"dropout": dropout_key}}
    logits, seen, found = activations.run(module, variables, images, names, **how)
    return losses.Outputs(logits, seen), found.get("batch_stats", {})


def together(rows: jax.Array) -> jax.Array:
    """The features of the whole batch, on every device.

    Its gradient adds up what all devices say of a feature: with the mean over devices that a step
    takes, that of the loss of the whole batch.
    """
    return jax.lax.all_gather(rows, parallel.AXIS, tiled=True)
