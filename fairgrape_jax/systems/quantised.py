"""A network that is retrained, and from then on runs, with quantised weights and activations.

What a layer's quantisers have seen lies with the running statistics of batch norm, so that it is
saved, gone on with and exported as these are. Before any training step with quantisers, as in the
dense network, weights and activations pass as they are.

Source: Zhang, Colbert, Das (Applied Sciences 2022), and its library qsparse: weights by the scaler
(or the decimal quantiser), a scale for each output of a convolution and one for a dense layer,
activations by the adaptive quantiser, a range for the whole tensor; scales and ranges are running
means over the steps, of the batch of all devices. Ours: there is no wait before the first step, and
pictures, which come in 8 bits, stay as they are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from fairgrape_jax.masks import Tree
from fairgrape_jax.systems import quantise
from fairgrape_jax.systems.options import Quantisation
from fairgrape_jax.systems.quantise import Range

NAME = "quantiser"  # of what a layer's quantisers have seen, among its running statistics
Ranges = dict[str, jax.Array]


class Quantised(nn.Module):
    """A network with quantisers before its layers; parameters and their names are the network's.

    Attributes:
        network: Whose convolutions and dense layers are quantised.
        options: By how many bits.
        axis_name: The mapped axis over which ranges are taken in train mode.
    """

    network: nn.Module
    options: Quantisation
    axis_name: str | None = None

    def setup(self) -> None:
        """Parameters have the names that they have without quantisers."""
        nn.share_scope(self, self.network)

    def __call__(self, x: jax.Array, train: bool = False) -> Any:
        """What the network gives; in train mode quantisers look at the batch.

        Args:
            x: (B, H, W, C).
            train: Whether it is trained.
        """
        begun: list[tuple[str, ...]] = []

        def intercept(
            call: Callable[..., Tree],
            args: tuple[Tree, ...],
            kwargs: dict[str, Tree],
            context: nn.module.InterceptorContext,
        ) -> Tree:
            layer = context.module
            if context.method_name != "__call__" or not _has_kernel(layer):
                return call(*args, **kwargs)
            pictures = not begun
            begun.append(layer.path)
            hook = _Hook(layer.scope, self.options, train, pictures, self.axis_name)
            return layer.clone(parent=layer.scope, promote_dtype=hook)(*args, **kwargs)

        with nn.intercept_methods(intercept):
            return self.network(x, train=train)


def with_quantisers(
    module: nn.Module, options: Quantisation, axis_name: str | None = None
) -> nn.Module:
    """The network with quantisers; as it is where nothing is to be quantised.

    Args:
        module: the network.
        options: by how many bits.
        axis_name: as for `Quantised`.
    """
    return Quantised(module, options, axis_name) if options.active else module


def restart(batch_stats: Tree) -> Tree:
    """Running statistics whose quantisers have seen nothing.

    Args:
        batch_stats: of a network.

    Example:
        >>> statistics = {"conv": {"quantiser": {"steps": jnp.ones(())}, "mean": jnp.ones(())}}
        >>> [float(leaf) for leaf in jax.tree.leaves(restart(statistics))]  # mean, steps
        [1.0, 0.0]
    """
    flat = flatten_dict(batch_stats)
    return unflatten_dict(
        {path: jnp.zeros_like(leaf) if NAME in path else leaf for path, leaf in flat.items()}
    )


def without_quantisers(batch_stats: Tree) -> Tree:
    """The running statistics without what quantisers have seen.

    Args:
        batch_stats: of a network.

    Example:
        >>> without_quantisers({"conv": {"quantiser": {"steps": 1}}, "norm": {"mean": 0}})
        {'norm': {'mean': 0}}
    """
    flat = flatten_dict(batch_stats)
    return unflatten_dict({path: leaf for path, leaf in flat.items() if NAME not in path})


def with_leaves_of(batch_stats: Tree, others: Tree) -> Tree:
    """The running statistics, with others in place of those of their names.

    Args:
        batch_stats: of a network.
        others: of the same, without what quantisers have seen.
    """
    return unflatten_dict(flatten_dict(batch_stats) | flatten_dict(others))


def quantise_params(params: Tree, batch_stats: Tree, options: Quantisation) -> Tree:
    """The parameters as the network multiplies by them; to quantise them again changes nothing.

    Args:
        params: of a quantised network, pruned weights at zero.
        batch_stats: what its quantisers have seen.
        options: by how many bits.
    """
    flat, ranges = flatten_dict(params), flatten_dict(batch_stats)
    for path, scale in ranges.items():
        if path[-2:] == (NAME, "scale"):
            kernel = (*path[:-2], "kernel")
            flat[kernel] = jax.device_get(quantise_kernel(flat[kernel], scale, options))
    return unflatten_dict(flat)


def is_quantised(batch_stats: Tree) -> bool:
    """Whether a network runs with quantised weights or activations.

    Args:
        batch_stats: its running statistics.

    Example:
        >>> is_quantised({"conv": {"quantiser": {"steps": jnp.ones(())}}}), is_quantised({})
        (True, False)
    """
    flat = flatten_dict(batch_stats)
    return any(path[-2:] == (NAME, "steps") and float(n) > 0 for path, n in flat.items())


def quantised_layers(batch_stats: Tree) -> set[str]:
    """The paths of the layers that have quantisers.

    Args:
        batch_stats: running statistics of a network, or their shapes.

    Example:
        >>> quantised_layers({"conv": {"quantiser": {"steps": jnp.ones(())}}})
        {'conv'}
    """
    return {"/".join(path[:-2]) for path in flatten_dict(batch_stats) if path[-2:-1] == (NAME,)}


def first_ranges(kernel: Any, options: Quantisation, pictures: bool) -> Ranges:
    """What a layer's quantisers have seen before the first step.

    Args:
        kernel: of the layer.
        options: by how many bits.
        pictures: whether its inputs are pictures.
    """
    ranges = {"steps": jnp.zeros((), jnp.float32)}
    if options.weights:
        shape = jax.eval_shape(lambda w: _measure_kernel(w, options), kernel).shape
        ranges["scale"] = jnp.zeros(shape, jnp.float32)
    if options.activations and not pictures:
        ranges |= {"lower": jnp.zeros((), jnp.float32), "upper": jnp.zeros((), jnp.float32)}
    return ranges


def update_ranges(
    ranges: Ranges,
    inputs: jax.Array,
    kernel: jax.Array,
    options: Quantisation,
    axis_name: str | None,
) -> Ranges:
    """What a layer's quantisers have seen after one more step: running means.

    Args:
        ranges: before it.
        inputs: of the layer, those of this device.
        kernel: of the layer.
        options: by how many bits.
        axis_name: of the devices; None for one.
    """
    inputs, kernel = jax.lax.stop_gradient((inputs.astype(jnp.float32), kernel))
    new: dict[str, jax.Array] = {}
    if "scale" in ranges:
        new["scale"] = _measure_kernel(kernel, options)
    if "lower" in ranges:
        lower, upper = inputs.min(), inputs.max()
        if axis_name is not None:
            lower, upper = jax.lax.pmin(lower, axis_name), jax.lax.pmax(upper, axis_name)
        new |= {"lower": lower, "upper": upper}
    steps = ranges["steps"]
    means = {name: quantise.running_mean(ranges[name], new[name], steps) for name in new}
    return {"steps": steps + 1, **means}


def quantise_kernel(kernel: jax.Array, scale: jax.Array, options: Quantisation) -> jax.Array:
    """The weights of a layer as multiples of their scales.

    Args:
        kernel: of the layer.
        scale: of each output, or one; where it is 0 all weights are.
        options: bits, and which quantiser.
    """
    scale, decimal = jnp.where(scale > 0, scale, 1), options.quantiser == "decimal"
    used = quantise.power_of_two(scale) if decimal else scale
    return quantise.quantise(kernel, used, options.weights, decimal)


def quantise_inputs(inputs: jax.Array, within: Range, bits: int, train: bool) -> jax.Array:
    """The inputs of a layer in even steps of their range.

    Args:
        inputs: of the layer.
        within: their range; where it is empty they are all alike.
        bits: of the quantiser.
        train: with the range as it is; else with a zero point of whole steps.
    """
    lower, upper = within
    upper = jnp.where(upper > lower, upper, lower + 1)
    function = quantise.quantise_adaptive if train else quantise.quantise_adaptive_whole
    return function(inputs.astype(jnp.float32), lower, upper, bits).astype(inputs.dtype)


@dataclasses.dataclass(frozen=True)
class _Hook:
    """What a layer calls on its inputs, kernel and bias, before it makes their types one."""

    scope: Any
    options: Quantisation
    train: bool
    pictures: bool
    axis_name: str | None

    def __call__(self, inputs: Any, kernel: Any, bias: Any, *, dtype: Any) -> Any:
        options = self.options
        held = self.scope.variable(
            "batch_stats", NAME, lambda: first_ranges(kernel, options, self.pictures)
        )
        ranges = held.value
        if self.train:
            ranges = update_ranges(ranges, inputs, kernel, options, self.axis_name)
            if self.scope.is_mutable_collection("batch_stats"):
                held.value = ranges
        begun = ranges["steps"] > 0
        if "scale" in ranges:
            kernel = jnp.where(begun, quantise_kernel(kernel, ranges["scale"], options), kernel)
        if "lower" in ranges:
            within, bits = Range(ranges["lower"], ranges["upper"]), options.activations
            inputs = jnp.where(begun, quantise_inputs(inputs, within, bits, self.train), inputs)
        return nn.dtypes.promote_dtype(inputs, kernel, bias, dtype=dtype)


def _has_kernel(layer: nn.Module) -> bool:
    hook = getattr(layer, "promote_dtype", None)
    return hook is not None and hasattr(layer, "kernel_init") and not isinstance(hook, _Hook)


def _measure_kernel(kernel: jax.Array, options: Quantisation) -> jax.Array:
    return quantise.measure_scale(kernel, options.weights, None if kernel.ndim == 2 else -1)
