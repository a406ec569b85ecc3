"""Lifting a per-device function over devices. The one file that knows `pmap`.

A step is written once for one device, against the axis name `AXIS`. State goes in and comes out
replicated (axis None), batches and accumulators carry a leading device axis (axis 0).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fairgrape_jax.errors import UsageError

AXIS = "data"


def local_devices(count: int = 0) -> list[jax.Device]:
    """The first `count` local devices, all of them for 0. UsageError if there are fewer."""
    found = jax.local_devices()
    if not 0 <= count <= len(found):
        raise UsageError(
            f"devices: {count} asked for, this machine has {len(found)} ({found[0].device_kind}); "
            "give a number up to that, or 0 for all"
        )
    return found[: count or None]


def lift(
    step: Callable[..., Any],
    devices: Sequence[jax.Device],
    *,
    in_axes: tuple[int | None, ...],
    out_axes: Any,
    donate: tuple[int, ...] = (),
) -> Callable[..., Any]:
    """`step` on every device at once, with collectives over the axis name `AXIS`.

    in_axes, out_axes: None for what is replicated, 0 for what has a leading device axis.
    donate: arguments whose buffers the results may reuse.
    Tracing a second time raises RuntimeError: one compile per run is a promise, and a shape that
    changes between rounds would break it silently.
    """
    return jax.pmap(
        traced_once(step),
        axis_name=AXIS,
        in_axes=in_axes,
        out_axes=out_axes,
        devices=list(devices),
        donate_argnums=donate,
    )


def traced_once(step: Callable[..., Any]) -> Callable[..., Any]:
    """`step`, refusing to be traced for a second set of shapes."""
    traces: list[Any] = []

    @functools.wraps(step)
    def once(*args: Any) -> Any:
        shapes = jax.tree.map(lambda x: (x.shape, str(x.dtype)), args)
        if traces and traces[0] != shapes:
            raise RuntimeError(f"{step.__name__} would be compiled twice: its inputs changed shape")
        traces.append(shapes)
        return step(*args)

    return once


def replicate(tree: Any, devices: Sequence[jax.Device]) -> Any:
    """A copy of `tree` on every device: placed so once, a step never moves it again."""
    return jax.device_put(tree, _sharding(devices))


def zeros(shape: tuple[int, ...], devices: Sequence[jax.Device]) -> jax.Array:
    """float32 zeros (devices, *shape), one row on each device."""
    return jnp.zeros((len(devices), *shape), jnp.float32, device=_sharding(devices, AXIS))


def _sharding(devices: Sequence[jax.Device], *axes: str) -> NamedSharding:
    return NamedSharding(Mesh(np.asarray(devices), (AXIS,)), PartitionSpec(*axes))


def split_batch(batch: Any, devices: Sequence[jax.Device]) -> Any:
    """Cut the leading axis of every array into (devices, size per device)."""
    count = len(devices)
    return jax.tree.map(lambda x: x.reshape(count, x.shape[0] // count, *x.shape[1:]), batch)
