"""A network with int8 weights and activations: simulated in training, and as arrays of int8."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fairgrape_jax.kernels import is_array
from fairgrape_jax.masks import Tree, apply_masks, check_masks, native
from fairgrape_jax.quantize.numbers import range_scale
from fairgrape_jax.quantize.outputs import (
    Apply,
    Still,
    check_layers,
    held_weights,
    int8_outputs,
    measure_bounds,
    multiply_integers,
    multiply_rounded,
    shape_of,
    simulate,
    trace_layers,
)
from fairgrape_jax.structures.coupling import on_leaves

Bounds = tuple[float, float]  # of activations: the least and the largest


@dataclasses.dataclass(frozen=True, eq=False)  # a hash of its own, as jax.jit wants
class SimulatedInt8:
    """A network whose layers see int8 weights and activations, as a function to be trained.

    Attributes:
        apply: the network in floating point, (params, x) to outputs.
        example: the shapes of a batch of inputs.
        bounds: of the activations that each layer takes, by its name.
        left: operations that stay in floating point, in words.
    """

    apply: Apply
    example: Tree
    bounds: Mapping[str, Bounds]
    left: tuple[str, ...]

    def __call__(self, params: Tree, x: Any) -> Any:
        """The outputs of the rounded network; gradients pass through the rounding.

        Weights are rounded to the scales of these parameters, activations to `bounds`.

        Args:
            params: of the network, masks applied.
            x: its inputs.
        """
        return simulate(self.apply, params, self.bounds, x)

    def convert(self, params: Tree) -> Int8Network:
        """The network with these parameters in int8.

        Args:
            params: masks applied, as after training.

        Returns:
            Arrays of int8, and the function that takes them.
        """
        zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), self.example)
        network, arrays = trace_layers(self.apply, params, zeros)
        check_layers(network, self.bounds)
        held = jax.device_get(held_weights(self.apply, Still.of(params), arrays, zeros))
        scales = {name: range_scale(*map(jnp.float32, self.bounds[name])) for name in held}
        rest = zip(on_leaves(self.apply, params)[0].items(), network.needed, strict=True)
        stored = {
            "int8": {name: weights for name, (weights, _) in held.items()},
            "scales": {name: scale for name, (_, scale) in held.items()},
            "activations": {n: np.array([s.scale, s.zero], np.float32) for n, s in scales.items()},
            "float": {
                name: native(jax.device_get(leaf)) for (name, leaf), needed in rest if needed
            },
        }
        static = self.apply, Still.of(jax.tree.map(shape_of, params))
        return Int8Network(
            stored,
            functools.partial(int8_outputs, *static, multiply_rounded),
            functools.partial(int8_outputs, *static, multiply_integers),
            self.bounds,
            self.left,
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Int8Network:
    """A network in int8.

    Attributes:
        params: {"int8": the weights of each layer by its name, "scales": their scales per output
            channel, "activations": [scale, zero point] of what each layer takes, "float": what
            stays in floating point, by its name}; NumPy arrays.
        apply: (params, x) to the outputs: whole numbers held as such, products in floating point,
            which every device does fast and exactly but for the rounding of sums.
        apply_integer: the same with products of int8 summed up in int32, as an integer unit does.
        bounds: of the activations, by layer.
        left: operations that stay in floating point, in words.
    """

    params: dict[str, dict[str, np.ndarray]]
    apply: Apply
    apply_integer: Apply
    bounds: Mapping[str, Bounds]
    left: tuple[str, ...]

    @property
    def bytes(self) -> int:
        """The size of all its arrays."""
        return sum(leaf.nbytes for leaf in jax.tree.leaves(self.params))


def simulate_int8(params: Tree, *, apply: Apply, inputs: Any, masks: Tree = None) -> SimulatedInt8:
    """Calibrate a network for int8: a function to train with, and to convert when that is done.

    The inputs of every convolution and matrix product by parameters, and these parameters, are
    int8; what lies between (batch norm, activations, sums, pooling) stays as it is. It is found in
    the program, so that a network of any library goes through, but for loops and branches, which
    stay in floating point and are named in `left`.

    Args:
        params: of the network, any pytree.
        apply: (params, x) to outputs, as in evaluation.
        inputs: (B, ...) a batch of the training or validation split, or a list of them: activations
            are cut to what occurs there.
        masks: bool arrays, None where not prunable; applied here.

    Returns:
        The rounded network as a function of (params, x).

    Raises:
        ValueError: no layer has weights, no input, or an activation that is not finite.

    Example:
        >>> params, x = {"w": np.eye(2, dtype=np.float32)}, np.ones((1, 2), np.float32)
        >>> network = simulate_int8(params, apply=lambda p, x: x @ p["w"], inputs=x)
        >>> network.bounds
        {'w': (0.0, 1.0)}
        >>> jax.grad(lambda p: network(p, x).sum())(params)["w"].tolist()
        [[1.0, 1.0], [1.0, 1.0]]
    """
    params = _masked(params, masks)
    batches = _batches(inputs)
    network, arrays = trace_layers(apply, params, batches[0])
    if not network.layers:
        raise ValueError("apply: no convolution and no matrix product of it takes parameters")

    still = Still.of(params)
    measured = [jax.device_get(measure_bounds(apply, still, arrays, batch)) for batch in batches]
    bounds: dict[str, Bounds] = {}
    for name in measured[0]:
        each = np.concatenate([batch[name] for batch in measured])
        if not np.isfinite(each).all():
            raise ValueError(f"inputs: an activation before {name!r} is not finite")
        bounds[name] = (min(float(each[:, 0].min()), 0.0), max(float(each[:, 1].max()), 0.0))
    return SimulatedInt8(apply, jax.tree.map(shape_of, batches[0]), bounds, network.left)


def quantize_int8(params: Tree, *, apply: Apply, inputs: Any, masks: Tree = None) -> Int8Network:
    """A network in int8 after training: weights per output channel, activations per layer.

    Pruned weights stay exactly zero. `simulate_int8` says what is int8, and has the arguments; to
    train with it, call that, and `convert` afterwards.

    Args:
        params: of the network, any pytree.
        apply: (params, x) to outputs, as in evaluation.
        inputs: (B, ...) a batch of the training or validation split, or a list of them.
        masks: bool arrays, None where not prunable; applied here.

    Returns:
        Arrays of int8, and the function that takes them; `fg.export` takes both.

    Raises:
        ValueError: as `simulate_int8`.

    Example:
        >>> params = {"w": np.array([[1.0, -2.0], [0.0, 0.5]], np.float32)}
        >>> x = np.array([[0.0, 255.0]], np.float32)
        >>> network = quantize_int8(params, apply=lambda p, x: x @ p["w"], inputs=x)
        >>> network.params["int8"]["w"].tolist()
        [[127, -127], [0, 32]]
        >>> network.apply(network.params, x).round(2).tolist()
        [[0.0, 128.5]]
    """
    params = _masked(params, masks)
    return simulate_int8(params, apply=apply, inputs=inputs).convert(params)


def _masked(params: Tree, masks: Tree) -> Tree:
    if masks is None:
        return params
    check_masks(masks, params)
    return apply_masks(masks, params)


def _batches(inputs: Any) -> list[Any]:
    """Batches of inputs, from one or several."""
    batches = [inputs] if is_array(inputs) else list(inputs)
    if not batches or any(0 in np.shape(leaf) for leaf in jax.tree.leaves(batches)):
        raise ValueError("inputs: at least one, (B, ...), is needed to see which activations occur")
    return batches
