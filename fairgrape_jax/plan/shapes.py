"""The network of a run as shapes on its devices, and a program before it is compiled."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fairgrape_jax import parallel
from fairgrape_jax.config import Experiment
from fairgrape_jax.data.dataset import Dataset
from fairgrape_jax.kernels import PRUNABLE
from fairgrape_jax.masks import Tree, full_masks
from fairgrape_jax.rounds import steps
from fairgrape_jax.rounds.session import Network, Session
from fairgrape_jax.training.state import init_state


@dataclasses.dataclass(frozen=True)
class Program:
    """One compiled function of a run, before it is compiled.

    Attributes:
        name: "training", "retraining", "scoring" and so on.
        function: as the run has it, with a method `lower`.
        arguments: their shapes, dtypes and places.
        donated: bytes on one device of the arguments whose buffers the results take over.
        resident: bytes on one device of what else a run holds there meanwhile.
        calls: how often a round calls it, or an epoch for "training" and "retraining".
        per: "epoch" or "round".
    """

    name: str
    function: Any
    arguments: tuple[Any, ...]
    donated: int
    resident: int
    calls: int
    per: str


@dataclasses.dataclass(frozen=True)
class Shapes:
    """What a run has on its devices: the network as shapes, and how arrays lie there.

    Attributes:
        session: the run, with its steps on the target's devices.
        network: the state and the masks, as shapes without a place.
    """

    session: Session
    network: Network

    @property
    def devices(self) -> list[jax.Device]:
        """Those of the target, of all its hosts."""
        return self.session.devices

    def placed(self, tree: Tree, axis: int | None) -> Tree:
        """Shapes of arrays on the devices: cut along the first axis (0), or a copy each (None).

        Args:
            tree: shapes of arrays.
            axis: 0, or None.

        Returns:
            The same shapes, with where they lie.
        """
        spec = PartitionSpec() if axis is None else PartitionSpec(parallel.AXIS)
        place = NamedSharding(Mesh(np.asarray(self.devices), (parallel.AXIS,)), spec)
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), tree)

    def rows(self, shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
        """The shape of an array with a row for each device.

        Args:
            shape: of one row.
            dtype: of the array.

        Returns:
            The shape.
        """
        return self.placed(jax.ShapeDtypeStruct((len(self.devices), *shape), dtype), 0)


def shapes_of(experiment: Experiment, dataset: Dataset, devices: list[jax.Device]) -> Shapes:
    """The steps of an experiment on devices that may not be here, and the shapes of its network.

    Args:
        experiment: what is planned.
        dataset: with its numbers; its pictures are not looked at.
        devices: real ones or abstract.

    Returns:
        The shapes.
    """
    session = Session(experiment, dataset, steps.build(experiment, dataset, devices))
    module, optimizer = session.steps.quantised, session.steps.optimizer
    state = jax.eval_shape(lambda: init_state(module, dataset, optimizer, 0))
    full = full_masks(state.params, PRUNABLE[experiment.prunable])
    masks = jax.tree.map(lambda m: jax.ShapeDtypeStruct(m.shape, m.dtype), full)
    return Shapes(session, Network(state, masks))


def nbytes(tree: Tree) -> int:
    """Bytes of the arrays, or shapes of arrays, in a tree.

    Args:
        tree: arrays, or shapes of arrays; None counts nothing.

    Returns:
        Bytes.

    Example:
        >>> nbytes({"a": np.zeros(3, np.float32), "b": None})
        12
    """
    leaves = jax.tree.leaves(tree)
    return sum(math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize for leaf in leaves)


def counts_of(shapes: Shapes) -> dict[str, int]:
    """Parameters, prunable weights and bytes of a checkpoint.

    Args:
        shapes: of the network, its data and its devices.

    Returns:
        By name.
    """
    masks = jax.tree.leaves(shapes.network.masks)
    return {
        "parameters": sum(math.prod(p.shape) for p in jax.tree.leaves(shapes.network.state.params)),
        "weights": sum(math.prod(m.shape) for m in masks),
        "checkpoint_bytes": nbytes((shapes.network.state, shapes.network.masks)),
    }


def network_and_dense(shapes: Shapes) -> int:
    """Bytes on a device of the network that is pruned, and of the dense one that it came from.

    Args:
        shapes: of the network, its data and its devices.

    Returns:
        Bytes.
    """
    return 2 * nbytes((shapes.network.state, shapes.network.masks))
