"""Eight fake CPU devices for every test, programs that outlive a test run, and what a run costs."""

import contextlib
import gc
import os
import sys
from collections import Counter
from pathlib import Path

from tests.helpers import compile_cache, cpu

# Imports and collected tests are no garbage: by Python's own threshold it would look for some
# thousands of times, and JAX each time among its own.
gc.set_threshold(50_000, 20, 100)
# Bytecode is kept of what is imported to collect, whatever the environment says: all processes that
# tests start would compile the package anew, and the next test run the tests too.
WRITE_NO_BYTECODE, sys.dont_write_bytecode = sys.dont_write_bytecode, False

# Before the first import of jax: with 8 devices on few cores XLA's thread pool, one thread per
# core, can wait for ever in a collective.
os.environ.setdefault("NPROC", "16")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
PROBLEM = compile_cache.use(os.environ)

import jax  # noqa: E402
import pytest  # noqa: E402

from tests.helpers import few_passes, shape_checks, whole  # noqa: E402

# Makes golden values with torch, which the tests do without.
collect_ignore = [f"helpers/make_golden_{name}.py" for name in ("keys", "losses", "torch_files")]

jax.config.update("jax_num_cpu_devices", 8)
shape_checks.install()
few_passes.install()
compile_cache.write_whole()

# Files that take longest are begun first, or one process would wait for another at the end. By
# their seconds.
LONGEST = [
    "runner/test_torture",
    "selection/test_fixed_point_programs",
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
LAST = "runner/test_disk_space.py"  # from its first test on the process is slower


@pytest.hookimpl(tryfirst=True)  # before pytest looks which marks are asked for
def pytest_collection_modifyitems(items):
    whole.keep_some(items)
    rank = {name: place for place, name in enumerate(LONGEST)}

    def place(item):
        file = short_name(item)
        longest = rank.get(file.removesuffix(".py"), len(rank))
        return longest, file == LAST, not file.startswith(ALL_PASSES)

    items.sort(key=place)


def short_name(item):
    return "/".join(item.path.parts[-2:])


# Where bits are the subject, or the program that XLA makes, it makes all its passes. Elsewhere as
# few as it can: that takes a third off the time to compile. `make test-hosts` makes all of them.
ALL_PASSES = (
    "parallel/test_devices.py",
    "runner/test_run.py",
    "selection/test_fixed_point_programs.py",
)
# Where what runs do is the subject, and nothing is altered in what they compile, they share steps.
SHARED_STEPS = (
    "cli/",
    "config/",
    "data/",
    "experiments/test_departures.py",
    "experiments/test_faces.py",
    "exporters/",
    "library/",
    "losses/",
    "methods/test_returning.py",
    "parallel/test_hosts.py",
    "parallel/test_preemption.py",
    "reports/",
    "rounds/test_pretrained.py",
    "rounds/test_steps.py",
    "rounds/test_structures.py",
    "rounds/test_train.py",
    "runner/test_disk_space.py",
    "runner/test_integrity.py",
    "runner/test_object_runs.py",
    "runner/test_retention.py",
    "runner/test_run.py",
    "scoring/",
    "storage/",
    "training/test_mixup.py",
)
# Where runs leave reports and their charts are no subject, these are drawn and not rendered.
UNRENDERED = (
    "cli/test_new.py",
    "cli/test_plugins.py",
    "config/",
    "data/",
    "exporters/",
    "library/test_audits.py",
    "losses/",
    "parallel/",
    "recovery/",
    "rounds/",
    "runner/",
    "storage/",
    "training/",
)
# Where the pages are read and never the PNG files of the same charts, these have one pixel.
WITHOUT_PNG = (
    "cli/test_fuzz.py",
    "library/",
    "reports/test_audit.py",
    "reports/test_audit_requests.py",
    "reports/test_browser.py",
)

# Compiled programs hold memory maps, of which a process has some 65,000: then XLA crashes.
MOST_MAPS = 30_000
MAPS = Path("/proc/self/maps")


@pytest.fixture(scope="module", autouse=True)
def programs(request):
    """What is traced and compiled stays from file to file while the passes and the memory allow."""
    name = short_name(request.node)
    few = not name.startswith(ALL_PASSES)
    few &= not request.config.option.markexpr.startswith("multiprocess")
    if few != jax.config.read("jax_disable_most_optimizations") or maps_run_short():
        forget_programs()
    jax.config.update("jax_disable_most_optimizations", few)
    with shared_steps_of(name), charts_of(name), pytest.MonkeyPatch.context() as patch:
        for variable, value in few_passes.environment().items():
            patch.setenv(variable, value)
        yield


@pytest.fixture
def all_passes():
    """For a test of bits, or one that computes more than it compiles."""
    before = jax.config.read("jax_disable_most_optimizations")
    forget_programs()  # JAX takes those that were compiled with few passes
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
    forget_programs()


def maps_run_short():
    return not MAPS.exists() or MAPS.read_bytes().count(b"\n") > MOST_MAPS


def forget_programs():
    jax.clear_caches()
    if helper := sys.modules.get("tests.helpers.shared_steps"):
        helper.BUILT.clear()


def shared_steps_of(name):
    if not name.startswith(SHARED_STEPS):
        return contextlib.nullcontext()
    from tests.helpers import shared_steps  # not before a test needs it: it imports the package

    return shared_steps.shared()


def charts_of(name):
    if not name.startswith(UNRENDERED + WITHOUT_PNG):
        return contextlib.nullcontext()
    from tests.helpers import unrendered

    return unrendered.charts(("svg", "png") if name.startswith(UNRENDERED) else ("png",))


# --- what a test run costs

# Of this process, or of all of pytest-xdist's:
SPENT = Counter()  # CPU seconds of each file
EVENTS = Counter()  # what JAX told, of its compile cache among others
jax.monitoring.register_event_listener(lambda event, **details: EVENTS.update([event]))


def pytest_addoption(parser):
    text = "show the N files that took most CPU time"
    parser.addoption("--cpu-durations", type=int, default=0, metavar="N", help=text)


def charge(name):
    """What was used since the last call was used by `name`."""
    SPENT[name] += cpu.used() - SPENT.total()


def pytest_collection_finish():
    """What was imported and collected stays to the end: no need to look through it for garbage."""
    sys.dont_write_bytecode = WRITE_NO_BYTECODE
    gc.collect()
    gc.freeze()
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
    output = getattr(node, "workeroutput", {})
    SPENT.update(output.get("cpu", {}))
    EVENTS.update(output.get("events", {}))


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session):
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput |= {"cpu": dict(SPENT), "events": dict(EVENTS)}
        return
    if session.config.getoption("numprocesses", None):
        SPENT["pytest-xdist"] = sum(os.times()[:2])  # of this process alone
    over = cpu.line(SPENT.total(), cpu.state(EVENTS))[1]
    if over and os.environ.get("FAIRGRAPE_CPU_CEILING") == "fail" and not session.exitstatus:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter, exitstatus, config):
    if PROBLEM:
        terminalreporter.write_line(PROBLEM)
    for line in cpu.table(SPENT, config.getoption("--cpu-durations")):
        terminalreporter.write_line(line)
    line, over = cpu.line(SPENT.total(), cpu.state(EVENTS))
    terminalreporter.write_line(line, **({"red": True, "bold": True} if over else {}))
