"""Scalars of a run while it goes on: of every epoch, and of every round per group, for TensorBoard.

As `progress.say` prints for whoever looks, `log_epoch` and `log_round` write where somebody tracks;
elsewhere, and on other processes than the first, they do nothing.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fairgrape_jax.errors import UsageError

TRACKERS = ("tensorboard",)
# What is called with the series, the step and its scalars; one at most.
_LISTENERS: list[Callable[[str, int, Mapping[str, float]], None]] = []


def check(name: str) -> None:
    """Refuse what cannot track, before anything is computed.

    Args:
        name: of TRACKERS, or "" for none.

    Raises:
        UsageError: an unknown name, or a package that is not installed, with the cure.
    """
    if name and name not in TRACKERS:
        raise UsageError(f"track: {name!r} is none of {', '.join(TRACKERS)}")
    if name == "tensorboard" and not importlib.util.find_spec("tensorboardX"):
        raise UsageError(
            "track: tensorboard needs a package that is not installed: "
            "pip install 'fairgrape_jax[tensorboard]'"
        )


@contextlib.contextmanager
def started(name: str, directory: Path) -> Iterator[None]:
    """Write the scalars that are logged within, on process 0.

    Args:
        name: of TRACKERS, or "" for none.
        directory: of the run; event files go to `tensorboard` in it, a folder for each series.
    """
    from fairgrape_jax.parallel import hosts  # JAX: not before it is needed

    check(name)
    if name:
        os.fspath(directory)  # event files are written to a local disk: UsageError for another
    if not name or not hosts.is_process_0():
        yield
        return
    with contextlib.ExitStack() as open_files:
        _LISTENERS.append(_event_files(directory / "tensorboard", open_files))
        try:
            yield
        finally:
            _LISTENERS.pop()


def log_epoch(series: str, record: Mapping[str, float]) -> None:
    """Log an epoch: its loss, rate, and what was validated.

    Args:
        series: the method of a seed, "seed_0/fairgrape".
        record: of the epoch, with its number.
    """
    values = {f"epoch/{name}": value for name, value in record.items() if name != "epoch"}
    _log(series, int(record["epoch"]), values)


def log_round(record: Mapping[str, Any]) -> None:
    """Log a round: every metric of the test split, of groups by their names, and the weights left.

    Args:
        record: the stage's metrics.json.
    """
    values = {"round/weights left (%)": 100 * record["density"]}
    for name, value in record["test"].items():
        if isinstance(value, list):
            for group, one in zip(record["groups"], value, strict=True):
                values[f"round/{name}/{group}"] = one
        else:
            values[f"round/{name}"] = value
    _log(f"seed_{record['seed']}/{record['method']}", record["round"], values)


def _log(series: str, step: int, values: Mapping[str, float | None]) -> None:
    known = {name: float(value) for name, value in values.items() if value is not None}
    for listener in _LISTENERS:
        listener(series, step, known)


def _event_files(
    folder: Path, open_files: contextlib.ExitStack
) -> Callable[[str, int, Mapping[str, float]], None]:
    """Writes TensorBoard's event files: at once, so that a full disk is an error here."""
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.proto.summary_pb2 import Summary

    writers: dict[str, EventsWriter] = {}

    def write(series: str, step: int, values: Mapping[str, float]) -> None:
        if series not in writers:
            place = folder / series
            place.mkdir(parents=True, exist_ok=True)
            writers[series] = EventsWriter(str(place / "events"), f".{os.getpid()}")
            open_files.callback(writers[series].close)
        scalars = [Summary.Value(tag=name, simple_value=x) for name, x in values.items()]
        event = Event(wall_time=time.time(), step=step, summary=Summary(value=scalars))
        writers[series].write_event(event)
        writers[series].flush()

    return write
