"""The `fairgrape` command: run experiments, report on them, audit models, list what there is."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import io
import os
import sys
import traceback
from pathlib import Path

import jax
import tyro

from fairgrape_jax import config, data, escape, storage
from fairgrape_jax.cli.data import command
from fairgrape_jax.config import Experiment
from fairgrape_jax.errors import Preempted, TrainingError, UsageError
from fairgrape_jax.parallel import hosts, preemption
from fairgrape_jax.progress import say

USAGE = """usage: fairgrape COMMAND ...

  run EXPERIMENT [--out DIR] [--dataset NAME] [--shard I/N] [--distributed] [OVERRIDES]
                      do an experiment, or go on where it was stopped; EXPERIMENT is a
                      file (experiments/*.py) or the directory of a run;
                      --shard: the I-th of N parts (from 0) of its seeds and methods, the
                      others being done by processes that share the directory;
                      --distributed: over many hosts, the same command on every one
                      (docs/many_hosts.md); where no cluster tells who they are, with
                      --coordinator-address HOST:PORT --num-processes N --process-id I
  report RUN... [--out DIR]
                      tables and plots of one or several runs
  replay RUN/STAGE/not_finite
                      do again the one step that gave a number that is not finite
  audit --dense A.csv --compressed B.csv [--group-column NAME] [--out DIR]
                      what compression did to whom, from tables of predictions of any
                      framework (CSV, Parquet; docs/audit.md)
  data prepare|check|list|sheet ...
                      datasets for real runs (docs/data.md; `fairgrape data --help`)
  list                models, methods, datasets, metrics, experiments

`fairgrape run EXPERIMENT --help` shows every override with its value there."""

# The flags of a run over many hosts, and the fields of hosts.Cluster that they set.
CLUSTER = {
    "--coordinator-address": ("coordinator", str),
    "--num-processes": ("processes", int),
    "--process-id": ("process", int),
    "--heartbeat-timeout": ("heartbeat", int),
    "--start-timeout": ("start", int),
}


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit code.

    0; 1 for a stopped run; 2 for a bad request; 75 for a run that was preempted and has saved its
    place (130 after Ctrl-C).
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a locale may lack the letters of names
    code = attempt(sys.argv[1:] if arguments is None else arguments)
    hosts.exit_failed(code)
    return code


def attempt(arguments: list[str]) -> int:
    """Do what is asked for; failures become a line and an exit code."""
    commands = {
        "run": run,
        "report": report,
        "audit": audit,
        "replay": replay,
        "data": command,
        "list": show,
    }
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0
    try:
        if arguments[0] not in commands:
            raise UsageError(f"unknown command {arguments[0]!r}: choose from {', '.join(commands)}")
        with storage.explain_write_errors():
            commands[arguments[0]](arguments[1:])
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
        print(f"fairgrape: error: {escape.visible(said_of(error))}", file=sys.stderr)
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


def said_of(error: OSError | MemoryError) -> str:
    """What is wrong with a file or with the machine, in a line.

    >>> said_of(PermissionError(13, "Permission denied", "runs/a"))
    'runs/a: Permission denied'
    """
    if isinstance(error, OSError):
        return f"{os.fsdecode(error.filename2 or error.filename)}: {error.strerror}"
    return f"not enough memory ({error}); give fewer or smaller samples, or a smaller batch"


def run(arguments: list[str]) -> None:
    """`fairgrape run EXPERIMENT [--out DIR] [--dataset NAME] [--shard I/N] [OVERRIDES]`."""
    parser = argparse.ArgumentParser(prog="fairgrape run", add_help=False, allow_abbrev=False)
    parser.add_argument("experiment", nargs="?")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--dataset")
    parser.add_argument("--shard", default="0/1")
    parser.add_argument("--distributed", action="store_true")
    for flag, (field, kind) in CLUSTER.items():
        parser.add_argument(flag, dest=field, type=kind)
    options, overrides = parser.parse_known_args(arguments)
    if options.experiment is None:
        if {"-h", "--help"} & set(overrides):
            print(USAGE)
            return
        raise UsageError("run: name an experiment, a file of experiments/ or a run directory")
    cluster, shard = cluster_of(options), shard_of(options.shard)
    path = Path(options.experiment)
    experiment = load(path)
    out = options.out or (path if path.is_dir() else Path("runs") / path.stem)
    if options.dataset:
        experiment = dataclasses.replace(experiment, data=data.source(options.dataset))
    experiment = tyro.cli(
        Experiment, default=experiment, args=overrides, prog=f"fairgrape run {path}"
    )
    from fairgrape_jax.reports.run import write
    from fairgrape_jax.runner import run as rounds

    config.check(experiment)
    if cluster is not None:
        hosts.join_cluster(cluster)
    with preemption.catch_signals():
        complete = rounds.run(experiment, out, shard)
        if hosts.is_process_0() and complete:
            write([out], out)


def shard_of(text: str) -> tuple[int, int]:
    """The numbers of --shard I/N. UsageError unless 0 <= I < N.

    >>> shard_of("1/4")
    (1, 4)
    """
    which, slash, count = text.partition("/")
    if not (slash and which.isdecimal() and count.isdecimal() and int(which) < int(count)):
        raise UsageError(f"--shard: {text!r} is not I/N with I from 0 to N - 1")
    return int(which), int(count)


def cluster_of(options: argparse.Namespace) -> hosts.Cluster | None:
    """What the flags say of the cluster; None for a run of one process. UsageError if wrong."""
    given = {}
    for flag, (field, _) in CLUSTER.items():
        value = getattr(options, field)
        if value is not None and not options.distributed:
            raise UsageError(f"{flag}: is for a run over many hosts; add --distributed")
        if value is not None:
            given[field] = value
    if not options.distributed:
        return None
    cluster = hosts.Cluster(**given)
    hosts.check_flags(cluster)
    return cluster


def load(path: Path) -> Experiment:
    """The experiment in a file (its EXPERIMENT) or of a run directory (its config.json)."""
    if path.is_dir():
        if not (path / "config.json").exists():
            raise UsageError(f"{path}: a folder without config.json is not a run")
        return config.load(path / "config.json")
    if not path.is_file():
        raise UsageError(f"{path}: no such experiment; see `fairgrape list`")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path}: not a Python file that holds an EXPERIMENT")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent.absolute()))  # an experiment may build on one beside it
    try:
        spec.loader.exec_module(module)
    except UsageError:
        raise
    except Exception as error:
        lines = [
            f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)
        ]
        at = getattr(error, "lineno", None) or (lines[-1] if lines else "?")
        kind = type(error).__name__
        raise UsageError(f"{path} line {at}: is no experiment ({kind}: {error})") from error
    finally:
        sys.path.pop(0)
    experiment = getattr(module, "EXPERIMENT", None)
    if not isinstance(experiment, Experiment):
        raise UsageError(f"{path}: defines no EXPERIMENT of type fairgrape_jax.config.Experiment")
    try:
        config.check_types(experiment)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error
    return experiment


def report(arguments: list[str]) -> None:
    """`fairgrape report RUN... [--out DIR]`."""
    parser = argparse.ArgumentParser(prog="fairgrape report", allow_abbrev=False)
    parser.add_argument("runs", nargs="+", type=Path, help="directories of runs")
    parser.add_argument("--out", type=Path, help="where to write; the first run by default")
    options = parser.parse_args(arguments)
    from fairgrape_jax.reports.run import write

    write(options.runs, options.out or options.runs[0])


def replay(arguments: list[str]) -> None:
    """`fairgrape replay DIRECTORY`: TrainingError if nothing is found to be not finite now."""
    if len(arguments) != 1:
        raise UsageError("replay: give the not_finite directory that a stopped run has named")
    from fairgrape_jax.recovery import replay as repro

    if not repro.replay(Path(arguments[0])):
        raise TrainingError("replay: every number is finite here")


def audit(arguments: list[str]) -> None:
    """`fairgrape audit --dense FILE... --compressed [NAME=]FILE... [OPTIONS]`."""
    parser = argparse.ArgumentParser(
        prog="fairgrape audit",
        allow_abbrev=False,
        description="Compare compressed models with their dense ones, by group and by class.",
    )
    add = parser.add_argument
    dense = "predictions of the dense model, or of one per seed"
    compressed = "those of a compressed model, or of one per seed; again for another set"
    add("--dense", nargs="+", metavar="FILE", required=True, type=Path, help=dense)
    add(
        "--compressed",
        nargs="+",
        metavar="[NAME=]FILE",
        required=True,
        action="append",
        help=compressed,
    )
    shown = " (%(default)s)"
    add("--group-column", nargs="+", default=["group"], help="several are crossed (group)")
    add("--id-column", default="id", help="names a sample; the same in every file" + shown)
    add("--label-column", default="label", help="the true class" + shown)
    add("--prediction-column", default="prediction", help="what the model says" + shown)
    add("--score-prefix", default="score_", help="columns of scores instead" + shown)
    add("--positive", default="", help="the positive class of two; else the second in order")
    add("--missing", choices=["error", "drop"], default="error", help="ids not in all" + shown)
    add("--min-group", type=int, default=1, help="leave out smaller groups" + shown)
    conventions = ["simon-says", "measure-twice"]
    add("--convention", choices=conventions, default=conventions[0], help="of CEV, SDE" + shown)
    add("--replicates", type=int, help="of the bootstrap (1000, or 200 for very many classes)")
    add("--out", type=Path, default=Path("audit"), help="folder of the report" + shown)
    options = parser.parse_args(arguments)
    from fairgrape_jax.reports import audit as auditing
    from fairgrape_jax.reports.prediction_tables import Columns

    columns = Columns(
        id=options.id_column,
        label=options.label_column,
        prediction=options.prediction_column,
        groups=tuple(options.group_column),
        scores=options.score_prefix,
    )
    found = auditing.audit(
        auditing.Request(
            dense=tuple(options.dense),
            compressed=named_files(options.compressed),
            columns=columns,
            positive=options.positive,
            missing=options.missing,
            min_group=options.min_group,
            convention=options.convention,
            replicates=options.replicates,
        )
    )
    auditing.write(found, options.out)
    say(auditing.terminal(found))
    say(f"report: {options.out / 'report.html'}")


def named_files(sets: list[list[str]]) -> dict[str, tuple[Path, ...]]:
    """The files of each --compressed by name; UsageError if a name is there twice.

    >>> named_files([["kd=a.csv", "b.csv"], ["c.csv"]])
    {'kd': (PosixPath('a.csv'), PosixPath('b.csv')), 'c': (PosixPath('c.csv'),)}
    """
    named: dict[str, tuple[Path, ...]] = {}
    for first, *rest in sets:
        name, given, path = first.partition("=")
        if not given or Path(first).exists():
            name, path = Path(first).name.split(".")[0], first
        if name in named:
            raise UsageError(f"--compressed: two sets are named {name!r}; give NAME=FILE")
        named[name] = (Path(path), *map(Path, rest))
    return named


def show(arguments: list[str]) -> None:
    """`fairgrape list`."""
    if arguments:
        raise UsageError(f"list takes no arguments, not {arguments[0]!r}")
    from fairgrape_jax import methods, metrics, models

    def section(title: str, rows: dict[str, str]) -> None:
        print(f"{title}:")
        for name, summary in rows.items():
            print(f"  {name:<22} {summary}".rstrip())

    section("models", {name: first_line(make) for name, make in models.MODELS.items()})
    section("methods", {name: method.summary for name, method in methods.METHODS.items()})
    section("datasets", {name: first_line(kind) for name, (kind, _) in data.SOURCES.items()})
    section("metrics", {name: first_line(fn) for name, fn in metrics.METRICS.items()})
    files = sorted(Path("experiments").glob("*.py"))
    texts = {path: path.read_text(encoding="utf-8") for path in files}
    section(
        "experiments (in this folder)",
        {str(p): t.strip('"').splitlines()[0] for p, t in texts.items() if "\nEXPERIMENT" in t},
    )


def first_line(thing: object) -> str:
    """The first line of a docstring, of the function behind a partial too."""
    text = getattr(thing, "func", thing).__doc__ or ""
    return text.strip().splitlines()[0] if text.strip() else ""
