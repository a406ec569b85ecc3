"""Preemption: the notice that a machine is wanted back, and where all processes stop for it.

A notice is a signal: SIGTERM (SLURM, Kubernetes, Cloud TPU and every other scheduler), SIGUSR1 (as
`sbatch --signal=USR1@120` asks for, earlier than SIGTERM) or SIGINT (Ctrl-C). It is only noted;
between two steps the run looks for it, saves its place and ends with an exit code that says so.
With many hosts jax tells all of the notice that one got, and they stop at the same step.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import sys
import threading
from collections.abc import Iterator
from multiprocessing import resource_tracker
from types import FrameType

import jax
from jax.experimental import multihost_utils

from fairgrape_jax.errors import Preempted

EXIT_REQUEUE = 75  # EX_TEMPFAIL of sysexits.h: start the same command again
EXIT_INTERRUPTED = 128 + signal.SIGINT
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)

_received: list[int] = []  # the signals that came, in order; they are the whole process's
_sync_points = itertools.count(1)  # numbers the places where all can stop, alike on every process


@contextlib.contextmanager
def catch_signals() -> Iterator[None]:
    """Note the signals of SIGNALS while the body runs, instead of ending by them.

    A second Ctrl-C ends it at once. Outside the main thread, where Python handles no signals,
    nothing is changed.
    """
    _received.clear()
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # jax takes SIGTERM itself where there are many hosts, from `jax.distributed.initialize` on.
    distributed = jax.distributed.is_initialized()
    numbers = [n for n in SIGNALS if n != signal.SIGTERM or not distributed]
    before = {number: signal.signal(number, _receive) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _receive(number: int, frame: FrameType | None) -> None:
    if number == signal.SIGINT and signal.SIGINT in _received:
        raise KeyboardInterrupt
    _received.append(number)
    again = "; again to stop at once" if number == signal.SIGINT else ""
    line = f"\nfairgrape: {signal.Signals(number).name}: stopping after this step{again}\n"
    os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, line.encode())
    if jax.distributed.is_initialized():
        os.kill(os.getpid(), signal.SIGTERM)


@contextlib.contextmanager
def block_signals() -> Iterator[None]:
    """Keep SIGNALS from processes and threads that are started in the body, for good.

    Schedulers send them to the whole group of processes; those that read pictures are needed to
    the end.
    """
    resource_tracker.ensure_running()  # its start unblocks SIGTERM
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # inherited by what is started
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def stop_requested() -> bool:
    """Whether to save and stop here.

    All processes call it at the same places, in the same order.
    """
    number = next(_sync_points)
    if jax.distributed.is_initialized():
        return bool(multihost_utils.reached_preemption_sync_point(number))
    return bool(_received)


def stop_if_requested(where: str) -> None:
    """Raise Preempted if all are to stop here. where: for the message.

    Args:
        where: for the message.
    """
    if stop_requested():
        raise Preempted(f"in {where}")


def exit_code() -> int:
    """How the process ends after Preempted: 130 after Ctrl-C, else REQUEUE."""
    return EXIT_INTERRUPTED if _received[:1] == [signal.SIGINT] else EXIT_REQUEUE
