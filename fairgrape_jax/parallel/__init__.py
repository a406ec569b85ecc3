"""Many devices and hosts: lifting per-device functions, exchanging arrays, stopping together."""

from fairgrape_jax.parallel.devices import (
    AXIS,
    LIFTS,
    Lift,
    constrain_to_copies,
    device_count,
    forbid_retracing,
    lift,
    local_devices,
    prefetch_to_devices,
    replicate,
    shard_arrays,
    shard_function,
    sharded_zeros,
    split_batch,
)
from fairgrape_jax.parallel.processes import (
    all_gather_rows,
    broadcast_from_process_0,
    checksum,
    process_index_and_count,
    processes_agree,
)

__all__ = [
    "AXIS",
    "LIFTS",
    "Lift",
    "all_gather_rows",
    "broadcast_from_process_0",
    "checksum",
    "constrain_to_copies",
    "device_count",
    "forbid_retracing",
    "lift",
    "local_devices",
    "prefetch_to_devices",
    "process_index_and_count",
    "processes_agree",
    "replicate",
    "shard_arrays",
    "shard_function",
    "sharded_zeros",
    "split_batch",
]
