"""Datasets: pictures, labels and groups from any source, in batches of a reproducible order.

The names below are imported when they are first used, so that a module of this package can be
imported without all the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fairgrape_jax.data.builders.in_memory import from_arrays
    from fairgrape_jax.data.dataset import Dataset, Split, Task
    from fairgrape_jax.data.sources import SOURCES, load, source
    from fairgrape_jax.data.sources.base import Reading, Source
    from fairgrape_jax.data.validate import check

__all__ = [
    "SOURCES",
    "Dataset",
    "Reading",
    "Source",
    "Split",
    "Task",
    "check",
    "from_arrays",
    "load",
    "source",
]

_HOMES = {
    "Dataset": "dataset",
    "Split": "dataset",
    "Task": "dataset",
    "SOURCES": "sources",
    "load": "sources",
    "source": "sources",
    "from_arrays": "builders.in_memory",
    "Reading": "sources.base",
    "Source": "sources.base",
    "check": "validate",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
