"""A loss per sample as a function of the weights that are scored: what is differentiated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array as JaxArray
from jaxtyping import Float

from fairgrape_jax.kernels import is_array
from fairgrape_jax.masks import Tree, apply_masks, check_masks, map_masked, native
from fairgrape_jax.scoring.parts import Batch, sample_count

SampleLoss = Callable[[Tree, Batch], jax.Array]  # (params, batch of B samples) -> (B,)


class Arrays(NamedTuple):
    """The arrays of a network.

    Attributes:
        weights: the prunable ones, zero where pruned, in the order of the masks' leaves.
        others: the rest.
    """

    weights: tuple[jax.Array, ...]
    others: tuple[jax.Array, ...]


class SampleNetwork(NamedTuple):
    """The loss as a function of a network's arrays; hashable, so that a program is kept for it.

    Attributes:
        loss_fn: the user's.
        structure: of the parameters.
        prunable: of each leaf, whether it is.
        constants: the leaves that are no arrays, by number.
    """

    loss_fn: SampleLoss
    structure: jax.tree_util.PyTreeDef
    prunable: tuple[bool, ...]
    constants: tuple[tuple[int, Any], ...]

    def losses(self, arrays: Arrays, batch: Batch) -> Float[JaxArray, " B"]:
        """The loss of each sample, floats of at least 32 bits.

        Args:
            arrays: the network's.
            batch: a pytree of arrays of B samples.
        """
        constants, pruned, fixed = dict(self.constants), iter(arrays.weights), iter(arrays.others)
        leaves = [
            constants[i] if i in constants else next(pruned if prunable else fixed)
            for i, prunable in enumerate(self.prunable)
        ]
        losses = self.loss_fn(jax.tree.unflatten(self.structure, leaves), batch)
        shape, samples = jnp.shape(losses), sample_count(batch)
        if shape != (samples,) or not jnp.issubdtype(losses.dtype, jnp.floating):
            raise ValueError(
                f"loss_fn: gives {losses.dtype} {shape}; one loss for each of the {samples} "
                "samples is expected, before any mean"
            )
        return losses.astype(widen(losses.dtype))

    def gradient(
        self, arrays: Arrays, batch: Batch, scale: Float[JaxArray, " B"]
    ) -> list[jax.Array]:
        """Of the sum of the losses times `scale`; samples of scale 0 take no part.

        Args:
            arrays: the network's.
            batch: a pytree of arrays of B samples.
            scale: of each sample in the sum.
        """

        def total(weights: tuple[jax.Array, ...]) -> jax.Array:
            losses = self.losses(Arrays(weights, arrays.others), batch)
            by = scale.astype(losses.dtype)
            return (jnp.where(by != 0, losses, jnp.zeros_like(losses)) * by).sum()

        return [g.astype(widen(g.dtype)) for g in jax.grad(total)(arrays.weights)]


def split_network(loss_fn: SampleLoss, params: Tree, masks: Tree) -> tuple[Arrays, SampleNetwork]:
    """The arrays of a network, on a device, and the loss as a function of them.

    Args:
        loss_fn: (params, batch) to the loss of each sample.
        params: any pytree, its leaves arrays or not.
        masks: bool leaves, None where not prunable.

    Raises:
        ValueError: masks that do not fit.
    """
    check_masks(masks, params)
    flags = map_masked(
        lambda mask, leaf: jax.tree.map(lambda _: mask is not None, leaf), masks, params
    )
    leaves, structure = jax.tree.flatten(on_device(apply_masks(masks, on_device(params))))
    prunable = tuple(jax.tree.leaves(flags))
    constants = tuple((i, leaf) for i, leaf in enumerate(leaves) if not is_array(leaf))
    weights = tuple(x for x, flag in zip(leaves, prunable, strict=True) if flag)
    others = tuple(x for x, flag in zip(leaves, prunable, strict=True) if not flag and is_array(x))
    return Arrays(weights, others), SampleNetwork(loss_fn, structure, prunable, constants)


def square(weights: jax.Array, gradient: jax.Array) -> jax.Array:
    """(w * g)^2, g of w's shape or with groups before it, in g's dtype.

    Args:
        weights: of a layer.
        gradient: of w's shape, or with groups before it.
    """
    wide = weights.astype(gradient.dtype)
    return jnp.square((wide if wide.ndim == gradient.ndim else wide[None]) * gradient)


def widen(dtype: DTypeLike) -> DTypeLike:
    """In which dtype floats of a dtype are summed: float64 as they are, all others in float32.

    Args:
        dtype: of floats.
    """
    return jnp.float64 if dtype == jnp.float64 else jnp.float32


def is_traced(tree: Tree) -> bool:
    """Whether any leaf is traced.

    Args:
        tree: a pytree of anything.

    Example:
        >>> is_traced([1.0]), jax.jit(lambda x: x + is_traced([x, 1.0]))(1)
        (False, Array(2, dtype=int32, weak_type=True))
    """
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree))


def on_device(tree: Tree, device: jax.Device | None = None) -> Tree:
    """NumPy arrays moved there explicitly, in native byte order; what is no array stays.

    Args:
        tree: a pytree of anything.
        device: where to; None for where JAX puts them, and then its arrays stay where they are.
    """

    def move(leaf: Tree) -> Tree:
        if not is_array(leaf) or (isinstance(leaf, jax.Array) and device is None):
            return leaf
        if isinstance(leaf, np.ndarray | np.generic):
            leaf = native(leaf)
        return jax.device_put(leaf, device)

    return jax.tree.map(move, tree)
