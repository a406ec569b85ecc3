"""Eight fake CPU devices for every test, and where real data may lie."""

import os
from pathlib import Path

# Before the first import of jax: with 8 devices on few cores XLA's thread pool, one thread per
# core, can wait for ever in a collective.
os.environ.setdefault("NPROC", "16")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and golden values beside the project; skips where it is absent."""
    root = Path(__file__).parents[1]
    path = Path(os.environ.get("FAIRGRAPE_SHARED", root.parent / "shared"))
    if not path.is_dir():
        pytest.skip("no real data: set FAIRGRAPE_SHARED to the folder that holds data/")
    return path
