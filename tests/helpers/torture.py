"""Kill a run again and again, and compare what it leaves with that of a run which was let alone.

Command:  make torture [KILLS=100], or: python -m tests.helpers.torture [--kills N] [--folder DIR]
A run of six rounds on `writers` is killed by SIGKILL, started again by the same command, killed
again, and so on until it is complete; then the next run begins, until there were `--kills` kills
at random instants, one before and one after every named point (POINTS), and half as many kills
before random operations on the run's files. Every complete run must have left, bit for bit,
what the undisturbed one left: parameters and the rest of the state in each checkpoint, masks,
predictions, metrics and report, times and durations aside; and nothing else.
Prints a line for each complete run and, at the end, `kills survived: n of n`.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import importlib
import itertools
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

EXPERIMENT = '''"""Six rounds on few small digits."""
from fairgrape_jax.config import Execution, Experiment, KeepLast, Scoring, Stage
from fairgrape_jax.data.sources.writers import Writers

EXPERIMENT = Experiment(
    data=Writers(limit=1200, limit_evaluation=150, size=14),
    model="cnn",
    methods=("fairgrape",),
    sparsity=0.9,
    rounds=6,
    dense=Stage((3,), (1e-3,), best=True),
    retrain=Stage((2,), (1e-3,)),
    final=Stage((1, 1), (1e-3, 1e-4), best=True),
    scoring=Scoring(fraction=0.2, micro_batch=16, select="greedy"),  # less to trace at each start
    batch=64,
    execution=Execution(devices=1, checkpoints=KeepLast()),
)
'''
# Where a run can be killed by name: a function, before or after one of its first N calls.
POINTS = {
    "lock": ("storage.lock:os.link", 2),
    "configuration": ("runner.prepare:write_config", 1),
    "reading": ("data:load", 1),
    "training step": ("parallel.preemption:stop_requested", 60),
    "partial save": ("rounds.saves:save", 3),
    "pass save": ("storage.resumable:write", 6),
    "pass read": ("storage.resumable:read", 6),
    "evaluation": ("training.evaluate:predict", 4),
    "scoring": ("rounds.score:average", 3),
    "selection": ("rounds.select:prune", 3),
    "checkpoint write": ("storage.checkpoint:ocp.save_async", 4),
    "checksums": ("storage.checkpoint:directory_digests", 4),
    "masks write": ("storage.checkpoint:save_masks", 3),
    "predictions write": ("runner.predictions:write_predictions", 3),
    "metrics write": ("runner.layout:write_record", 3),
    "partial save removed": ("runner.layout:remove_partial", 3),
    "log write": ("runner.layout:write_log", 3),
    "rename": ("storage.files:os.replace", 12),
    "old checkpoint removed": ("runner.retention:remove_tree", 3),
    "report": ("reports.run:write", 1),
    "report's table": ("reports.run:write_csv", 1),
}
KINDS = {
    "instant": "at random instants",
    "before": "before named points",
    "after": "after named points",
    "file": "before operations on files",
}
MOST_MISSES = 25  # of one kind; the place is then no longer on the way of a run
FILE_EVENTS = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.truncate"}


def main() -> int:
    """Print what was survived; 0 if all kills were."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100, help="at random instants (%(default)s)")
    parser.add_argument("--draw", type=int, default=0, help="seed of the instants (%(default)s)")
    parser.add_argument("--folder", type=Path, help="work there, and keep it")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        return torture(folder, options.kills, options.draw)


def torture(folder: Path, kills: int, draw: int) -> int:
    """Survive the whole plan, in any order; 0 if all was the same."""
    rng = np.random.default_rng(draw)
    named = [f"{when} {name}" for name in POINTS for when in ("before", "after")]
    plan = ["instant"] * kills + named + ["file"] * (kills // 2)
    rng.shuffle(plan)
    survived = survive(folder, plan, rng)
    counts = collections.Counter(kind.split()[0] for kind in survived)
    for kind, text in KINDS.items():
        say(f"{counts[kind]:5} {text}")
    say(f"kills survived: {len(survived)} of {len(plan)}")
    return int(len(survived) < len(plan))


def survive(
    folder: Path, plan: list[str], rng: np.random.Generator, experiment: str = EXPERIMENT
) -> list[str]:
    """The kills of `plan` after which a run was completed and left what it should have."""
    (folder / "small.py").write_text(experiment)
    if "instant" in plan:  # of a time that is that of a start which finds its programs compiled
        attempt(folder, "first/run")
    took = attempt(folder, "whole/run")[1]
    whole = left(folder / "whole" / "run")
    say(f"undisturbed: {took:.1f} s, {len(whole)} files and arrays")
    waiting, survived = plan.copy(), []
    missed: collections.Counter[str] = collections.Counter()  # runs complete before a kill came
    for number in itertools.count():
        if not waiting:
            return survived
        run, killed, since = f"run{number}/run", [], time.monotonic()
        while True:
            kind = waiting.pop() if waiting else ""
            code, _ = attempt(folder, run, kind, rng, took)
            if code == -signal.SIGKILL:
                killed.append(kind)
                continue
            if code:
                say(f"{run}: exit code {code} after {killed}; see {folder / 'log.txt'}")
                return survived
            if kind:  # complete before it came there
                missed[kind] += 1
                if missed[kind] > MOST_MISSES:
                    say(f"{run}: complete {missed[kind]} times without a kill {kind}")
                    return survived
                waiting.insert(int(rng.integers(len(waiting) + 1)), kind)
            break
        if different := compare(whole, left(folder / run)):
            say(f"{run}: killed {killed}, differs in {different}")
            return survived
        survived += killed
        spent = time.monotonic() - since
        say(f"{run}: killed {len(killed)} times in {spent:.0f} s, left the same")
    raise AssertionError


def attempt(
    folder: Path, run: str, kind: str = "", rng: np.random.Generator | None = None, took: float = 0
) -> tuple[int, float]:
    """Start the command once; its exit code, and how long it was there."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["fairgrape_jax.cli.main", "fairgrape_jax.runner.run", __name__])
    most = 60 if kind == "file" else POINTS.get(kind.partition(" ")[2], ("", 1))[1]
    occurrence = 0 if rng is None else int(rng.integers(most)) + 1
    child = context.Process(target=command, args=(folder, run, kind, occurrence))
    started = time.monotonic()
    child.start()
    if kind == "instant" and rng is not None:
        child.join(rng.uniform(0, took))
        child.kill()
    child.join()
    return int(child.exitcode or 0), time.monotonic() - started


def command(folder: Path, run: str, kind: str, occurrence: int) -> None:
    """`fairgrape run small.py --out RUN` in this process, to be killed at its `occurrence`."""
    os.chdir(folder)
    log = os.open("log.txt", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    import jax

    from fairgrape_jax.cli import main as cli
    from fairgrape_jax.storage import resumable
    from tests.helpers import compile_cache

    # What one start has compiled the next one reads, though it was killed while it wrote.
    compiled = os.environ.get("JAX_COMPILATION_CACHE_DIR", str(folder / "compiled"))
    jax.config.update("jax_compilation_cache_dir", compiled)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    compile_cache.write_whole()
    resumable.SAVE_EVERY = 0.1  # the place within an epoch, too, is saved again and again
    resumable.LOOK_EVERY = 3  # and within a scoring
    print(f"\n--- {run} {kind} {occurrence}", flush=True)
    when, _, point = kind.partition(" ")
    if point:
        wrap(POINTS[point][0], when, occurrence)
    if kind == "file":
        before_file_event(folder / run, occurrence)
    raise SystemExit(cli.main(["run", "small.py", "--out", run]))


def find(place: str) -> tuple[object, str]:
    """What holds the function of a place of `POINTS`, and its name there."""
    module, _, inside = place.partition(":")
    *names, last = inside.split(".")
    thing = importlib.import_module(f"fairgrape_jax.{module}")
    for name in names:
        thing = getattr(thing, name)
    return thing, last


def wrap(place: str, when: str, occurrence: int) -> None:
    """Let the function at `place` kill this process before or after one of its calls."""
    thing, last = find(place)
    function, calls = getattr(thing, last), itertools.count(1)

    def killing(*args, **options):
        now = next(calls) == occurrence
        if now and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*args, **options)
        if now:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(thing, last, killing)


def before_file_event(directory: Path, occurrence: int) -> None:
    """Kill this process before one of its operations on files of the run."""
    events = itertools.count(1)

    def hook(event: str, args: tuple) -> None:
        if event not in FILE_EVENTS or not isinstance(args[0], str | os.PathLike):
            return
        writes = event != "open" or (len(args) > 2 and args[2] & (os.O_WRONLY | os.O_RDWR))
        inside = directory in Path(os.path.abspath(args[0])).parents
        if writes and inside and next(events) == occurrence:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def left(directory: Path) -> dict[str, object]:
    """What a run left: the content of each file, of each checkpoint its arrays."""
    from fairgrape_jax.storage.checkpoint import ocp

    found: dict[str, object] = {}
    for path in sorted(directory.rglob("*")):
        name = str(path.relative_to(directory))
        parts = path.relative_to(directory).parts
        if path.name == "checkpoint":
            for leaf, array in flat(ocp.load(path.absolute())):
                found[f"{name}/{leaf}"] = (array.dtype.str, array.shape, array.tobytes())
        elif path.is_dir() or "checkpoint" in parts:
            continue
        elif path.name == "metrics.json":
            found[name] = without_times(path.read_text())
        elif path.name == "metrics.jsonl":
            found[name] = [without_times(line) for line in path.read_text().splitlines()]
        else:
            found[name] = path.read_bytes()
    return found


def without_times(line: str) -> dict[str, object]:
    """A record but for its durations, and the digests that follow from them."""
    record = json.loads(line)
    for key in ("seconds", "files", "checksum"):
        record.pop(key, None)
    return record


def flat(tree: object, place: str = "") -> list[tuple[str, np.ndarray]]:
    """The arrays of a checkpoint as Orbax gives them without being told the structure."""
    if isinstance(tree, dict):
        return [leaf for key, value in tree.items() for leaf in flat(value, f"{place}/{key}")]
    if isinstance(tree, list | tuple):
        return [leaf for i, value in enumerate(tree) for leaf in flat(value, f"{place}/{i}")]
    return [] if tree is None else [(place, np.asarray(tree))]


def compare(whole: dict[str, object], found: dict[str, object]) -> list[str]:
    """What is missing, too much, or different."""
    names = sorted(whole.keys() | found.keys())
    return [name for name in names if whole.get(name) != found.get(name)]


def say(line: str) -> None:
    """Print at once: the whole takes long."""
    with contextlib.suppress(BrokenPipeError):
        print(line, flush=True)


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("NPROC", "16")  # see conftest.py
    sys.exit(main())
