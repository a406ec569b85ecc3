"""Eight fake CPU devices for every test, and an end to the programs of each file."""

import atexit
import os
import shutil
import tempfile

# Before the first import of jax: with 8 devices on few cores XLA's thread pool, one thread per
# core, can wait for ever in a collective.
os.environ.setdefault("NPROC", "16")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

# What one test has compiled another one reads, in its own process or in one that it starts: runs of
# small networks compile the same programs again and again. It is half of the suite's time.
# The processes of pytest-xdist share the directory of the one that started them.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = made = tempfile.mkdtemp(prefix="fairgrape-tests-")
    atexit.register(shutil.rmtree, made, ignore_errors=True)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "0")

import jax
import pytest

# Makes golden values with torch, which the tests do without.
collect_ignore = ["helpers/make_golden_losses.py"]

jax.config.update("jax_num_cpu_devices", 8)


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


@pytest.fixture(scope="module", autouse=True)
def forget_programs():
    """Compiled programs hold memory maps, of which a process has some 65,000: then XLA crashes."""
    yield
    jax.clear_caches()
