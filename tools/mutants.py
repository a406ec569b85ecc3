"""Mutation testing: how many small changes of the source the tests notice.

make mutants [MUTANTS="--only metrics --jobs 2"], or: python -m tools.mutants --help
A mutant is the package with one operator, number, condition, call or return value changed. It is
killed if a test of its module (TARGETS) fails, or does not end; what no test notices survives, and
is listed. Masks, metrics and the selection on the host are looked at in full, a seeded sample of
the rest of selection and scoring. Mutants that compute the same as the source are listed in
equivalent_mutants.txt, with the reason, and not counted.

Each mutant is tried in a process of its own, forked from one that has imported everything but the
package: importing JAX takes as long as the tests of a module. A fork is safe until JAX has made its
threads, with its first array.
"""

from __future__ import annotations

import argparse
import ast
import collections
import gc
import hashlib
import importlib
import importlib.abc
import importlib.util
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tools.mutations import FULL, SAMPLE, Mutant, mutants

ROOT = Path(__file__).resolve().parents[1]
EQUIVALENT = Path(__file__).with_name("equivalent_mutants.txt")
MASKS = ("tests/test_mask_trees.py", "tests/test_masks.py")
GROUP_METRICS = ("tests/metrics/test_group_metrics.py", "tests/metrics/test_frame.py")
ALLOCATION = ("tests/selection/test_counts.py", "tests/selection/test_allocation.py")
NETWORK = tuple(
    f"tests/selection/test_{name}.py" for name in ("inputs", "fixed_point", "fixed_point_programs")
)
PARTS = tuple(f"tests/selection/test_{name}.py" for name in ("blocks", "sample"))
PER_SAMPLE = ("tests/scoring/test_per_sample.py", "tests/scoring/test_accumulate.py")
# Of each module (or of all of a folder): whether all mutants are tried, and the tests, which are
# tried in this order; the examples of its docstrings come before them.
TARGETS: dict[str, tuple[str, tuple[str, ...]]] = {
    "kernels.py": (FULL, ("tests/test_kernels.py",)),
    "masks.py": (FULL, MASKS),
    "metrics/frame.py": (FULL, GROUP_METRICS),
    "metrics/estimates.py": (FULL, GROUP_METRICS),
    "metrics/columns.py": (FULL, ("tests/metrics/test_columns.py",)),
    "metrics/extremes.py": (FULL, ("tests/metrics/test_extremes.py",)),
    "metrics/attributes.py": (FULL, ("tests/metrics/test_attributes.py",)),
    "metrics/excess.py": (FULL, ("tests/metrics/test_excess.py",)),
    "metrics/thresholds.py": (FULL, ("tests/metrics/test_thresholds.py",)),
    "metrics/resample.py": (FULL, ("tests/metrics/test_resample.py",)),
    "metrics/samples.py": (FULL, ("tests/metrics/test_resample.py",)),
    "metrics/similarity.py": (FULL, ("tests/metrics/test_similarity.py",)),
    "metrics": (FULL, ("tests/metrics/test_metrics.py", "tests/metrics/test_counts.py")),
    "selection/greedy.py": (FULL, ("tests/selection/test_greedy.py",)),
    "selection/counts.py": (FULL, ("tests/selection/test_counts.py",)),
    "selection/allocation.py": (FULL, ALLOCATION),
    "selection/rules.py": (FULL, ALLOCATION),
    "selection/network.py": (FULL, NETWORK),
    "selection/inputs.py": (FULL, ("tests/selection/test_checks.py",)),
    "selection/schedules.py": (FULL, ("tests/selection/test_schedules.py",)),
    "methods/pruning.py": (FULL, ("tests/methods/test_pruning.py",)),
    "selection/maxmin": (SAMPLE, ("tests/selection/test_maxmin.py",)),
    "selection/patterns.py": (SAMPLE, ("tests/selection/test_patterns.py",)),
    "selection/within.py": (SAMPLE, ("tests/selection/test_patterns.py",)),
    "selection": (SAMPLE, (*PARTS, *NETWORK)),
    "scoring/accumulate.py": (SAMPLE, ("tests/scoring/test_accumulate.py",)),
    "scoring/assignment.py": (SAMPLE, ("tests/scoring/test_assignment.py",)),
    "scoring/uncleared.py": (SAMPLE, ("tests/scoring/test_departures.py",)),
    "scoring/importance.py": (SAMPLE, ("tests/scoring/test_importance.py", *PER_SAMPLE)),
    "scoring": (SAMPLE, PER_SAMPLE),
}


# --- what is tried


def part_of(path: str) -> tuple[str, tuple[str, ...]] | None:
    """The row of TARGETS for a module: its own before that of its folder, the innermost first."""
    while path not in TARGETS and path:
        path = path.rpartition("/")[0]
    return TARGETS.get(path)


def collect(only: str, sample: int, seed: int) -> list[Mutant]:
    """The mutants to try, of modules whose path contains `only`; equivalent ones are left out.

    The sample is the same whatever `only` is, and whichever of it are found to be equivalent.
    """
    package, known = ROOT / "fairgrape_jax", set(equivalent())
    all_mutants = []
    for path in sorted(package.rglob("*.py")):
        name = str(path.relative_to(package))
        row = part_of(name)
        if row and (row[0] == SAMPLE or only in name):
            all_mutants += mutants(name, path.read_text(encoding="utf-8"), row[0])
    whole = [mutant for mutant in all_mutants if mutant.part == FULL]
    rest = [mutant for mutant in all_mutants if mutant.part == SAMPLE]
    chosen = random.Random(seed).sample(rest, min(sample, len(rest)))
    chosen = sorted(chosen, key=lambda mutant: (mutant.path, mutant.line))
    chosen = whole + [mutant for mutant in chosen if only in mutant.path]
    return [mutant for mutant in chosen if mutant.key not in known]


def equivalent() -> Iterator[tuple[str, str, str]]:
    """Path, line before and line after of each equivalent mutant in the list."""
    blocks = EQUIVALENT.read_text(encoding="utf-8").split("\n\n") if EQUIVALENT.exists() else []
    for block in blocks:
        lines = [line for line in block.splitlines() if line and not line.startswith("#")]
        if lines:
            path, before, after, *reason = (line.strip() for line in lines)
            if not reason:
                raise SystemExit(f"{EQUIVALENT.name}: {path}: {after}: give a reason")
            yield path, before.removeprefix("- "), after.removeprefix("+ ")


# --- what becomes of them


class Mutated(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Imports the module `name` from another source."""

    def __init__(self, name: str, path: Path, source: str) -> None:
        self.name, self.path, self.source = name, path, source

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Only for this module."""
        if name != self.name:
            return None
        package = self.path.name == "__init__.py"
        spec = importlib.util.spec_from_loader(name, self, is_package=package)
        if spec is not None:
            spec.origin, spec.has_location = str(self.path), True
            if package:
                spec.submodule_search_locations = [str(self.path.parent)]
        return spec

    def get_source(self, name: str) -> str:
        """The other source."""
        return self.source

    def get_code(self, name: str) -> Any:
        """Compiled as if it stood in the module's own file."""
        return compile(self.source, str(self.path), "exec", dont_inherit=True)


def module_name(path: str) -> str:
    """The name of a module by its path below the package."""
    return ".".join(["fairgrape_jax", *path.removesuffix(".py").split("/")]).removesuffix(
        ".__init__"
    )


def tests_of(path: str) -> list[str]:
    """What is run for a module: its examples, then the tests of its row, each file once."""
    row = part_of(path)
    assert row is not None
    return list(dict.fromkeys([f"fairgrape_jax/{path}", *row[1]]))


def run_tests(path: str, source: str | None, log: Any) -> int:
    """The exit code of the tests, in this process; source: of the mutated module."""
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    import numba
    import pytest

    if source is not None:
        sys.meta_path.insert(0, Mutated(module_name(path), ROOT / "fairgrape_jax" / path, source))
        # What numba has kept it tells by the bytecode, in which no number stands.
        folder = Path(log.name).parent / f"numba-{compiled_by_numba(source)}"
        numba.config.CACHE_DIR = str(folder)  # type: ignore[attr-defined]
    options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--assert=plain"]
    options += ["-p", "no:unraisableexception"]  # collects garbage, several times
    options += ["--tb=line", "--hypothesis-seed=0"]
    return int(pytest.main([*options, *tests_of(path)], plugins=[in_order(tests_of(path))]))


def in_order(files: Sequence[str]) -> Any:
    """A plugin for pytest: the tests in the order of their files, which ours are not by themselves.

    A whole run begins with the longest files; here what fails sooner comes first.
    """
    import pytest

    places = {ROOT / file: place for place, file in enumerate(files)}

    class InOrder:
        @pytest.hookimpl(trylast=True)
        def pytest_collection_modifyitems(self, items: list[Any]) -> None:
            items.sort(key=lambda item: places[item.path])

    return InOrder()


def compiled_by_numba(source: str) -> str:
    """What names the statements of a module that numba compiles, as they are."""
    parts = [ast.unparse(statement) for statement in ast.parse(source).body]
    loops = [part for part in parts if "njit(" in part]
    return hashlib.sha256("\n".join(loops).encode()).hexdigest()[:16]


def start(path: str, source: str | None, folder: Path) -> int:
    """Fork a process that runs the tests, with its log in `folder`; its number."""
    if child := os.fork():
        return child
    os.setpgid(0, 0)
    code = 1
    try:
        with (folder / f"{os.getpid()}.log").open("w") as log:
            code = run_tests(path, source, log)
            sys.stdout.flush()
    finally:
        os._exit(code)


def wait(running: dict[int, tuple[Any, float]]) -> tuple[Any, str]:
    """What was started first to end, and how: survived, killed, or killed by its time."""
    while True:
        for child, (thing, limit) in running.items():
            ended, status = os.waitpid(child, os.WNOHANG)
            late = not ended and time.monotonic() > limit
            if late:
                os.killpg(child, signal.SIGKILL)
                os.waitpid(child, 0)
            if ended or late:
                del running[child]
                return thing, "survived" if ended and status == 0 else "time" if late else "killed"
        time.sleep(0.02)


def seconds_without(path: str, folder: Path) -> float:
    """How long the tests of a module take as it is; SystemExit where they fail."""
    started = time.monotonic()
    child = start(path, None, folder)
    if wait({child: (path, started + 3600)})[1] != "survived":
        print((folder / f"{child}.log").read_text()[-2000:])
        raise SystemExit(f"{path}: its tests fail without a mutant: {' '.join(tests_of(path))}")
    return time.monotonic() - started


def preload(folder: str) -> None:
    """Import what the tests do, but for the package and its tests."""
    os.environ |= {"JAX_PLATFORMS": "cpu", "NPROC": "16", "FAIRGRAPE_CPU_CEILING": ""}
    os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = folder
    sys.path.insert(0, str(ROOT))
    importlib.import_module("tests.conftest")
    for name in ("flax.linen", "optax", "orbax.checkpoint", "scipy.optimize", "scipy.stats"):
        importlib.import_module(name)
    for name in ("numba", "pyarrow.csv", "chex", "tyro", "matplotlib.pyplot"):
        importlib.import_module(name)
    importlib.import_module("fairlearn.metrics")
    hypothesis = importlib.import_module("hypothesis")
    # The first example that fails will do: no smaller one is looked for.
    phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
    hypothesis.settings.register_profile("mutants", phases=phases, database=None)
    hypothesis.settings.load_profile("mutants")
    gc.disable()  # also in the forks: a test run of seconds need not be tidied up after
    gc.freeze()


def try_all(
    mutants: Sequence[Mutant], jobs: int, folder: Path, record: Path | None
) -> dict[Mutant, str]:
    """What became of each mutant; record: where that is kept, so that a second run goes on."""
    ended, names = read_record(record, mutants), numbered(mutants)
    mutants = [mutant for mutant in mutants if mutant not in ended]
    limits = {m.path: 0.0 for m in mutants}
    for path in limits:
        limits[path] = 20 + 8 * seconds_without(path, folder)
    running: dict[int, tuple[Any, float]] = {}
    waiting = list(reversed(mutants))
    while waiting or running:
        while waiting and len(running) < jobs:
            mutant = waiting.pop()
            child = start(mutant.path, mutant.source, folder)
            running[child] = mutant, time.monotonic() + limits[mutant.path]
        mutant, outcome = wait(running)
        ended[mutant] = outcome
        if record is not None:
            with record.open("a", encoding="utf-8") as file:
                print(json.dumps([*names[mutant], outcome]), file=file)
        if outcome == "survived":
            print(mutant, flush=True)
        elif len(ended) % 50 == 0:
            print(f"({len(ended)} tried)", flush=True)
    return ended


def numbered(mutants: Sequence[Mutant]) -> dict[Mutant, list[str | int]]:
    """What names each mutant in a record: its key, and which of those with the same key it is."""
    counts: collections.Counter[tuple[str, str, str]] = collections.Counter()
    names: dict[Mutant, list[str | int]] = {}
    for mutant in mutants:
        names[mutant] = [*mutant.key, counts[mutant.key]]
        counts[mutant.key] += 1
    return names


def read_record(record: Path | None, mutants: Sequence[Mutant]) -> dict[Mutant, str]:
    """What became of those in a record that were killed; what survived is tried again."""
    if record is None or not record.exists():
        return {}
    lines = map(json.loads, record.read_text(encoding="utf-8").splitlines())
    killed = {tuple(name): outcome for *name, outcome in lines if outcome != "survived"}
    names = {mutant: tuple(name) for mutant, name in numbered(mutants).items()}
    return {mutant: killed[name] for mutant, name in names.items() if name in killed}


def score(ended: dict[Mutant, str]) -> list[str]:
    """A line for each module, each part and all: how many died, with Wilson's 95 % interval."""
    from scipy.stats import binomtest

    rows: dict[str, list[bool]] = collections.defaultdict(list)
    for mutant, outcome in ended.items():
        for row in (mutant.path, f"all {mutant.part}", "all"):
            rows[row].append(outcome != "survived")
    lines = [f"{'':34}mutants  killed      %   95 % interval"]
    for name, died in sorted(rows.items(), key=lambda row: (row[0].startswith("all"), row[0])):
        k, n = sum(died), len(died)
        low, high = binomtest(k, n).proportion_ci(method="wilson")
        lines.append(f"{name:34}{n:7}{k:8}{100 * k / n:7.1f}   {100 * low:.1f} - {100 * high:.1f}")
    late = sum(outcome == "time" for outcome in ended.values())
    left_out = len(list(equivalent()))
    return [*lines, f"{late} of them by not ending; {left_out} equivalent ones left out"]


def main() -> int:
    """Print the survivors and the score; 0 if at least --least per cent were killed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="modules whose path contains this")
    parser.add_argument("--sample", type=int, default=200, help="of the rest (%(default)s)")
    text = "a sample of so many of all that would be tried, where there is no time for more"
    parser.add_argument("--at-most", type=int, default=sys.maxsize, help=text)
    parser.add_argument("--seed", type=int, default=0, help="of the samples (%(default)s)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="at a time (%(default)s)")
    parser.add_argument("--least", type=float, default=90, help="per cent (%(default)s)")
    text = "a file of what became of each: those killed in it are not tried again"
    parser.add_argument("--record", type=Path, help=text)
    parser.add_argument("--list", action="store_true", help="list the mutants and end")
    options = parser.parse_args()
    chosen = collect(options.only, options.sample, options.seed)
    if len(chosen) > options.at_most:
        chosen = random.Random(options.seed).sample(chosen, options.at_most)
    if options.list or not chosen:
        print(*chosen, sep="\n")
        print(f"{len(chosen)} mutants")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        preload(folder)
        ended = try_all(chosen, options.jobs, Path(folder), options.record)
    print("\n".join(score(ended)))
    killed = sum(outcome != "survived" for outcome in ended.values())
    return int(100 * killed < options.least * len(ended))


if __name__ == "__main__":
    sys.exit(main())
