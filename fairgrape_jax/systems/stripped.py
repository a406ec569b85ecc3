"""A whole network as shifted 1x1 convolutions over the stripes that stay, with equal outputs.

Of any Linen network: its convolutions and dense layers run with the weights of their remaining
stripes alone. Convolutions in groups (depthwise) or with dilations stay as they are, and so do
layers of which no stripe is cut. A filter without a stripe gives zeros, to which the network adds
its bias, or batch norm its shift, as before.

Source: Meng et al., "Pruning Filter in Filter" (NeurIPS 2020), whose code removes such filters,
with their biases, which it has set to zero before.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from fairgrape_jax.masks import Tree, apply_masks
from fairgrape_jax.systems.lasso import as_slices
from fairgrape_jax.systems.stripes import Stripped, convolve_stripped, strip

Path = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class StrippedNetwork:
    """A network without the stripes that are cut.

    Attributes:
        variables: its arrays; in place of the kernels of `layers` the weights of their stripes,
            (inputs, stripes at a place) for each place, under "stripes".
        layers: which stripes these are, by the path of the layer; its weights are not looked at.
        shapes: the whole kernels, likewise.
        module: the network.
    """

    variables: Tree
    layers: dict[Path, Stripped]
    shapes: dict[Path, jax.ShapeDtypeStruct]
    module: nn.Module

    def apply(self, variables: Tree, x: Any) -> Any:
        """What the network gives, in evaluation.

        Args:
            variables: of the structure of `self.variables`.
            x: as the module takes it.
        """
        rest = {name: tree for name, tree in variables.items() if name != "stripes"}
        # The module wants kernels of its shapes; nothing reads them, and the compiler drops them.
        empty = {(*p, "kernel"): jnp.zeros(s.shape, s.dtype) for p, s in self.shapes.items()}
        params = unflatten_dict(flatten_dict(rest["params"]) | empty)

        def intercept(
            call: Callable[..., Tree],
            args: tuple[Tree, ...],
            kwargs: dict[str, Tree],
            context: nn.module.InterceptorContext,
        ) -> Tree:
            layer: Tree = context.module
            stripes = self.layers.get(layer.path)
            if context.method_name != "__call__" or stripes is None or _is_hooked(layer):
                return call(*args, **kwargs)
            weights = variables["stripes"]["/".join(layer.path)]
            hook = _Hook(with_weights(stripes, weights))
            field = "conv_general_dilated" if isinstance(layer, nn.Conv) else "dot_general"
            return layer.clone(parent=layer.scope, **{field: hook})(*args, **kwargs)

        with nn.intercept_methods(intercept):
            return self.module.apply(rest | {"params": params}, x, train=False)


def strip_network(module: nn.Module, variables: Tree, masks: Tree, x: Any) -> StrippedNetwork:
    """The network with the same outputs as the masked one, over the stripes with a weight left.

    Args:
        module: a Linen network, called as `module.apply(variables, x, train=False)`.
        variables: its "params", and other collections.
        masks: of the parameters: bool arrays, None where not prunable.
        x: what it is called with, or its shape and type.

    Example:
        >>> from fairgrape_jax import models
        >>> module, x = models.create("mlp", 2), jnp.ones((1, 2, 2, 1))
        >>> variables = module.init(jax.random.key(0), x)
        >>> masks = jax.tree.map(lambda w: None if w.ndim < 2 else np.arange(len(w.T)) < 2 + 0 * w,
        ...                      variables["params"])
        >>> strip_network(module, variables, masks, x).variables["stripes"]["fc1"][0].shape
        (4, 2)
    """
    layers: dict[Path, Stripped] = {}
    shapes: dict[Path, jax.ShapeDtypeStruct] = {}
    masked = jax.device_get(apply_masks(masks, variables["params"]))
    params, kept = flatten_dict(masked), flatten_dict(masks)
    stripes = {}
    for path in _plain_layers(module, variables, x):
        kernel, mask = params[(*path, "kernel")], kept.get((*path, "kernel"))
        if mask is None:
            continue
        stays = as_slices(np.asarray(mask)).any(axis=2)
        if stays.all():
            continue
        layer = strip(as_slices(kernel), stays, whole=True)
        stripes["/".join(path)] = [shift.weights for shift in layer.shifts]
        layers[path] = with_weights(layer, [None] * len(layer.shifts))
        shapes[path] = jax.ShapeDtypeStruct(kernel.shape, kernel.dtype)
    rest = {
        path: w for path, w in params.items() if path[:-1] not in layers or path[-1] != "kernel"
    }
    alone = dict(variables) | {"params": unflatten_dict(rest), "stripes": stripes}
    return StrippedNetwork(alone, layers, shapes, module)


def with_weights(layer: Stripped, weights: Any) -> Stripped:
    """A layer with other weights of its stripes.

    Args:
        layer: which stripes it has.
        weights: (inputs, stripes) of each shift.
    """
    pairs = zip(layer.shifts, weights, strict=True)
    return layer._replace(shifts=tuple(shift._replace(weights=w) for shift, w in pairs))


@dataclasses.dataclass(frozen=True)
class _Hook:
    """What a layer calls in place of its convolution or product, which the kernel is given to."""

    layer: Stripped

    def __call__(self, x: Any, kernel: Any, *args: Any, **options: Any) -> Any:
        if kernel.ndim == 2:  # a dense layer: places are rows
            rows = x.reshape(-1, 1, 1, x.shape[-1])
            return convolve_stripped(self.layer, rows).reshape(*x.shape[:-1], -1)
        strides, padding = args
        pads = padding
        if isinstance(padding, str):
            pads = jax.lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
        return convolve_stripped(self.layer, x, strides, pads)


def _is_hooked(layer: nn.Module) -> bool:
    fields = ("conv_general_dilated", "dot_general")
    return any(isinstance(getattr(layer, field, None), _Hook) for field in fields)


def _plain_layers(module: nn.Module, variables: Tree, x: Any) -> list[Path]:
    """The paths of dense layers, and of convolutions of two axes without groups and dilations."""
    paths: dict[Path, None] = {}

    def note(
        call: Callable[..., Tree],
        args: tuple[Tree, ...],
        kwargs: dict[str, Tree],
        context: nn.module.InterceptorContext,
    ) -> Tree:
        layer = context.module
        if context.method_name == "__call__":
            dense = type(layer) is nn.Dense
            if dense or (type(layer) is nn.Conv and _is_plain(layer)):
                paths[layer.path] = None
        return call(*args, **kwargs)

    def run(x: Any) -> Any:
        with nn.intercept_methods(note):
            return module.apply(variables, x, train=False)

    jax.eval_shape(run, x)
    return list(paths)


def _is_plain(layer: nn.Conv) -> bool:
    size = layer.kernel_size
    dilated = any(d not in (None, 1, (1, 1)) for d in (layer.input_dilation, layer.kernel_dilation))
    circular = layer.padding in ("CIRCULAR", "REFLECT", "CAUSAL")
    two = isinstance(size, tuple | list) and len(size) == 2
    return two and layer.feature_group_count == 1 and not dilated and not circular
