"""Constraints on how unequally groups are hurt, by multipliers that grow while they are broken.

The published form looks at the training samples it learns from, and its known failure is that the
constraints then hold there alone; `Duals.held_out` looks at the validation split instead.

Sources: CEAG: Hashemizadeh et al., "Balancing Act: Constraining Disparate Impact in Sparse Models"
(ICLR 2024). The equalised loss: Tran et al. (NeurIPS 2022), in the form of CEAG's code.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from fairgrape_jax.masks import Tree
from fairgrape_jax.remedies.base import (
    Batch,
    Ingredient,
    Made,
    Measured,
    Setting,
    Weights,
    batch_size,
    gather,
    group_means,
    members,
)

Constraint = Literal["excess-gap", "equal-loss", "equal-loss-absolute"]
Groups = Float[Array, " group"]
Belongs = Float[Array, "sample group"]


@dataclasses.dataclass(frozen=True)
class Duals:
    """Multipliers of constraints on groups."""

    rate: float = 0.0
    """Step of the multipliers; the papers use 1e-4 to 1e-2; 0 for no constraints."""
    constraint: Constraint = "excess-gap"
    """No group loses more accuracy than all do (CEAG), or every group has the loss of all, by
    their difference or its absolute value."""
    tolerance: float = 0.01
    """How much more accuracy a group may lose than all do, a share; of "excess-gap" alone."""
    buffer: int = 40
    """Samples of each group that the constraint looks back at; 0 for those of the batch alone."""
    held_out: bool = False
    """Look at samples of the validation split in place of those that are learned from."""
    detach: bool = False
    """Leave the loss of all out of the gradient of the constraints."""
    every: int = 1
    """Steps between two looks at the validation split."""

    def problems(self) -> Iterator[tuple[str, str]]:
        """The fields that cannot be used, and what is wrong with each."""
        for name in ("rate", "tolerance", "buffer"):
            if getattr(self, name) < 0:
                yield name, f"{getattr(self, name)} is negative"
        if self.every < 1:
            yield "every", f"{self.every} is less than 1"


class Reference(NamedTuple):
    """What the dense network does on the samples that the constraints look at.

    Attributes:
        groups: (G,) the mean of each group, of the accuracy as a share.
        overall: () that of all samples.
    """

    groups: Groups
    overall: Float[Array, ""]


class State(NamedTuple):
    """What is carried.

    Attributes:
        multipliers: (G,).
        ring: (G, buffer) the last values of each group's samples, as a ring.
        pushed: (G,) int32, how many values were written.
        reference: of the dense network.
    """

    multipliers: Groups
    ring: Float[Array, "group buffer"]
    pushed: Int[Array, " group"]
    reference: Reference


def push(
    ring: Float[Array, "group buffer"],
    pushed: Int[Array, " group"],
    values: Weights,
    belongs: Belongs,
) -> tuple[Float[Array, "group buffer"], Int[Array, " group"]]:
    """Write values into the rings of their groups, in their order.

    Args:
        ring: (G, k).
        pushed: (G,) how many values were written before.
        values: (B,).
        belongs: (B, G), 1 where a sample is in a group.

    Returns:
        The rings, and how many values were written.

    Example:
        >>> values, belongs = jnp.array([1.0, 2.0]), jnp.ones((2, 1))
        >>> ring, pushed = push(jnp.zeros((1, 2)), jnp.array([1]), values, belongs)
        >>> ring.tolist(), pushed.tolist()
        ([[2.0, 1.0]], [3])
    """
    size, inside = ring.shape[1], belongs > 0
    rank = jnp.cumsum(inside, axis=0) - 1  # of a sample in its group, from 0
    totals = inside.sum(axis=0)
    last = inside & (rank >= totals - size)  # older ones would be written over at once
    slot = jnp.where(last, (pushed + rank) % size, size)
    group = jnp.broadcast_to(jnp.arange(ring.shape[0]), slot.shape)
    spread = jnp.broadcast_to(values[:, None], slot.shape)
    return ring.at[group, slot].set(spread, mode="drop"), pushed + totals.astype(pushed.dtype)


def ring_means(
    ring: Float[Array, "group buffer"], pushed: Int[Array, " group"]
) -> tuple[Groups, Float[Array, ""], Bool[Array, " group"]]:
    """The mean of each ring, the mean over all that are full, and which are.

    Args:
        ring: (G, k).
        pushed: (G,) how many values were written.

    Returns:
        (G,) means, () the mean over the full rings, 0 where none is, and (G,) bool.
    """
    full = pushed >= ring.shape[1]
    means = ring.mean(axis=1)
    return means, jnp.where(full, means, 0).sum() / jnp.maximum(full.sum(), 1), full


def violations(
    options: Duals, groups: Groups, overall: Float[Array, ""], reference: Reference
) -> Groups:
    """How far each constraint is broken; positive is broken.

    Args:
        options: which constraint.
        groups: (G,) accuracies, or losses.
        overall: of all.
        reference: of the dense network.

    Returns:
        (G,) psi_g - tolerance with psi_g = (A_g dense - A_g) - (A dense - A), or L_g - L, or its
        absolute value.
    """
    if options.constraint == "excess-gap":
        return (reference.groups - groups) - (reference.overall - overall) - options.tolerance
    apart = groups - overall
    return jnp.abs(apart) if options.constraint == "equal-loss-absolute" else apart


def ascend(options: Duals, state: State, values: Weights, belongs: Belongs) -> State:
    """The state after a step of the multipliers; one whose group was not observed stays.

    Args:
        options: the rate, the constraint and the buffer.
        state: before.
        values: (B,) correctness, or losses, of the samples of all devices.
        belongs: (B, G), 1 where a sample is in a group.
    """
    ring, pushed = state.ring, state.pushed
    if options.buffer:
        ring, pushed = push(ring, pushed, values, belongs)
        groups, overall, measured = ring_means(ring, pushed)
    else:
        counts = belongs.sum(axis=0)
        groups, measured = values @ belongs / jnp.maximum(counts, 1), counts > 0
        inside = belongs.max(axis=1)
        overall = values @ inside / jnp.maximum(inside.sum(), 1)
    broken = violations(options, groups, overall, state.reference)
    moved = state.multipliers + jnp.where(measured, options.rate * broken, 0)
    if options.constraint == "excess-gap":
        moved = jnp.maximum(moved, 0)
    return State(moved, ring, pushed, state.reference)


def sample_weights(
    options: Duals, multipliers: Groups, losses: Weights, belongs: Belongs
) -> Weights:
    """Weights whose mean over the batch gives L + sum_g lambda_g (L_g - L), or of |L_g - L|.

    Args:
        options: which constraint.
        multipliers: (G,) lambda.
        losses: (B,) of this device's samples.
        belongs: (B, G), 1 where a sample is in a group; groups with no sample have no term.

    Returns:
        (B,).
    """
    means, counts = group_means(losses, belongs)
    active = jnp.where(counts > 0, multipliers, 0)
    size = batch_size(losses)
    if options.constraint == "equal-loss-absolute":
        overall = group_means(losses, jnp.ones((len(losses), 1), losses.dtype))[0][0]
        active = active * jnp.sign(means - overall)
    of_all = 1.0 if options.detach else 1 - active.sum()
    return of_all + size * (belongs @ (active / jnp.maximum(counts, 1)))


def _values(options: Duals, losses: Weights, correct: Weights) -> Weights:
    return correct if options.constraint == "excess-gap" else losses


def start(options: Duals, setting: Setting) -> Tree:
    """Multipliers of zero, empty rings, and what the dense network does.

    Args:
        options: where the constraints look.
        setting: the groups, and the dense network.
    """
    count = setting.num_groups
    measured = setting.dense("validation" if options.held_out else "train")
    return State(
        jnp.zeros(count),
        jnp.zeros((count, max(options.buffer, 1))),
        jnp.zeros(count, jnp.int32),
        reference(options, measured, count),
    )


def reference(options: Duals, measured: Measured, num_groups: int) -> Reference:
    """The means of the dense network; 0 for a group without samples.

    Args:
        options: of accuracies or of losses.
        measured: the dense network on a split.
        num_groups: how many groups there are.
    """
    values = measured.correct if options.constraint == "excess-gap" else measured.losses
    inside = [values[measured.groups == group] for group in range(num_groups)]
    means = [each.mean() if each.size else 0.0 for each in inside]
    return Reference(jnp.asarray(means, jnp.float32), jnp.float32(values.mean()))


def weigh(options: Duals, state: Tree, batch: Batch) -> tuple[Tree, Weights]:
    """The dual step on this batch, unless it looks at the validation split, and then the weights.

    Args:
        options: the constraint.
        state: the multipliers and what they look at.
        batch: its losses, correctness and groups.

    Returns:
        The state, and (B,) weights of the samples.
    """
    belongs = members(batch.groups, batch.num_groups)
    if not options.held_out:
        values = _values(options, batch.losses, batch.correct)
        state = ascend(options, state, *jax.tree.map(gather, (values, belongs)))
    return state, sample_weights(options, state.multipliers, batch.losses, belongs)


def after_step(options: Duals, state: Tree, made: Made) -> Tree:
    """The dual step on samples of the validation split, where the constraints look there.

    Args:
        options: the constraint, and how often it looks.
        state: the multipliers and what they look at.
        made: the step.
    """
    if made.held_out is None:
        return state
    held_out, due = made.held_out, made.step % options.every == 0
    empty = jax.tree.map(jnp.zeros_like, jax.eval_shape(held_out, made.params))
    measured = jax.lax.cond(due, held_out, lambda params: empty, made.params)
    belongs = members(measured.groups, made.num_groups)
    values = _values(options, measured.losses, measured.correct)
    moved = ascend(options, state, *jax.tree.map(gather, (values, belongs)))
    return jax.tree.map(lambda new, old: jnp.where(due, new, old), moved, state)


ROW = Ingredient(
    "no group loses more than all do, or all have one loss, by multipliers (CEAG, equalised loss)",
    options=lambda remedy: remedy.duals if remedy.duals.rate else None,
    start=start,
    weigh=weigh,
    after_step=after_step,
    held_out=lambda options: options.held_out,
)
