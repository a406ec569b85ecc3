"""What an epoch of each row costs: CPU seconds of long runs minus those of short ones."""

from __future__ import annotations

import dataclasses
import shutil
import time
from pathlib import Path

from experiments.systems.rows import ROWS, experiment
from fairgrape_jax.config import Stage
from fairgrape_jax.reports.document import markdown_table
from fairgrape_jax.runner import run as runner

SHORT, LONG = 2, 8  # epochs of a round; their difference has no compiling, scoring and choosing
BASE = "magnitude"


def cpu_seconds(name: str, epochs: int, out: Path) -> float:
    """CPU seconds of one round from dense training of an epoch.

    Args:
        name: a row.
        epochs: of the round.
        out: a folder for the run, which is removed.
    """
    row = dataclasses.replace(ROWS[name], epochs=epochs, densities=(0.05,))
    once = dataclasses.replace(experiment(row, 0.05, 0), dense=Stage((1,), (1e-3,)))
    shutil.rmtree(out, ignore_errors=True)
    started = time.process_time()
    runner.run(once, out)
    spent = time.process_time() - started
    shutil.rmtree(out)
    return spent


def time_rows(out: Path) -> str:
    """CPU seconds of an epoch of every row, and as a multiple of plain retraining, in Markdown.

    Args:
        out: a folder for runs.
    """
    names = [name for name in ROWS if "half" not in name and "by layer" not in name]
    each: dict[str, float] = {}
    for name in names:
        cpu_seconds(name, SHORT, out / "timed")  # compiled programs are in the cache from here on
        short, long = (cpu_seconds(name, epochs, out / "timed") for epochs in (SHORT, LONG))
        each[name] = (long - short) / (LONG - SHORT)
    rows = [[name, f"{value:.2f}", f"{value / each[BASE]:.2f}"] for name, value in each.items()]
    return markdown_table(["row", "CPU seconds an epoch", f"times {BASE}"], rows)
