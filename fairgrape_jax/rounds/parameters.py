"""Names and shapes of a network's parameters, and which of its layers are prunable."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict

from fairgrape_jax.data.dataset import Dataset
from fairgrape_jax.errors import UsageError
from fairgrape_jax.kernels import PRUNABLE
from fairgrape_jax.masks import Tree, full_masks, layer_names


def prunable_layers(
    order: Sequence[str], shapes: Tree, prunable: str = "kernels"
) -> dict[str, str]:
    """The names of the prunable layers by those of their parameters, in the network's order.

    Args:
        order: the names of all parameters in that order.
        shapes: the parameters, or their shapes and dtypes.
        prunable: a key of `kernels.PRUNABLE`.

    Raises:
        UsageError: nothing of that kind in the network.

    Example:
        >>> kernel = jax.ShapeDtypeStruct((2, 3), jnp.float32)
        >>> shapes = {"head": {"w": kernel}, "stem": {"kernel": kernel}}
        >>> prunable_layers(("stem/kernel", "head/w"), shapes)
        {'stem/kernel': 'stem', 'head/w': 'head/w'}
    """
    try:
        full = full_masks(shapes, PRUNABLE[prunable])
    except ValueError as problem:
        if prunable == "kernels":
            raise
        raise UsageError(
            f"prunable: the network has no kernel of a {prunable} convolution; give --prunable "
            "kernels, or a model that has some, as mobilenet_v2"
        ) from problem
    # full_masks sorts the keys of dicts, as all functions of pytrees do.
    parameters = [name for name, mask in flatten_dict(full, sep="/").items() if mask is not None]
    layers = dict(zip(parameters, layer_names(full), strict=True))
    return {name: layers[name] for name in order if name in layers}


def initial_shapes(module: nn.Module, dataset: Dataset) -> tuple[tuple[str, ...], Tree]:
    """The names of all parameters in the order in which the network makes them, and the parameters
    as shapes and dtypes.

    Args:
        module: the network.
        dataset: for the shape of a picture.
    """
    names: list[str] = []

    def init(key: jax.Array) -> Tree:
        variables = module.init(key, jnp.zeros((1, *dataset.shape)), train=False)
        flat = flatten_dict(variables["params"], sep="/")  # in order: no pytree has sorted it yet
        names.extend(flat)
        return variables["params"]

    shapes = jax.eval_shape(init, jax.random.key(0))
    return tuple(names), shapes
