"""An optax optimizer that holds pruned weights at zero, with the masks as data in its state."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fairgrape_jax.masks import Array, Tree, apply_masks, check_masks, map_masked, put_on_device


class MaskedState(NamedTuple):
    """The state of a `masked` optimizer.

    Attributes:
        inner: that of the optimizer.
        masks: bool arrays, None where not prunable.
    """

    inner: Tree
    masks: Tree


def masked(
    optimizer: optax.GradientTransformation, masks: Tree
) -> optax.GradientTransformationExtraArgs:
    """An optimizer that holds pruned weights at zero.

    Gradients of pruned weights are zeroed, so that no moment grows, and the update sets these
    weights to exactly zero: momentum and weight decay cannot move them. The masks lie in the state
    as data: `set_masks` exchanges them, and a compiled step is not traced again.

    Args:
        optimizer: any of optax. Put `masked` around a whole chain, not into it.
        masks: bool leaves, None where not prunable; as `full_masks` gives them.

    Returns:
        An optimizer whose update needs the parameters as its third argument.

    Raises:
        ValueError: masks that do not fit the parameters, or an update without parameters.

    Example:
        >>> params = {"kernel": jnp.array([[1.0, 2.0]])}
        >>> optimizer = masked(optax.sgd(0.5), {"kernel": jnp.array([[True, False]])})
        >>> state = optimizer.init(params)
        >>> updates, state = optimizer.update({"kernel": jnp.ones((1, 2))}, state, params)
        >>> optax.apply_updates(params, updates)
        {'kernel': Array([[0.5, 0. ]], dtype=float32)}
    """
    inner = optax.with_extra_args_support(optimizer)

    def init(params: Tree) -> MaskedState:
        check_masks(masks, params)
        return MaskedState(inner.init(params), _arrays(masks))

    def update(
        updates: Tree, state: MaskedState, params: Tree = None, **extra: Tree
    ) -> tuple[Tree, MaskedState]:
        if params is None:
            raise ValueError(
                "masked: give the parameters, update(gradients, state, params); pruned weights are "
                "set to zero from where they are"
            )
        gradients = apply_masks(state.masks, updates)
        changes, new = inner.update(gradients, state.inner, params, **extra)
        return map_masked(_to_zero, state.masks, changes, params), MaskedState(new, state.masks)

    return optax.GradientTransformationExtraArgs(init, update)


def set_masks(opt_state: Tree, masks: Tree) -> Tree:
    """The state of a `masked` optimizer with other masks.

    They take the place of the old ones on the same devices, with the same shapes and dtypes, so
    that nothing is compiled again. Where the state has a leading axis of devices (pmap), all of
    them get the masks. What is pruned is zero after the next update; moments of the optimizer stay.

    Args:
        opt_state: as `masked` made it, perhaps within a chain, a schedule or an accumulation.
        masks: of the same structure.

    Raises:
        ValueError: no `masked` optimizer made this state, or masks of another structure or shape.

    Example:
        >>> params, masks = {"w": jnp.ones((1, 2))}, {"w": np.ones((1, 2), bool)}
        >>> state = masked(optax.adam(1e-3), masks).init(params)
        >>> set_masks(state, {"w": np.array([[True, False]])}).masks
        {'w': Array([[ True, False]], dtype=bool)}
    """

    def is_masked(node: object) -> bool:
        return isinstance(node, MaskedState)

    nodes, structure = jax.tree.flatten(opt_state, is_leaf=is_masked)
    if not any(map(is_masked, nodes)):
        raise ValueError("opt_state: holds no masks; make it with masked(optimizer, masks).init")
    new = [x._replace(masks=_replace(x.masks, masks)) if is_masked(x) else x for x in nodes]
    return jax.tree.unflatten(structure, new)


def _arrays(masks: Tree) -> Tree:
    return jax.tree.map(put_on_device, masks)


def _to_zero(mask: Array | None, change: Array, weights: Array) -> Array:
    return change if mask is None else jnp.where(mask, change.astype(weights.dtype), -weights)


def _replace(old: Tree, new: Tree) -> Tree:
    expected, structure = (str(jax.tree.structure(tree)) for tree in (old, new))
    if expected != structure:
        raise ValueError(f"masks: of the structure {structure}; the state's is {expected}")

    def leaf(before: jax.Array, after: Array) -> Array:
        shape, kept = jnp.shape(after), jnp.shape(before)
        if kept not in (shape, (*kept[:1], *shape)) or not jnp.issubdtype(
            jnp.result_type(after), bool
        ):
            raise ValueError(f"masks: {jnp.result_type(after)} {shape}, in the state bool {kept}")
        if isinstance(before, jax.core.Tracer) or isinstance(after, jax.core.Tracer):
            return jnp.broadcast_to(after, kept)
        host = np.broadcast_to(jax.device_get(after), kept)
        return jax.device_put(host, before.sharding)

    return jax.tree.map(leaf, old, new)
