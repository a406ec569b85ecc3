"""The processes of a run over many hosts: how they find each other, who writes, how one ends.

Every process runs the same program on its own devices. What only one may do (print, write files)
process 0 does; what they must agree on goes through `parallel.broadcast_from_process_0`.
"""

from __future__ import annotations

import dataclasses
import os
import socket
import sys
import threading
import time

import jax

from fairgrape_jax.errors import UsageError

EXIT_WAIT = 5.0  # seconds that a failed process waits for others that failed in the same way


@dataclasses.dataclass(frozen=True)
class Cluster:
    """How to join the other processes.

    The first three are None where the environment has them (Cloud TPU, SLURM, Open MPI,
    Kubernetes).

    Attributes:
        coordinator: HOST:PORT, where process 0 listens.
        processes: how many there are.
        process: the number of this one.
        heartbeat: seconds of silence after which a process counts as dead.
        start: seconds to wait for the others at the start.
    """

    coordinator: str | None = None
    processes: int | None = None
    process: int | None = None
    heartbeat: int = 100
    start: int = 300


def check_flags(cluster: Cluster) -> None:
    """Check the flags of a cluster.

    Args:
        cluster: the processes of the run, as the command names them.

    Raises:
        UsageError: for those that contradict each other or are out of range.
    """
    flags = (cluster.coordinator, cluster.processes, cluster.process)
    if any(value is not None for value in flags) and None in flags:
        raise UsageError(
            "--coordinator-address, --num-processes and --process-id go together; "
            "give all three, or none where the cluster tells them"
        )
    if cluster.heartbeat < 1 or cluster.start < 1:
        raise UsageError("--heartbeat-timeout and --start-timeout must be at least 1 second")
    if cluster.coordinator is None:
        return
    processes, process = cluster.processes or 0, cluster.process or 0
    if processes < 1:
        raise UsageError(f"--num-processes: {processes} is less than 1")
    if not 0 <= process < processes:
        raise UsageError(
            f"--process-id: {process} is not one of the {processes} processes; "
            f"give 0 to {processes - 1}"
        )
    host, _, port = cluster.coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UsageError(f"--coordinator-address: {cluster.coordinator!r} is not HOST:PORT")


def join_cluster(cluster: Cluster) -> None:
    """Meet the other processes; to be called before anything asks for a device.

    Args:
        cluster: the processes of the run, as the command names them.

    Raises:
        UsageError: if the flags are wrong, the coordinator is not there, or no cluster is found.
    """
    check_flags(cluster)
    if cluster.coordinator is not None:
        _check_coordinator(cluster)
    try:
        jax.distributed.initialize(
            cluster.coordinator,
            cluster.processes,
            cluster.process,
            initialization_timeout=cluster.start,
            heartbeat_timeout_seconds=cluster.heartbeat,
        )
    except ValueError as error:  # nothing was detected
        raise UsageError(
            f"--distributed: no cluster tells who the processes are ({error}); give "
            "--coordinator-address HOST:PORT --num-processes N --process-id I"
        ) from error


def _check_coordinator(cluster: Cluster) -> None:
    """UsageError if process 0 cannot listen, or another one cannot reach it in time.

    jax aborts the whole program in these cases.
    """
    address = str(cluster.coordinator)
    host, _, port = address.rpartition(":")
    if cluster.process == 0:
        try:
            with socket.create_server(("", int(port))):
                return
        except OSError as error:
            raise UsageError(
                f"--coordinator-address: process 0 cannot listen on port {port} ({error.strerror})"
            ) from error
    end = time.monotonic() + cluster.start
    while True:
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=5):
                return
        except OSError as error:
            if time.monotonic() > end:
                raise UsageError(
                    f"--coordinator-address: nothing answers at {address} after {cluster.start} s "
                    f"({error}); start process 0 there, or wait longer with --start-timeout"
                ) from error
        time.sleep(0.2)


def is_process_0() -> bool:
    """Whether this process prints and writes: process 0, or the only one.

    No device is asked for where there is one process: a report needs none.
    """
    return not jax.distributed.is_initialized() or jax.process_index() == 0


def exit_failed(code: int) -> None:
    """End this process now if it failed and there are others; else do nothing.

    An ordinary exit would wait minutes for the others to finish, and they wait for this one in a
    collective; they notice that it is gone by the closed connection or the missing heartbeat.
    Where all fail alike (a wrong flag) all are here at once, and none is cut off.

    Args:
        code: the exit code; 0 for a process that did not fail.
    """
    if code and jax.distributed.is_initialized():
        shutdown = threading.Thread(target=jax.distributed.shutdown, daemon=True)
        shutdown.start()
        shutdown.join(EXIT_WAIT)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
