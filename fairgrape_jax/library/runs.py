"""Do an experiment from Python, as `fairgrape run` does."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from fairgrape_jax import config, tracking
from fairgrape_jax.config import Experiment
from fairgrape_jax.errors import UsageError
from fairgrape_jax.parallel import hosts, preemption
from fairgrape_jax.reports.run import write
from fairgrape_jax.runner import run as runner
from fairgrape_jax.runner import stage
from fairgrape_jax.storage import as_path


class Finished(NamedTuple):
    """What `run` has done.

    Attributes:
        directory: of the run.
        complete: whether all of the experiment is done; of a shard the rest may be missing.
        stages: the names of the finished stages, as `load(directory, stage)` takes them.
    """

    directory: Path
    complete: bool
    stages: tuple[str, ...]


def run(
    experiment: Experiment | str | Path,
    directory: str | Path = "",
    *,
    shard: tuple[int, int] = (0, 1),
    accept_changed_plugins: bool = False,
    track: str = "",
) -> Finished:
    """Do an experiment, or go on where it was stopped; what is complete is not done again.

    With all of it complete, the report is written too. On a GPU the same call gives the same bits
    only under XLA_FLAGS=--xla_gpu_deterministic_ops=true, which the command `fairgrape` sets and a
    program must set before its first use of JAX.

    Args:
        experiment: what to do (`fairgrape_jax.config.Experiment`), or the directory of a run, which
            is gone on with.
        directory: of the run; made where it is not there.
        shard: (i, n), do the i-th of n parts of the seeds and methods; other processes, which share
            the directory, do the others.
        accept_changed_plugins: go on where a row that was registered from outside is not what it
            was when the run was begun; its report says so.
        track: "tensorboard" writes scalars of every epoch and round to `directory`/tensorboard.

    Returns:
        What is finished now; see `Finished`.

    Raises:
        UsageError: something is wrong with the request; nothing is written.
        TrainingError: a number is not finite, or a device has no memory left.
        Preempted: after Ctrl-C or a notice, at the next step, whose place is saved. Complete rounds
            stay in all cases, and the same call goes on.
    """
    if not isinstance(experiment, Experiment):
        begun = as_path(experiment)
        if not (begun / "config.json").exists():
            raise UsageError(f"{begun}: a folder without config.json is not a run")
        experiment, directory = config.load(begun / "config.json"), directory or begun
    experiment = config.check_types(experiment)
    config.check(experiment)
    index, count = shard
    if not 0 <= index < count:
        raise UsageError(f"shard: {shard} is not (I, N) with I from 0 to N - 1")
    if not str(directory):
        raise UsageError("directory: name the directory of the run")
    tracking.check(track)
    out = as_path(directory)
    with preemption.catch_signals(), tracking.started(track, out):
        complete = runner.run(experiment, out, shard, accept_changed_plugins=accept_changed_plugins)
        if complete and hosts.is_process_0():
            write([out], out)
    return Finished(out, complete, stage.stages(out))
