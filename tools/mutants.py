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
import dataclasses
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

ROOT = Path(__file__).resolve().parents[1]
EQUIVALENT = Path(__file__).with_name("equivalent_mutants.txt")
FULL, SAMPLE = "in full", "sample"
MASKS = ("tests/test_mask_trees.py", "tests/test_masks.py")
GROUP_METRICS = ("tests/metrics/test_group_metrics.py", "tests/metrics/test_frame.py")
ALLOCATION = ("tests/selection/test_counts.py", "tests/selection/test_allocation.py")
PER_SAMPLE = ("tests/scoring/test_per_sample.py", "tests/scoring/test_accumulate.py")
# Of each module (or of all of a folder): whether all mutants are tried, and the tests, which are
# tried in this order; the examples of its docstrings come before them.
TARGETS: dict[str, tuple[str, tuple[str, ...]]] = {
    "kernels.py": (FULL, ("tests/test_kernels.py",)),
    "masks.py": (FULL, MASKS),
    "metrics/frame.py": (FULL, GROUP_METRICS),
    "metrics/columns.py": (FULL, GROUP_METRICS),
    "metrics/extremes.py": (FULL, GROUP_METRICS),
    "metrics/resample.py": (FULL, ("tests/metrics/test_resample.py",)),
    "metrics/samples.py": (FULL, ("tests/metrics/test_resample.py",)),
    "metrics/similarity.py": (FULL, ("tests/metrics/test_similarity.py",)),
    "metrics": (FULL, ("tests/metrics/test_metrics.py",)),
    "selection/greedy.py": (FULL, ("tests/selection/test_greedy.py",)),
    "selection/counts.py": (FULL, ("tests/selection/test_counts.py",)),
    "selection/allocation.py": (FULL, ALLOCATION),
    "selection/rules.py": (FULL, ALLOCATION),
    "selection/inputs.py": (FULL, ("tests/selection/test_checks.py",)),
    "selection/schedules.py": (FULL, ("tests/selection/test_schedules.py",)),
    "methods/pruning.py": (FULL, ("tests/methods/test_pruning.py",)),
    "selection/maxmin": (SAMPLE, ("tests/selection/test_maxmin.py",)),
    "selection": (
        SAMPLE,
        ("tests/selection/test_inputs.py", "tests/selection/test_fixed_point.py"),
    ),
    "scoring/accumulate.py": (SAMPLE, ("tests/scoring/test_accumulate.py",)),
    "scoring/assignment.py": (SAMPLE, ("tests/scoring/test_assignment.py",)),
    "scoring/importance.py": (SAMPLE, ("tests/scoring/test_importance.py", *PER_SAMPLE)),
    "scoring": (SAMPLE, PER_SAMPLE),
}
COMPARISONS = {
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
}
OPERATORS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.MatMult: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitAnd,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
NAMES = [("min", "max"), ("any", "all"), ("floor", "ceil"), ("minimum", "maximum")]
NAMES += [("argmin", "argmax"), ("zeros", "ones"), ("zeros_like", "ones_like")]
SWAPS = dict(NAMES) | {b: a for a, b in NAMES}


@dataclasses.dataclass(frozen=True)
class Mutant:
    """One change. path: of the module, below the package; before, after: the line."""

    path: str
    line: int
    before: str
    after: str
    source: str = dataclasses.field(repr=False)
    part: str = FULL

    @property
    def key(self) -> tuple[str, str, str]:
        """What names it in the list of equivalent ones, wherever the line has moved to."""
        return self.path, self.before, self.after

    def __str__(self) -> str:
        return f"{self.path}:{self.line}\n  - {self.before}\n  + {self.after}"


# --- what is changed


def changes(node: ast.AST) -> Iterator[ast.AST]:
    """Every node that may stand in the place of `node`, a mutant each."""
    match node:
        case ast.Compare(left, ops, comparators):
            for i, op in enumerate(ops):
                for other in COMPARISONS[type(op)]:
                    yield ast.Compare(left, [*ops[:i], other(), *ops[i + 1 :]], comparators)
        case ast.BinOp(left, op, right) if type(op) in OPERATORS:
            yield ast.BinOp(left, OPERATORS[type(op)](), right)
        case ast.AugAssign(target, op, value):
            yield ast.AugAssign(target, OPERATORS[type(op)](), value)
            yield ast.Pass()
        case ast.UnaryOp(_, operand):
            yield operand
        case ast.BoolOp(op, values):
            yield ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), values)
        case ast.Constant(bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(int(value) | float(value)):
            yield from (ast.Constant(value + 1), ast.Constant(value - 1))
        case ast.Return(value) if value is not None:
            if not isinstance(value, ast.Constant) or value.value is not None:
                yield ast.Return(ast.Constant(None))
        case ast.If(_, body, orelse):
            yield from (ast.If(ast.Constant(value), body, orelse) for value in (True, False))
        case ast.IfExp(_, body, orelse):
            yield from (body, orelse)
        case ast.comprehension(target, iter_, ifs, is_async) if ifs:
            yield ast.comprehension(target, iter_, [], is_async)
        case ast.For(target, _, body, orelse):
            yield ast.For(target, ast.List([], ast.Load()), body, orelse)
        case ast.Break():
            yield ast.Continue()
        case ast.Continue():
            yield ast.Break()
        case ast.Expr(ast.Call()):
            yield ast.Pass()
        case ast.ExceptHandler(_, name, body):
            yield ast.ExceptHandler(ast.Name("NotImplementedError", ast.Load()), name, body)
        case ast.Name(name, ctx) if name in SWAPS:
            yield ast.Name(SWAPS[name], ctx)
        case ast.Attribute(value, name, ctx) if name in SWAPS:
            yield ast.Attribute(value, SWAPS[name], ctx)


def places(tree: ast.AST) -> Iterator[tuple[ast.AST, str, int | None]]:
    """Parent, field and index of every node that is computed: no annotation, no pattern."""
    for name, value in ast.iter_fields(tree):
        if name in ("annotation", "returns", "type_params", "ctx", "op", "ops", "pattern"):
            continue
        for i, child in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(child, ast.AST):
                yield tree, name, i if isinstance(value, list) else None
                yield from places(child)


def get(parent: ast.AST, name: str, index: int | None) -> ast.AST:
    """The node at a place."""
    return getattr(parent, name) if index is None else getattr(parent, name)[index]


def mutants(path: str, text: str, part: str) -> list[Mutant]:
    """All mutants of a module.

    >>> [m.after for m in mutants("a.py", "def f(x):\\n    return x < 1", FULL)]
    ['return None', 'return x <= 1', 'return x > 1', 'return x < 2', 'return x < 0']
    """
    tree, all_mutants = ast.parse(text), []
    parts = [ast.unparse(statement) for statement in tree.body]
    for number, statement in enumerate(tree.body):
        holder = ast.Module([statement], [])
        for parent, name, index in list(places(holder)):
            node = get(parent, name, index)
            for change in changes(node):
                put(parent, name, index, ast.copy_location(change, node))
                changed = ast.unparse(holder)
                put(parent, name, index, node)
                before, after = first_difference(parts[number], changed)
                source = "\n".join([*parts[:number], changed, *parts[number + 1 :]])
                line = getattr(node, "lineno", getattr(parent, "lineno", 0))
                all_mutants.append(Mutant(path, line, before, after, source, part))
    return list({m.source: m for m in all_mutants if m.before != m.after}.values())


def put(parent: ast.AST, name: str, index: int | None, node: ast.AST) -> None:
    """Have a node at a place."""
    if index is None:
        setattr(parent, name, node)
    else:
        getattr(parent, name)[index] = node


def first_difference(a: str, b: str) -> tuple[str, str]:
    """The first line in which they differ, in each."""
    for one, other in zip(a.splitlines(), b.splitlines(), strict=False):
        if one != other:
            return one.strip(), other.strip()
    return "", ""


def part_of(path: str) -> tuple[str, tuple[str, ...]] | None:
    """The row of TARGETS for a module: its own before that of its folder, the innermost first."""
    while path not in TARGETS and path:
        path = path.rpartition("/")[0]
    return TARGETS.get(path)


def collect(only: str, sample: int, seed: int) -> list[Mutant]:
    """The mutants to try, of modules whose path contains `only`; equivalent ones are left out.

    The sample is the same whatever `only` is.
    """
    package, known = ROOT / "fairgrape_jax", set(equivalent())
    all_mutants = []
    for path in sorted(package.rglob("*.py")):
        name = str(path.relative_to(package))
        row = part_of(name)
        if row and (row[0] == SAMPLE or only in name):
            all_mutants += mutants(name, path.read_text(encoding="utf-8"), row[0])
    all_mutants = [mutant for mutant in all_mutants if mutant.key not in known]
    whole = [mutant for mutant in all_mutants if mutant.part == FULL]
    rest = [mutant for mutant in all_mutants if mutant.part == SAMPLE]
    chosen = random.Random(seed).sample(rest, min(sample, len(rest)))
    chosen = [mutant for mutant in chosen if only in mutant.path]
    return whole + sorted(chosen, key=lambda mutant: (mutant.path, mutant.line))


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
    return int(pytest.main([*options, *tests_of(path)]))


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
    parser.add_argument("--seed", type=int, default=0, help="of the sample (%(default)s)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="at a time (%(default)s)")
    parser.add_argument("--least", type=float, default=90, help="per cent (%(default)s)")
    text = "a file of what became of each: those killed in it are not tried again"
    parser.add_argument("--record", type=Path, help=text)
    parser.add_argument("--list", action="store_true", help="list the mutants and end")
    options = parser.parse_args()
    chosen = collect(options.only, options.sample, options.seed)
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
