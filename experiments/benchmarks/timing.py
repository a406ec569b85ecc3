"""What the benchmarks share: pictures, times in turn, ratios, and the machine they are from."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fairgrape_jax.data.dataset import Dataset, Split, Task

# Dense bfloat16 FLOP/s of one chip, from the vendors' data sheets; none was measured here.
PEAKS = {
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H200": 989e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
}


def pictures(groups: int, each: int, size: int, classes: int = 7) -> Dataset:
    """Random pictures: `each` of every group in the training split, and as many to test on."""
    rng = np.random.default_rng(0)
    count = groups * each
    split = Split(
        images=rng.integers(0, 256, (count, size, size, 3), np.uint8),
        labels=rng.integers(0, classes, (count, 1), np.int32),
        groups=np.repeat(np.arange(groups, dtype=np.int32), each),
    )
    return Dataset(
        train=split,
        validation=split,
        test=split,
        tasks=(Task("class", tuple(str(c) for c in range(classes))),),
        groups=tuple(f"group {k}" for k in range(groups)),
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )


def seconds(work: Callable[[], Any]) -> float:
    """How long `work` takes, until its result is there."""
    started = time.perf_counter()
    jax.block_until_ready(work())
    return time.perf_counter() - started


def interleaved(rows: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each row, `repeats` times in turn after one call that is not counted.

    In turn, so that a machine that grows slower or busier does so for every row.
    """
    for work in rows.values():
        seconds(work)
    times: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(repeats):
        for name, work in rows.items():
            times[name].append(seconds(work))
    return times


def ratio(times: Sequence[float], base: Sequence[float]) -> float:
    """The median over repetitions of time over base, taken side by side."""
    return statistics.median(a / b for a, b in zip(times, base, strict=True))


def table(times: dict[str, list[float]], base: str) -> list[dict[str, Any]]:
    """A row for each name: median and least seconds, and the ratios of both to those of `base`.

    On a machine that others use, the least of several times says most.
    """
    return [
        {
            "row": name,
            "seconds": round(statistics.median(each), 4),
            "least": round(min(each), 4),
            "ratio": round(ratio(each, times[base]), 3),
            "ratio of least": round(min(each) / min(times[base]), 3),
        }
        for name, each in times.items()
    ]


def show(rows: list[dict[str, Any]]) -> None:
    """Print rows of equal keys as a table."""
    names = list(rows[0])
    widths = {n: max(len(n), *(len(str(row[n])) for row in rows)) for n in names}
    for row in [{n: n for n in names}, *rows]:
        print("  ".join(str(row[n]).ljust(widths[n]) for n in names).rstrip())


def machine() -> dict[str, Any]:
    """Versions, device kind and cores."""
    device = jax.devices()[0]
    packages = ("jax", "jaxlib", "flax", "optax", "numpy")
    return {
        "device": device.device_kind,
        "platform": device.platform,
        "devices": jax.local_device_count(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in packages},
    }


def add_json(path: Path | None, command: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Append this run, its options and the machine to the list in `path`."""
    if path is None:
        return
    runs = json.loads(path.read_text()) if path.exists() else []
    options = {key: _recorded(option) for key, option in command.items()}
    options.pop("json")
    runs.append({"options": options, "machine": machine(), "rows": rows})
    path.write_text(json.dumps(runs, indent=1) + "\n")


def _recorded(option: Any) -> Any:
    """What a record has of an option: of a path of this machine the name alone."""
    if not isinstance(option, str | Path):
        return option
    return Path(option).name if Path(option).is_absolute() else str(option)


def times_faster(base: list[float], times: list[float]) -> dict[str, float]:
    """By how much calls are faster than those beside them, by the median and by the least ones."""
    return {
        "times faster": round(ratio(base, times), 2),
        "of the least": round(min(base) / min(times), 2),
    }
