"""Surrogate Lagrangian relaxation, and ADMM: weights W are drawn to a pruned copy Z by multipliers.

Source: Gurevin et al., "Enabling Retrain-free Deep Neural Network Pruning Using Surrogate
Lagrangian Relaxation" (IJCAI 2021); Zhou et al. (ACM TODAES 2023, arXiv 2304.04120); their public
code.

What is here is what the papers say: the multipliers are constants while W is trained, and W_prev is
the W of the last update. In the released code the multipliers keep their graph to W, so that the
penalty's gradient grows with every update, and W_prev is the live parameter; the values of both are
in the tests (`live` is the second).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from fairgrape_jax.systems.options import Approach

Layers = Sequence[np.ndarray]
Project = Callable[[Layers], list[np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Multipliers:
    """What is carried from update to update.

    Attributes:
        pruned: Z, of each layer.
        multipliers: Lambda, of each layer.
        last_weights: W of the last step that was taken; zero before the first, as in the code.
        last_pruned: Z after that step, likewise.
        step: s, the step size of the multipliers.
        accepted: k, one more than how often the multipliers were moved.
    """

    pruned: list[np.ndarray]
    multipliers: list[np.ndarray]
    last_weights: list[np.ndarray]
    last_pruned: list[np.ndarray]
    step: float
    accepted: int = 1


class Lower(NamedTuple):
    """Whether the two tests of an update found the Lagrangian lower."""

    first: bool
    second: bool


def begin(options: Approach, weights: Layers, project: Project) -> Multipliers:
    """Z the projection of the weights, and no multipliers.

    Args:
        options: the first step size.
        weights: W of each layer.
        project: of all layers.
    """
    zeros = [np.zeros_like(w) for w in weights]
    return Multipliers(project(weights), zeros, zeros, zeros, options.step)


def factor(options: Approach, accepted: int) -> float:
    """alpha_k = 1 - 1 / (M k^(1 - 1/k^r)), by which steps of multipliers shrink.

    Args:
        options: M and r.
        accepted: k.

    Example:
        >>> round(factor(Approach(), 1), 6)
        0.996667
    """
    power = 1 - 1 / accepted**options.r
    return 1 - 1 / (options.m * accepted**power)


def penalty(options: Approach, weights: Layers, pruned: Layers, multipliers: Layers) -> float:
    """Sum over layers of Lambda (W - Z) + rho / 2 ||W - Z||^2.

    Args:
        options: rho.
        weights: W.
        pruned: Z.
        multipliers: Lambda.
    """
    total = 0.0
    for w, z, m in zip(weights, pruned, multipliers, strict=True):
        apart = (w - z).astype(np.float64)
        total += float((m * apart).sum() + options.rho / 2 * np.square(apart).sum())
    return total


def update(
    options: Approach,
    state: Multipliers,
    weights: Layers,
    losses: tuple[float, float],
    project: Project,
    *,
    live: bool = False,
) -> tuple[Multipliers, Lower]:
    """The two steps of an epoch: multipliers with the old Z, a new Z, multipliers with the new one.

    Args:
        options: rho, M and r.
        state: after the last update.
        weights: W now.
        losses: the mean loss of the last epoch, and of the one before it.
        project: of all layers.
        live: take W for W_prev, as the released code does by a reference.

    Returns:
        The new state, and the two tests; where both fail Lambda stays, but for the first update.
    """
    now, before = losses

    def last(state: Multipliers) -> Layers:
        return weights if live and state.accepted > 1 else state.last_weights

    def lower(state: Multipliers, pruned: Layers) -> bool:
        old = before + penalty(options, last(state), state.last_pruned, state.multipliers)
        return now + penalty(options, weights, pruned, state.multipliers) < old

    kept = [np.array(w) for w in weights]
    first = lower(state, state.last_pruned)
    if first or state.accepted == 1:
        moved = _norms(last(state), state.last_pruned)
        state = take_step(options, state, weights, state.last_pruned, moved)
        state = dataclasses.replace(state, last_weights=kept, last_pruned=state.pruned)
    u = [m / np.float32(options.rho) for m in state.multipliers]
    pruned = project([w + each for w, each in zip(weights, u, strict=True)])
    second = lower(state, pruned)
    if second:
        moved = _norms(last(state), state.last_pruned)
        state = take_step(options, state, weights, pruned, moved)
        state = dataclasses.replace(state, last_weights=kept, last_pruned=pruned)
    return dataclasses.replace(state, pruned=pruned), Lower(first, second)


def take_step(
    options: Approach, state: Multipliers, weights: Layers, pruned: Layers, moved: float
) -> Multipliers:
    """Lambda += s (W - Z), where s <- alpha s ||W_prev - Z_prev|| / ||W - Z|| before.

    Args:
        options: M and r.
        state: before the step.
        weights: W.
        pruned: Z.
        moved: the norm of W_prev - Z_prev; s stays where it or that of W - Z is zero.
    """
    step, apart = state.step, _norms(weights, pruned)
    if moved and apart:
        step *= factor(options, state.accepted) * moved / apart
    parts = zip(state.multipliers, weights, pruned, strict=True)
    higher = [m + np.float32(step) * (w - z) for m, w, z in parts]
    count = state.accepted + 1
    return dataclasses.replace(state, multipliers=higher, step=step, accepted=count)


def admm_update(
    options: Approach, state: Multipliers, weights: Layers, project: Project
) -> Multipliers:
    """ADMM: Z = projection of W + U, U += W - Z, with U = Lambda / rho.

    Args:
        options: rho.
        state: after the last update.
        weights: W now.
        project: of all layers.
    """
    rho = np.float32(options.rho)
    u = [m / rho for m in state.multipliers]
    pruned = project([w + each for w, each in zip(weights, u, strict=True)])
    new = [(each + w - z) * rho for each, w, z in zip(u, weights, pruned, strict=True)]
    return dataclasses.replace(state, pruned=pruned, multipliers=new)


def _norms(weights: Layers, pruned: Layers) -> float:
    """The sum of the layers' norms of W - Z, not the norm of all."""
    return float(sum(np.linalg.norm(w - z) for w, z in zip(weights, pruned, strict=True)))
