"""`fairgrape run`: do an experiment, or go on with a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from tyro.conf import DisallowNone, FlagCreatePairsOff, Positional, arg

from fairgrape_jax import config, data
from fairgrape_jax.cli.command import Command, parse_first, with_fields_of
from fairgrape_jax.cli.python_files import execute, load_plugins
from fairgrape_jax.config import Experiment
from fairgrape_jax.errors import UsageError
from fairgrape_jax.parallel import hosts

# The flags that say how the processes of a run find each other, and the fields of hosts.Cluster.
CLUSTER = {
    "coordinator_address": "coordinator",
    "num_processes": "processes",
    "process_id": "process",
    "heartbeat_timeout": "heartbeat",
    "start_timeout": "start",
}


def _flag(metavar: str) -> Any:
    """A flag without a default that would be worth showing."""
    return arg(metavar=metavar, help_behavior_hint="")


@dataclasses.dataclass(frozen=True)
class Run(Command):
    """Do an experiment, or go on where it was stopped.

    `fairgrape run EXPERIMENT --help` shows every field of the experiment, which are flags too, with
    its value there. What is complete is not done again.
    """

    experiment: Annotated[Path, Positional, arg(metavar="EXPERIMENT")]
    """A file (experiments/*.py) or the directory of a run."""
    out: Annotated[
        Path | None, arg(metavar="DIR", help_behavior_hint="(default: runs/ and the file's name)")
    ] = None
    """Directory of the run."""
    dataset: Annotated[DisallowNone[str | None], _flag("NAME")] = None
    """Another dataset, of those in `fairgrape list`, in place of the experiment's."""
    shard: Annotated[str, arg(metavar="I/N")] = "0/1"
    """The I-th of N parts (from 0) of the seeds and methods; other processes, which share the
    directory, do the others."""
    plugin: Annotated[tuple[Path, ...], arg(metavar="FILE...", help_behavior_hint="")] = ()
    """Python files that register methods, models, datasets or metrics (docs/extending.md)."""
    accept_changed_plugins: FlagCreatePairsOff[bool] = False
    """Go on with a run although a plugin is not what it was then; the report says so."""
    track: Annotated[
        DisallowNone[Literal["tensorboard"] | None],
        arg(metavar="tensorboard", help_behavior_hint="(default: nothing)"),
    ] = None
    """Write scalars of every epoch and round to the run's folder tensorboard/ while it goes on."""
    distributed: FlagCreatePairsOff[bool] = False
    """Over many hosts, the same command on every one (docs/many_hosts.md)."""
    coordinator_address: Annotated[DisallowNone[str | None], _flag("HOST:PORT")] = None
    """Where process 0 listens; where no cluster tells."""
    num_processes: Annotated[DisallowNone[int | None], _flag("N")] = None
    """Processes in all; where no cluster tells."""
    process_id: Annotated[DisallowNone[int | None], _flag("I")] = None
    """Which of them this one is, from 0; where no cluster tells."""
    heartbeat_timeout: Annotated[DisallowNone[int | None], _flag("SECONDS")] = None
    """Silence after which another process counts as dead (100)."""
    start_timeout: Annotated[DisallowNone[int | None], _flag("SECONDS")] = None
    """How long to wait for the others at the start (300)."""

    @classmethod
    def complete(cls, arguments: Sequence[str]) -> type[Self]:
        """With the fields of the experiment that `arguments` name, and its values as defaults.

        Args:
            arguments: the words after the name of the command.

        Returns:
            This class, with more fields.

        Raises:
            UsageError: no experiment is named, or it cannot be read.
        """
        missing = (
            "run: before all options, name an experiment, a file of experiments/ or a run directory"
        )
        if (known := parse_first(cls, arguments, missing)) is None:
            return cls
        load_plugins(known.plugin)
        experiment = load(known.experiment)
        if known.dataset is not None:
            experiment = dataclasses.replace(experiment, data=data.source(known.dataset))
        return with_fields_of(cls, "values", experiment)

    def run(self) -> None:
        """Do the experiment, and write its report when all of it is complete."""
        from fairgrape_jax.library import runs

        experiment: Experiment = self.values  # type: ignore[attr-defined]  # by `complete`
        path = self.experiment
        out = self.out or (path if path.is_dir() else Path("runs") / path.stem)
        shard, cluster = shard_of(self.shard), self.cluster()
        try:
            config.check(experiment)
        except UsageError:
            stored = out / "config.json"
            if stored.is_file():  # a plugin that is missing is named
                config.check_available(config.read(stored).get("registered", []), out)
            raise
        if cluster is not None:
            hosts.join_cluster(cluster)
        runs.run(
            experiment,
            out,
            shard=shard,
            accept_changed_plugins=self.accept_changed_plugins,
            track=self.track or "",
        )

    def cluster(self) -> hosts.Cluster | None:
        """How to join the other processes; None for a run of one process.

        Raises:
            UsageError: for flags that contradict each other.
        """
        values = {flag: getattr(self, flag) for flag in CLUSTER}
        values = {flag: value for flag, value in values.items() if value is not None}
        if not self.distributed:
            for flag in values:
                raise UsageError(
                    f"--{flag.replace('_', '-')}: is for a run over many hosts; add --distributed"
                )
            return None
        cluster = hosts.Cluster(**{CLUSTER[flag]: value for flag, value in values.items()})
        hosts.check_flags(cluster)
        return cluster


def shard_of(text: str) -> tuple[int, int]:
    """The numbers of --shard I/N.

    Args:
        text: I/N.

    Returns:
        (I, N).

    Raises:
        UsageError: unless 0 <= I < N.

    Example:
        >>> shard_of("1/4")
        (1, 4)
    """
    which, slash, count = text.partition("/")
    if not (slash and which.isdecimal() and count.isdecimal() and int(which) < int(count)):
        raise UsageError(f"--shard: {text!r} is not I/N with I from 0 to N - 1")
    return int(which), int(count)


def load(path: Path) -> Experiment:
    """The experiment in a file, or of a run.

    Args:
        path: a file that defines EXPERIMENT, or the directory of a run.

    Returns:
        The experiment.

    Raises:
        UsageError: if there is none, with the line of the file that is wrong.
    """
    if path.is_dir():
        if not (path / "config.json").exists():
            raise UsageError(f"{path}: a folder without config.json is not a run")
        return config.load(path / "config.json")
    if not path.is_file():
        raise UsageError(f"{path}: no such experiment; see `fairgrape list`")
    experiment = getattr(execute(path, "experiment"), "EXPERIMENT", None)
    if not isinstance(experiment, Experiment):
        raise UsageError(f"{path}: defines no EXPERIMENT of type fairgrape_jax.config.Experiment")
    try:
        return config.check_types(experiment)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error
