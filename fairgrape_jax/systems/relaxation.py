"""SLR and ADMM as training before a choice: the penalty in every step, an update after an epoch.

The projection is the choice of the method itself, of W + Lambda / rho, with its exact counts: for
"slr" that of largest magnitude, for "slr-fairgrape" FairGRAPE's. `approach.projection` names one of
the code's in its place. Lambda is a constant in the step, as the papers have it.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fairgrape_jax import parallel
from fairgrape_jax.masks import Tree, select_prunable
from fairgrape_jax.remedies import Batch, Ingredient, Setting
from fairgrape_jax.systems import slr
from fairgrape_jax.systems.options import Approach
from fairgrape_jax.systems.projections import PROJECTIONS
from fairgrape_jax.systems.slr import Multipliers, Project

Carried = dict[str, Any]


def start(options: Approach, setting: Setting) -> Carried:
    """Z the projection of the weights, no multipliers, and no loss yet.

    Args:
        options: the first step size.
        setting: the network, and how the method chooses.
    """
    weights = _prunable(setting)
    begun = slr.begin(options, weights, make_projection(options, setting))
    return _pack(begun) | _losses(0.0)


def weigh(options: Approach, carried: Carried, batch: Batch) -> tuple[Carried, jax.Array]:
    """Add up the loss of the epoch; every sample weighs alike.

    Args:
        options: not used.
        carried: the sum so far.
        batch: its losses.
    """
    mean = jax.lax.pmean(batch.losses.mean(), parallel.AXIS)
    sums = {"loss": carried["loss"] + mean, "steps": carried["steps"] + 1}
    return carried | sums, jnp.ones_like(batch.losses)


def term(options: Approach, carried: Carried, batch: Batch) -> jax.Array:
    """Sum over layers of rho / 2 ||W - Z + Lambda / rho||^2.

    Args:
        options: rho.
        carried: Z and Lambda.
        batch: W.
    """
    total = jnp.zeros(())
    weights = jax.tree.leaves(select_prunable(batch.masks, batch.params))
    for w, z, m in zip(weights, carried["pruned"], carried["multipliers"], strict=True):
        total += options.rho / 2 * jnp.square(w - z + m / options.rho).sum()
    return total


def after_epoch_of_slr(options: Approach, carried: Carried, setting: Setting) -> Carried:
    """An update by surrogate optimality, but after the last epoch.

    Args:
        options: rho, M and r.
        carried: Z, Lambda, and the losses.
        setting: W.
    """
    if setting.epoch == setting.epochs:
        return carried
    now = float(carried["loss"]) / max(int(carried["steps"]), 1)
    losses = now, float(carried["before"])
    project = make_projection(options, setting)
    new, _ = slr.update(options, _unpack(carried), _prunable(setting), losses, project)
    return _pack(new) | _losses(now)


def after_epoch_of_admm(options: Approach, carried: Carried, setting: Setting) -> Carried:
    """ADMM's update, but after the last epoch.

    Args:
        options: rho.
        carried: Z and Lambda.
        setting: W.
    """
    if setting.epoch == setting.epochs:
        return carried
    project = make_projection(options, setting)
    new = slr.admm_update(options, _unpack(carried), _prunable(setting), project)
    return _pack(new) | _losses(0.0)


def make_projection(options: Approach, setting: Setting) -> Project:
    """The projection of all prunable layers.

    Args:
        options: which one.
        setting: how the method chooses, and the density.
    """
    leaves, structure = jax.tree.flatten(setting.params)
    prunable = [mask is not None for mask in jax.tree.leaves(setting.masks, is_leaf=_is_none)]

    def by_choice(layers: slr.Layers) -> list[np.ndarray]:
        new = iter(layers)
        params = [next(new) if yes else leaf for yes, leaf in zip(prunable, leaves, strict=True)]
        chosen = setting.choose(jax.tree.unflatten(structure, params))
        pairs = zip(layers, jax.tree.leaves(chosen), strict=True)
        return [np.where(mask, w, 0).astype(w.dtype) for w, mask in pairs]

    if options.projection == "choice":
        return by_choice
    project = PROJECTIONS[options.projection]
    return lambda layers: [project(w, 1 - setting.density) for w in layers]


def _prunable(setting: Setting) -> list[np.ndarray]:
    weights = select_prunable(setting.masks, setting.params)
    return [np.asarray(leaf) for leaf in jax.tree.leaves(jax.device_get(weights))]


def _pack(state: Multipliers) -> Carried:
    return {
        "pruned": state.pruned,
        "multipliers": state.multipliers,
        "last_weights": state.last_weights,
        "last_pruned": state.last_pruned,
        "step": np.float32(state.step),
        "accepted": np.int32(state.accepted),
    }


def _unpack(carried: Carried) -> Multipliers:
    arrays = ("pruned", "multipliers", "last_weights", "last_pruned")
    pruned, multipliers, weights, last = (
        [np.asarray(leaf) for leaf in carried[name]] for name in arrays
    )
    step, accepted = float(carried["step"]), int(carried["accepted"])
    return Multipliers(pruned, multipliers, weights, last, step, accepted)


def _is_none(leaf: Tree) -> bool:
    return leaf is None


def _losses(before: float) -> Carried:
    return {"loss": np.float32(0), "steps": np.int32(0), "before": np.float32(before)}


SLR = Ingredient(
    "weights drawn to their projection by multipliers that move where the Lagrangian fell",
    start=start,
    weigh=weigh,
    term=term,
    after_epoch=after_epoch_of_slr,
)
ADMM = Ingredient(
    "weights drawn to their projection by multipliers that move after every epoch",
    start=start,
    weigh=weigh,
    term=term,
    after_epoch=after_epoch_of_admm,
)
