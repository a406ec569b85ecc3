"""Run a per-device function on many devices; the one file that knows `pmap` and `shard_map`.

A step is written once for one device, against the axis name `AXIS`. State goes in and comes out
replicated (axis None), batches and accumulators carry a leading device axis (axis 0).

Over many hosts a step runs on the devices of all processes at once, and collectives cross them.
Outside the steps every array is this process's own: its copy of what is replicated, the rows of
its own devices of what is not. So only a step, and what processes tell each other
(processes.py), can wait for another host.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fairgrape_jax import escape
from fairgrape_jax.errors import UsageError
from fairgrape_jax.masks import Array, Tree

AXIS = "data"
T = TypeVar("T")
Axes = Tree  # 0 for an array that is cut along its first axis, None for one that is not
Lift = Literal["pmap", "shard_map"]


def local_devices(count: int = 0) -> list[jax.Device]:
    """The first `count` devices of this process, all of them for 0.

    Args:
        count: how many; 0 for all.

    Raises:
        UsageError: if there are fewer, or not as many in every process.
    """
    try:
        devices = jax.local_devices()
    except (RuntimeError, AssertionError) as error:  # the latter where no backend is left
        platforms = os.environ.get("JAX_PLATFORMS", "")
        raise UsageError(
            f"no device of JAX_PLATFORMS={platforms!r} "
            f"({escape.visible(str(error)) or 'none'}): see that no other process "
            "holds it (nvidia-smi), that fairgrape-jax[cuda] or [tpu] is installed, or set "
            "JAX_PLATFORMS=cpu"
        ) from error
    if not 0 <= count <= len(devices):
        raise UsageError(
            f"devices: {count} asked for, this machine has {len(devices)} "
            f"({devices[0].device_kind}); "
            "give a number up to that, or 0 for all"
        )
    numbers = [len(jax.local_devices(process_index=p)) for p in range(jax.process_count())]
    if len(set(numbers)) > 1:
        raise UsageError(f"devices: the processes have {numbers}; every one must have as many")
    return devices[: count or None]


def device_count(devices: Sequence[jax.Device]) -> int:
    """How many devices a step runs on: `devices` of this process, and as many of every other.

    Args:
        devices: those of this process.
    """
    return len(devices) * jax.process_count()


def lift(
    step: Callable[..., T],
    devices: Sequence[jax.Device],
    *,
    in_axes: tuple[int | None, ...],
    out_axes: int | None,
    donate: tuple[int, ...] = (),
    by: Lift = "pmap",
) -> Callable[..., T]:
    """A step on the devices of every process, collectives over the axis `AXIS`.

    Args:
        step: the function of one device.
        devices: those of this process.
        in_axes: None for an argument that is replicated, 0 for one with a leading device axis.
        out_axes: the same for the result.
        donate: arguments whose buffers the results may take over.
        by: `jax.pmap`, or `jax.jit(jax.shard_map)`; the results are the same.

    Returns:
        The lifted step. It raises RuntimeError where it would be traced a second time: one compile
        per run is a promise, and a shape that changes between rounds would break it silently.

    Example:
        >>> def step(scale, row):
        ...     return scale * jax.lax.pmean(row, AXIS)
        >>> lifted = lift(step, local_devices(1), in_axes=(None, 0), out_axes=None, by="shard_map")
        >>> lifted(np.float32(2), np.ones((1, 3), np.float32)).tolist()
        [2.0, 2.0, 2.0]
    """
    return LIFTS[by](forbid_retracing(step), devices, in_axes, out_axes, donate)


def _pmap(
    step: Callable[..., T],
    devices: Sequence[jax.Device],
    in_axes: tuple[int | None, ...],
    out_axes: int | None,
    donate: tuple[int, ...],
) -> Callable[..., T]:
    """By pmap, which takes and gives the arrays of one process by itself."""
    return jax.pmap(
        step,
        axis_name=AXIS,
        in_axes=in_axes,
        out_axes=out_axes,
        devices=_devices_of_all_processes(devices),
        donate_argnums=donate,
    )


def _shard_map(
    step: Callable[..., T],
    devices: Sequence[jax.Device],
    in_axes: tuple[int | None, ...],
    out_axes: int | None,
    donate: tuple[int, ...],
) -> Callable[..., T]:
    """By jit(shard_map) on global arrays, each made of the processes' own."""
    everywhere = _devices_of_all_processes(devices)

    def per_device(*args: Tree) -> Tree:
        rows = [
            _map_leaves(arg, axis, lambda x: x[0]) for arg, axis in zip(args, in_axes, strict=True)
        ]
        return _map_leaves(step(*rows), out_axes, lambda x: x[None])

    compiled = jax.jit(
        shard_function(per_device, everywhere, in_axes, out_axes), donate_argnums=donate
    )
    if len(everywhere) == len(devices):
        return compiled

    def across(*args: Tree) -> Tree:
        places = [_sharding(everywhere, axis) for axis in in_axes]
        whole = [_as_global_arrays(arg, place) for arg, place in zip(args, places, strict=True)]
        return _as_global_arrays(compiled(*whole), _sharding(devices, out_axes))

    return across


def shard_function(
    fn: Callable[..., T], devices: Sequence[jax.Device], in_axes: Axes, out_axes: Axes
) -> Callable[..., T]:
    """A function on several devices, each with its part of the arrays, for use in a jitted program.

    Args:
        fn: what each device does.
        devices: which ones.
        in_axes: a tree of 0 for an array that is cut along its first axis, None for one that is
            not.
        out_axes: the same for the result.
    """

    def specs(axes: Axes) -> Tree:
        return jax.tree.map(_spec, axes, is_leaf=lambda axis: axis is None)

    return jax.shard_map(
        fn,
        mesh=Mesh(np.asarray(devices), (AXIS,)),
        in_specs=specs(in_axes),
        out_specs=specs(out_axes),
        check_vma=False,  # collectives mean, and are differentiated, as in pmap
    )


LIFTS: dict[str, Callable[..., Callable[..., Tree]]] = {"pmap": _pmap, "shard_map": _shard_map}


def _map_leaves(tree: Tree, axis: int | None, change: Callable[[jax.Array], jax.Array]) -> Tree:
    return tree if axis is None else jax.tree.map(change, tree)


def _as_global_arrays(tree: Tree, place: NamedSharding) -> Tree:
    """The same buffers seen as arrays on the mesh of `place`, all processes' or this one's."""

    def joined(x: Array) -> jax.Array:
        if not isinstance(x, jax.Array):
            return jax.make_array_from_process_local_data(place, np.asarray(x))
        shape = x.shape
        if place.spec:
            shape = (place.mesh.size, *shape[1:])
        buffers = [shard.data for shard in x.addressable_shards]
        return jax.make_array_from_single_device_arrays(shape, place, buffers)

    return jax.tree.map(joined, tree)


def _devices_of_all_processes(devices: Sequence[jax.Device]) -> list[jax.Device]:
    """`devices`, the first ones of this process, and as many of every other, by process."""
    if jax.process_count() == 1:
        return list(devices)
    processes = range(jax.process_count())
    return [d for p in processes for d in jax.local_devices(process_index=p)[: len(devices)]]


def forbid_retracing(step: Callable[..., T]) -> Callable[..., T]:
    """The step; RuntimeError where it is traced for a second set of shapes.

    Args:
        step: any function of pytrees of arrays.
    """
    traces: list[Tree] = []

    @functools.wraps(step)
    def once(*args: Tree) -> T:
        shapes = jax.tree.map(lambda x: (x.shape, str(x.dtype)), args)
        if traces and traces[0] != shapes:
            raise RuntimeError(f"{step.__name__} would be compiled twice: its inputs changed shape")
        traces.append(shapes)
        return step(*args)

    return once


def replicate(tree: T, devices: Sequence[jax.Device]) -> T:
    """A copy of `tree` on every device: placed so once, a step never moves it again.

    Args:
        tree: a pytree of arrays.
        devices: where to.
    """
    return jax.device_put(tree, _sharding(devices, None))


def shard_arrays(arrays: T, devices: Sequence[jax.Device], axes: Axes) -> T:
    """Each array's part, or all of it, on every device.

    Args:
        arrays: a pytree of arrays.
        devices: which ones.
        axes: a tree of the same structure, 0 or None for each array, as for `shard_function`.

    Returns:
        The pytree, its arrays placed.
    """
    places = jax.tree.map(
        lambda axis: _sharding(devices, axis), axes, is_leaf=lambda axis: axis is None
    )
    return jax.device_put(arrays, places)


def constrain_to_copies(arrays: T, devices: Sequence[jax.Device]) -> T:
    """Within a jitted program: arrays of which every device holds a copy, whatever uses them.

    Args:
        arrays: a pytree.
        devices: those of the program.
    """
    return jax.lax.with_sharding_constraint(arrays, _sharding(devices, None))


def sharded_zeros(shape: tuple[int, ...], devices: Sequence[jax.Device]) -> jax.Array:
    """float32 zeros (devices, *shape), one row on each device.

    Args:
        shape: of a device's row.
        devices: where to.
    """
    return jnp.zeros((len(devices), *shape), jnp.float32, device=_sharding(devices, 0))


def _spec(axis: int | None) -> PartitionSpec:
    return PartitionSpec() if axis is None else PartitionSpec(AXIS)


def _sharding(devices: Sequence[jax.Device], axis: int | None) -> NamedSharding:
    return NamedSharding(Mesh(np.asarray(devices), (AXIS,)), _spec(axis))


def split_batch(batch: T, devices: Sequence[jax.Device]) -> T:
    """Cut the leading axis of every array into (devices, size per device).

    Args:
        batch: a pytree of arrays with samples along their first axis.
        devices: as many parts.
    """
    count = len(devices)
    return jax.tree.map(lambda x: x.reshape(count, x.shape[0] // count, *x.shape[1:]), batch)


def prefetch_to_devices(batches: Iterable[T], devices: Sequence[jax.Device]) -> Iterator[T]:
    """Batches on their devices, each sent before the one before it is used.

    While a device computes a step, the pictures of the next one are read and on their way.

    Args:
        batches: pytrees of arrays (devices, ...).
        devices: those of this process.
    """
    place = _sharding(devices, 0)
    waiting: list[T] = []
    for batch in batches:
        waiting.append(jax.device_put(batch, place))
        if len(waiting) > 1:
            yield waiting.pop(0)
    yield from waiting
