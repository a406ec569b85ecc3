"""Eight fake CPU devices for every test, programs that outlive a test run, and what a run costs."""

import contextlib
import os
from collections import Counter
from pathlib import Path

from tests.helpers import compile_cache, cpu

# Before the first import of jax: with 8 devices on few cores XLA's thread pool, one thread per
# core, can wait for ever in a collective.
os.environ.setdefault("NPROC", "16")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
PROBLEM = compile_cache.use(os.environ)
COMPILED = Path(os.environ["JAX_COMPILATION_CACHE_DIR"])

import jax  # noqa: E402
import pytest  # noqa: E402

from tests.helpers import shape_checks  # noqa: E402

# Makes golden values with torch, which the tests do without.
collect_ignore = [f"helpers/make_golden_{name}.py" for name in ("keys", "losses", "torch_files")]

jax.config.update("jax_num_cpu_devices", 8)
shape_checks.install()
compile_cache.write_whole()

# Files that take longest are begun first, or one process would wait for another at the end. By
# their seconds.
LONGEST = [
    "runner/test_torture",
    "selection/test_fixed_point",
    "methods/test_methods",
    "parallel/test_hosts",
    "scoring/test_accumulate",
    "models/test_models",
    "selection/test_maxmin",
    "losses/test_losses",
    "parallel/test_devices",
    "runner/test_run",
    "cli/test_main",
]


def pytest_collection_modifyitems(items):
    rank = {name: place for place, name in enumerate(LONGEST)}

    def place(item):
        return rank.get(f"{item.path.parent.name}/{item.path.stem}", len(rank))

    items.sort(key=place)


# Where bits are the subject, or the program that XLA makes, it makes all its passes. Elsewhere as
# few as it can: that takes a third off the time to compile.
ALL_PASSES = (
    "data/test_augment.py",
    "parallel/test_devices.py",
    "parallel/test_hosts.py",
    "runner/test_run.py",
    "selection/test_fixed_point.py",
    "selection/test_maxmin.py",
    "training/test_mixup.py",
)
# Where what runs do is the subject, those of one file share their steps.
SHARED_STEPS = (
    "cli/",
    "config/",
    "data/",
    "library/",
    "losses/",
    "parallel/test_preemption.py",
    "reports/",
    "runner/test_disk_space.py",
    "runner/test_integrity.py",
    "runner/test_retention.py",
    "scoring/",
    "storage/",
    "training/test_mixup.py",
)


@pytest.fixture(scope="module", autouse=True)
def programs(request):
    """Compiled programs hold memory maps, of which a process has some 65,000: then XLA crashes."""
    name = "/".join(request.path.parts[-2:])
    jax.config.update("jax_disable_most_optimizations", not name.startswith(ALL_PASSES))
    with steps_of_a_file(name.startswith(SHARED_STEPS)):
        yield
    jax.clear_caches()


def steps_of_a_file(share):
    if not share:
        return contextlib.nullcontext()
    from tests.helpers import shared_steps  # not before a test needs it: it imports the package

    return shared_steps.shared()


# --- what a test run costs

SPENT = Counter()  # CPU seconds of each file, of this process or of all of pytest-xdist's
STATE = "warm" if (COMPILED / compile_cache.WHOLE).exists() else "cold"


def pytest_addoption(parser):
    text = "show the N files that took most CPU time"
    parser.addoption("--cpu-durations", type=int, default=0, metavar="N", help=text)


def charge(name):
    """What was used since the last call was used by `name`."""
    SPENT[name] += cpu.used() - SPENT.total()


def pytest_collection_finish():
    charge("importing and collecting")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item, nextitem):
    result = yield
    if nextitem is None or nextitem.path != item.path:
        charge(str(item.path.relative_to(item.config.rootpath)))
    return result


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    """A process of pytest-xdist has ended."""
    SPENT.update(getattr(node, "workeroutput", {}).get("cpu", {}))


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session):
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["cpu"] = dict(SPENT)
        return
    if session.config.getoption("numprocesses", None):
        SPENT["pytest-xdist"] = sum(os.times()[:2])  # of this process alone
    over = cpu.line(SPENT.total(), STATE)[1]
    if over and os.environ.get("FAIRGRAPE_CPU_CEILING") == "fail" and not session.exitstatus:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter, exitstatus, config):
    if PROBLEM:
        terminalreporter.write_line(PROBLEM)
    for line in cpu.table(SPENT, config.getoption("--cpu-durations")):
        terminalreporter.write_line(line)
    line, over = cpu.line(SPENT.total(), STATE)
    terminalreporter.write_line(line, **({"red": True, "bold": True} if over else {}))
    if len(terminalreporter.stats.get("passed", ())) >= 1000 and not exitstatus:
        (COMPILED / compile_cache.WHOLE).touch()
