"""A network without the channels that are pruned as wholes, for `--shrink`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from fairgrape_jax.errors import UsageError
from fairgrape_jax.exporters.base import Model, is_array, largest_difference, leaves
from fairgrape_jax.exporters.card import ZEROS_SAVE_NO_TIME
from fairgrape_jax.masks import Tree, map_masked
from fairgrape_jax.models.narrow import layer_widths
from fairgrape_jax.structures import Small, alive_structures, find_structures, remove
from fairgrape_jax.structures import shrink as shrink_network
from fairgrape_jax.structures.cost import Counter
from fairgrape_jax.structures.importance import by_path

TRIED = 8  # inputs on which the small network is compared with the pruned one
CLOSE = 1e-5  # of the largest output


class StaysWholeError(UsageError):
    """A network of which nothing is pruned as a whole: there is no smaller one."""


def cut(
    apply: Callable[..., Any], variables: Tree, masks: Tree, inputs: Any, name: str
) -> tuple[Small, Tree]:
    """A network without its pruned channels, and what is left of its masks.

    Args:
        apply: (variables, inputs) to the outputs.
        variables: Of the pruned network.
        masks: In the structure of `variables`; None where nothing is pruned.
        inputs: Of one picture, or their shape.
        name: Of the network, for messages.

    Raises:
        UsageError: No channel of it is pruned as a whole, or none can be, or a layer has none left.
    """
    try:
        structures = find_structures(apply, variables, inputs)
    except ValueError as error:
        raise UsageError(f"{name}: cannot be shrunk ({error})") from error
    alive = structures.full_masks()
    masked = by_path(masks)
    counted = alive_structures(structures, masks) if masked else {}
    for group in structures.groups:  # a group without a mask is whole
        if any(structures.names[member.leaf] in masked for member in group.members):
            alive[group.name] = counted[group.name]
    if all(mask.all() for mask in alive.values()):
        raise StaysWholeError(
            f"{name}: no channel of it is pruned as a whole, so it does not get smaller; a run "
            "with --scoring.structures flops prunes channels"
        )
    if empty := [group for group, mask in alive.items() if not mask.any()]:
        raise UsageError(f"{name}: layer {empty[0]} has no weight left, and no network is smaller")
    # Masks of the structure of the variables, an array for every leaf, to be cut likewise.
    full = map_masked(
        lambda mask, leaf: np.ones(leaf.shape, bool) if mask is None and is_array(leaf) else mask,
        masks,
        variables,
    )
    left = remove(structures, full, alive)
    kept = map_masked(lambda mask, small: None if mask is None else small, masks, left)
    return shrink_network(structures, variables, alive), kept


def shrink_model(model: Model) -> Model:
    """The same model without the channels that are pruned as wholes, with equal outputs.

    Args:
        model: A network with its function, and inputs to try it on.

    Returns:
        Its variables and masks are smaller; the card and config.json say so.

    Raises:
        UsageError: As `cut`, or its outputs need what was pruned: a layer that is not pruned itself
            reads the bias of a pruned channel.
    """
    apply = model.apply
    if apply is None or not len(model.inputs):
        raise UsageError("shrink: needs apply=, (params, inputs) to outputs, and some inputs=")
    name = model.name or "the network"
    small, masks = cut(apply, model.variables, model.masks, model.inputs[:1], name)
    variables = jax.tree.map(lambda x: np.asarray(x) if is_array(x) else x, small.params)
    inputs = model.inputs[:TRIED]
    expected = np.asarray(jax.jit(apply)(model.variables, inputs), np.float32)
    # The first holds for any number of inputs; the second for every network.
    functions = (model.narrow(variables) if model.narrow else apply, small.function(apply))
    errors = [_error(function, variables, inputs, expected) for function in functions]
    allowed = CLOSE if model.tolerance <= 1e-4 else model.tolerance
    fitting = [f for f, error in zip(functions, errors, strict=True) if error <= allowed]
    if not fitting:
        raise UsageError(
            f"{name}: without its pruned channels it gives other outputs than with them (by "
            f"{min(errors):.1e} of the largest): a layer that is not pruned reads their biases; "
            "export it whole"
        )
    counter, whole = Counter(small.structures), small.structures.full_masks()
    sizes = [
        sum(leaf.size for leaf in leaves(tree).values()) for tree in (variables, model.variables)
    ]
    operations = counter(small.masks).flops / counter(whole).flops
    return dataclasses.replace(
        model,
        variables=variables,
        masks=masks,
        apply=fitting[0],
        narrow=None,
        is_whole=False,
        config=_config(model, variables, sizes),
        card=_card(model.card, sizes, operations),
    )


def _error(
    function: Callable[..., Any], variables: Tree, inputs: np.ndarray, expected: np.ndarray
) -> float:
    """The largest difference of an output, over the largest; infinity where there are none."""
    try:
        outputs = np.asarray(jax.jit(function)(variables, inputs), np.float32)
    except Exception:  # of the user's, written for other shapes: it fails in any way
        return float("inf")
    if outputs.shape != expected.shape or not np.isfinite(outputs).all():
        return float("inf")
    return largest_difference(outputs, expected)


def _config(model: Model, variables: Tree, sizes: list[int]) -> dict[str, Any]:
    """What of config.json is other: no library's own network, and the widths of this one."""
    of_timm = ("architecture", "pretrained_cfg", "model_args")
    values = {key: value for key, value in model.config.items() if key not in of_timm}
    values["shrunk"] = {"numbers": sizes[0], "of": sizes[1]}
    if model.narrow:
        values["widths"] = layer_widths(variables)
    return values


def _card(text: str, sizes: list[int], operations: float) -> str:
    lines = [
        "",
        "## Shrunk",
        "",
        "The channels that were pruned as wholes are not in these files, which hold a smaller "
        f"dense network: {sizes[0]:,} of {sizes[1]:,} numbers, and {100 * operations:.1f} % of the "
        "operations of convolutions and matrix products. It gives what the pruned network gives.",
        "",
    ]
    return text.replace(f"- {ZEROS_SAVE_NO_TIME}\n", "").rstrip("\n") + "\n" + "\n".join(lines)
