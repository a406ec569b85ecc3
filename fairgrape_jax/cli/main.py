"""The `fairgrape` command: its table of commands, and the exit code for each way to end."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import io
import os
import platform
import select
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import jax
import tyro
from tyro.conf import Positional, arg

import fairgrape_jax
from fairgrape_jax import data, escape, storage
from fairgrape_jax.cli import new
from fairgrape_jax.cli.audit import Audit
from fairgrape_jax.cli.command import Command, parse
from fairgrape_jax.cli.data import DATA_COMMANDS
from fairgrape_jax.cli.export import Export
from fairgrape_jax.cli.measure import Measure
from fairgrape_jax.cli.new import New
from fairgrape_jax.cli.plan import Plan
from fairgrape_jax.cli.python_files import load_plugins
from fairgrape_jax.cli.quantize import Quantize
from fairgrape_jax.cli.recommend import Recommend
from fairgrape_jax.cli.reproduce import Reproduce
from fairgrape_jax.cli.run import Run
from fairgrape_jax.errors import Preempted, TrainingError, UsageError
from fairgrape_jax.parallel import hosts, preemption
from fairgrape_jax.registry import Table

BROKEN_PIPE = 141  # what a shell reports of a program whose reader has gone


@dataclasses.dataclass(frozen=True)
class Report(Command):
    """Tables and plots of one or several runs."""

    runs: Annotated[tuple[Path, ...], Positional, arg(metavar="RUN...")]
    """Directories of runs."""
    out: Annotated[
        Path | None, arg(metavar="DIR", help_behavior_hint="(default: the first run)")
    ] = None
    """Where to write."""
    thumbnails: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Show the samples that pruning changed, from the dataset of the first run."""
    pictures: Annotated[
        Path | None, arg(metavar="PLACE", help_behavior_hint="(default: that dataset)")
    ] = None
    """The same from a folder or archive of the dataset's files."""

    def run(self) -> None:
        """Write the report of the runs."""
        if not self.runs:
            raise UsageError("report: name the directory of a run")
        from fairgrape_jax.reports.run import write

        write(
            self.runs,
            self.out or self.runs[0],
            with_thumbnails=self.thumbnails,
            pictures=self.pictures,
        )


@dataclasses.dataclass(frozen=True)
class Replay(Command):
    """Do again the one step that gave a number that is not finite."""

    directory: Annotated[Path, Positional, arg(metavar="RUN/STAGE/not_finite")]
    """The directory that the stopped run has named."""
    plugin: Annotated[tuple[Path, ...], arg(metavar="FILE...", help_behavior_hint="")] = ()
    """Python files that the run was begun with."""

    def run(self) -> None:
        """Replay the step; TrainingError if every number is finite now."""
        from fairgrape_jax.recovery import replay

        load_plugins(self.plugin)
        if not replay.replay(self.directory):
            raise TrainingError("replay: every number is finite here")


@dataclasses.dataclass(frozen=True)
class List(Command):
    """Models, methods, datasets, metrics, templates, experiments."""

    plugin: Annotated[tuple[Path, ...], arg(metavar="FILE...", help_behavior_hint="")] = ()
    """Python files that register some (docs/extending.md)."""

    def run(self) -> None:
        """Print the tables, a line per row; those from outside with whose they are."""
        from fairgrape_jax import methods, metrics, models

        load_plugins(self.plugin)
        summaries: list[tuple[Table[Any], Callable[[Any], str]]] = [
            (models.MODELS, first_line),
            (methods.METHODS, lambda method: method.summary),
            (data.SOURCES, lambda row: first_line(row[0])),
            (metrics.METRICS, first_line),
        ]
        for table, summary in summaries:
            wrong = table.load_all()
            rows = {name: summary(row) for name, row in table.items()}
            rows |= {name: f"{rows[name]} ({origin})" for name, origin in table.origins.items()}
            section(f"{table.kind}s", rows | wrong)
        section("templates (fairgrape new NAME --template TEMPLATE)", new.summaries())
        section("experiments (in this folder)", experiments(Path()))


# A new command is a class here; those that the help lists, in its order.
COMMANDS: dict[str, type[Command] | Mapping[str, type[Command]]] = {
    "new": New,
    "run": Run,
    "plan": Plan,
    "report": Report,
    "recommend": Recommend,
    "reproduce": Reproduce,
    "audit": Audit,
    "export": Export,
    "measure": Measure,
    "quantize": Quantize,
    "replay": Replay,
    "data": DATA_COMMANDS,
    "list": List,
}


def main(arguments: list[str] | None = None) -> int:
    """Entry point of the command.

    Args:
        arguments: the words after `fairgrape`; those of this process by default.

    Returns:
        The exit code: 0; 1 for a stopped run; 2 for a bad request; 75 for a run that was preempted
        and has saved its place; 130 after Ctrl-C; 141 where nobody reads the output any more.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a locale may lack the letters of names
    try:
        code = attempt(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        if not _unread():
            raise
        code = BROKEN_PIPE
    hosts.exit_failed(code)
    return code


def attempt(arguments: list[str]) -> int:
    """Do what is asked for; a failure is one line on stderr.

    Args:
        arguments: the words after the program's name.

    Returns:
        The exit code.
    """
    try:
        if arguments[:1] == ["--version"]:
            print(version())
            return 0
        command = parse(COMMANDS, arguments)
        with storage.explain_write_errors():
            command.run()
    except SystemExit as stop:  # the help
        if stop.code:
            raise
    except UsageError as error:
        print(f"fairgrape: error: {escape.visible(str(error))}", file=sys.stderr)
        return 2
    except TrainingError as error:
        print(f"fairgrape: stopped: {escape.visible(str(error))}", file=sys.stderr)
        return 1
    except Preempted as where:
        print(f"fairgrape: stopped {where}; the same command goes on from here", file=sys.stderr)
        return preemption.exit_code()
    except (OSError, MemoryError) as error:
        if isinstance(error, OSError) and error.filename is None:
            raise  # it would not say of what
        print(f"fairgrape: error: {escape.visible(reason_of(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("fairgrape: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    except Exception:
        if not jax.distributed.is_initialized():
            raise
        # An ordinary end would wait for the other processes.
        traceback.print_exc()
        print(
            "fairgrape: stopped: this process failed, or another one did (see its output); "
            "the same command goes on from here",
            file=sys.stderr,
        )
        return 1
    return 0


def _unread() -> bool:
    """Whether nobody reads an output of this process; what is left for it then goes nowhere."""
    broken = []
    for stream in (sys.stdout, sys.stderr):
        poll = select.poll()
        poll.register(stream.fileno(), 0)
        if any(event & select.POLLERR for _, event in poll.poll(0)):
            broken.append(stream)
    for stream in broken:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return bool(broken)


def reason_of(error: OSError | MemoryError) -> str:
    """What is wrong with a file or with the machine, in a line.

    Args:
        error: of a file, with its name, or for want of memory.

    Returns:
        The line.

    Example:
        >>> reason_of(PermissionError(13, "Permission denied", "runs/a"))
        'runs/a: Permission denied'
    """
    if isinstance(error, OSError):
        return f"{os.fsdecode(error.filename2 or error.filename)}: {error.strerror}"
    return f"not enough memory ({error}); give fewer or smaller samples, or a smaller batch"


def version() -> str:
    """The version of this package, of jax and of Python, in a line."""
    jax_version = importlib.metadata.version("jax")
    python = platform.python_version()
    return f"fairgrape {fairgrape_jax.__version__} (jax {jax_version}, Python {python})"


def section(title: str, rows: Mapping[str, str]) -> None:
    """Print a table of names and what they are.

    Args:
        title: above the table.
        rows: what each name is.
    """
    print(f"{title}:")
    for name, summary in rows.items():
        print(f"  {name:<22} {summary}".rstrip())


def experiments(folder: Path) -> dict[str, str]:
    """The experiment files of a folder.

    Args:
        folder: where to look; experiments/ in it too.

    Returns:
        The first line of each file; without any, how to write one.
    """
    files = sorted([*folder.glob("*.py"), *folder.glob("experiments/*.py")])
    texts = {path: path.read_text(encoding="utf-8", errors="replace") for path in files}
    rows = {str(p): t.strip('"').splitlines()[0] for p, t in texts.items() if "\nEXPERIMENT" in t}
    return rows or {
        "none": "an experiment is a Python file with EXPERIMENT = fairgrape_jax.config.Experiment("
        "data=..., model=...), here or in experiments/; `fairgrape new NAME` writes one, "
        "`fairgrape run FILE --help` shows the rest"
    }


def first_line(thing: Any) -> str:
    """The first line of a docstring.

    Args:
        thing: anything with a docstring, or a partial of a function that has one.

    Returns:
        The line; "" without one.
    """
    text = getattr(thing, "func", thing).__doc__ or ""
    return text.strip().splitlines()[0] if text.strip() else ""
