"""What an ingredient of retraining is: a row of plain functions that the training loop calls."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from fairgrape_jax import parallel
from fairgrape_jax.losses.distillation import Outputs
from fairgrape_jax.masks import Tree

Weights = Float[jax.Array, " sample"]
GroupIds = Int[jax.Array, " sample"]


class Batch(NamedTuple):
    """A batch of training as an ingredient sees it, on one device of several.

    Nothing but `params` and `outputs` has a gradient.

    Attributes:
        params: that the network runs with, pruned weights at zero.
        masks: bool leaves, None where not prunable.
        outputs: of the network that is retrained.
        teacher: of the dense network for the same pictures; None unless a term needs it.
        labels: (B, T) int32.
        groups: (B,) int32, -1 for a sample in none.
        num_groups: how many groups there are.
        losses: (B,) float32, the cross-entropy of each sample.
        correct: (B,) float32, the share of its tasks that are right.
        step: () int32, steps since the start of the run.
    """

    params: Tree
    masks: Tree
    outputs: Outputs
    teacher: Outputs | None
    labels: jax.Array
    groups: GroupIds
    num_groups: int
    losses: Weights
    correct: Weights
    step: jax.Array


class HeldOut(NamedTuple):
    """What a network makes of a batch of the validation split, in evaluation, on one device.

    Attributes:
        losses: (B,) float32, the cross-entropy of each sample.
        correct: (B,) float32, the share of its tasks that are right.
        groups: (B,) int32, -1 for a sample in none.
    """

    losses: Weights
    correct: Weights
    groups: GroupIds


class Made(NamedTuple):
    """A step that was just made, as `Ingredient.after_step` sees it.

    Attributes:
        params: after the step, pruned weights at zero.
        masks: bool leaves, None where not prunable.
        gradients: of the step's loss, the mean over devices.
        step: () int32, the number of the step that was made, from 0 since the start of the run.
        num_groups: how many groups there are.
        held_out: (params) to what the network makes of this step's batch of the validation split,
            with a gradient; None unless the ingredient looks at it.
    """

    params: Tree
    masks: Tree
    gradients: Tree
    step: jax.Array
    num_groups: int
    held_out: Callable[[Tree], HeldOut] | None


class Measured(NamedTuple):
    """How a network does on a split, in NumPy arrays.

    Attributes:
        correct: (N,) float64, the share of each sample's tasks that are right.
        losses: (N,) float64, cross-entropies.
        groups: (N,) int32, -1 for a sample in none.
    """

    correct: np.ndarray
    losses: np.ndarray
    groups: np.ndarray


def _no_choice(params: Tree) -> Tree:
    raise ValueError("setting: this training leads to no choice")


def _no_structures() -> Any:
    raise ValueError("setting: this training leads to no choice of structures")


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is known when a training begins, and at the end of each of its epochs; on the host.

    Attributes:
        num_groups: how many groups there are.
        params: the parameters, on the devices.
        masks: the weights alive, on the devices.
        epoch: epochs of this training that are done.
        epochs: how many it has.
        dense: ("train" or "validation") to how the dense network does there.
        current: likewise of this network.
        density: of the masks that a round's training leads to; 1 where it leads to none.
        chosen: these masks on the host, where they are known.
        choose: (params) to the masks that the round's method would choose now, on the host.
        structures: () to those of the network, where a round chooses among them.
        counted: what `density` is a part of.
    """

    num_groups: int
    params: Tree
    masks: Tree
    epoch: int
    epochs: int
    dense: Callable[[str], Measured]
    current: Callable[[str], Measured]
    density: float = 1.0
    chosen: Tree = None
    choose: Callable[[Tree], Tree] = _no_choice
    structures: Callable[[], Any] = _no_structures
    counted: Literal["weights", "flops"] = "weights"


def _no(options: Any) -> bool:
    return False


def _off(remedy: Any) -> None:
    return None


@dataclasses.dataclass(frozen=True)
class Ingredient:
    """A row of the table of ingredients: how it takes part in training.

    Each function gets the ingredient's options first. Carried state is a pytree of arrays that the
    row makes and changes; it is saved and gone on with like the network. A function that is None
    has no part. All that runs in the step is traced into the run's one program, on every device
    alike: what is carried must come out equal on all (`group_means` and `gather` make it so).

    Attributes:
        summary: a line for the user.
        options: (remedy) to the options of this row; None where it is off, and always for one that
            a method turns on.
        start: (options, setting) to the carried state when a training begins.
        forward: (options, carried, params) to the parameters that the network runs with.
        weigh: (options, carried, batch) to the carried state, changed before it is used, and the
            weights (B,) of the samples in the cross-entropy, whose mean over the batch counts.
        term: (options, carried, batch) to what is added to the loss, () on each device, whose mean
            over devices counts.
        after_step: (options, carried, made) to the carried state.
        after_epoch: (options, carried, setting) to the carried state, on the host.
        finish: (options, carried, params) to the parameters at the end of the training.
        order: (groups, num_groups, seed, epoch) to the order in which an epoch meets the samples,
            (N,) places; on the host.
        frozen: (options, names) to those of the parameters, named in the order of the network,
            that do not move.
        teaches: (options) to whether the dense network runs in the step.
        held_out: (options) to whether the step gets batches of the validation split.
    """

    summary: str
    options: Callable[[Any], Any] = _off
    start: Callable[[Any, Setting], Tree] | None = None
    forward: Callable[[Any, Tree, Tree], Tree] | None = None
    weigh: Callable[[Any, Tree, Batch], tuple[Tree, Weights]] | None = None
    term: Callable[[Any, Tree, Batch], jax.Array] | None = None
    after_step: Callable[[Any, Tree, Made], Tree] | None = None
    after_epoch: Callable[[Any, Tree, Setting], Tree] | None = None
    finish: Callable[[Any, Tree, Tree], Tree] | None = None
    order: Callable[[np.ndarray, int, int, int], np.ndarray] | None = None
    frozen: Callable[[Any, tuple[str, ...]], tuple[str, ...]] | None = None
    teaches: Callable[[Any], bool] = _no
    held_out: Callable[[Any], bool] = _no


class Active(NamedTuple):
    """An ingredient that an experiment uses.

    Attributes:
        name: of its row.
        row: its functions.
        options: what they get first.
    """

    name: str
    row: Ingredient
    options: Any


def members(groups: GroupIds, num_groups: int) -> Float[jax.Array, "sample _group"]:
    """Which samples are in which group.

    Args:
        groups: (B,) int, outside 0..num_groups-1 for a sample in none.
        num_groups: how many groups there are.

    Returns:
        (B, num_groups) float32, 1 or 0.

    Example:
        >>> members(jnp.array([1, -1]), 2).tolist()
        [[0.0, 1.0], [0.0, 0.0]]
    """
    return (groups[:, None] == jnp.arange(num_groups)[None]).astype(jnp.float32)


def group_means(
    values: Weights, belongs: Float[jax.Array, "sample group"]
) -> tuple[Float[jax.Array, " group"], Float[jax.Array, " group"]]:
    """The mean of each group over the batch of all devices, and how many samples it has there.

    Args:
        values: (B,) of this device's samples.
        belongs: (B, G), 1 where a sample is in a group; see `members`.

    Returns:
        (G,) means, 0 where a group has no sample, and (G,) float32 counts.
    """
    sums, counts = jax.lax.psum((values @ belongs, belongs.sum(axis=0)), parallel.AXIS)
    return sums / jnp.maximum(counts, 1), counts


def gather(rows: jax.Array) -> jax.Array:
    """The rows of all devices, in the order of the batch, on every device.

    Its gradient adds up what all devices make of a row: with the mean over devices that a step
    takes, that of the loss of the whole batch.

    Args:
        rows: (B, ...) of this device.
    """
    return jax.lax.all_gather(rows, parallel.AXIS, tiled=True)


def batch_size(rows: jax.Array) -> jax.Array:
    """() float32, the samples of the batch over all devices.

    Args:
        rows: (B, ...) of this device.
    """
    return jnp.float32(len(rows)) * jax.lax.psum(jnp.float32(1), parallel.AXIS)


def sample_weights(
    of_groups: Float[jax.Array, " group"],
    counts: Float[jax.Array, " group"],
    belongs: Float[jax.Array, "sample group"],
) -> Weights:
    """Weights whose mean over the batch gives sum_g q_g L_g, L_g the mean loss of group g.

    Args:
        of_groups: (G,) q.
        counts: (G,) samples of each group in the batch.
        belongs: (B, G), 1 where a sample is in a group.

    Returns:
        (B,) B_all q_g / n_g of each sample's groups, B_all the samples of all devices.
    """
    return batch_size(belongs) * (belongs @ (of_groups / jnp.maximum(counts, 1)))
